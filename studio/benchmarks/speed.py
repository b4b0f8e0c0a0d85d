"""Seconds per face and per step of `RestorePipeline`, on a generated photograph."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.restore import CROP, RestorePipeline
from studio import images
from studio.benchmarks.provenance import provenance

BATCHES = (1, 8)


@torch.inference_mode()
def run(threads: int, repeats: int, model: str) -> dict[str, Any]:
    """Time the steps on a photo with one face and on one with eight.

    Args:
        threads: CPU threads; 0 leaves torch's default.
        repeats: runs of each step after one warm-up; the median counts.
        model: see `RestorePipeline.from_pretrained`.

    Returns:
        Per batch: `seconds_per_face` of the whole call, and `steps` in seconds per face; `peak_memory_mb` of the
        process.
    """
    if threads:
        torch.set_num_threads(threads)
    pipeline = RestorePipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    report = {}
    for count in BATCHES:
        photo = images.load(generated_photo(pipeline, count))
        faces = pipeline.find(photo)
        crops, to_photo = pipeline.crop(photo, faces)
        restored = pipeline.restore_crops(crops)
        strengths = np.ones(len(faces), np.float32)
        steps: dict[str, Callable[[], object]] = {
            "find": lambda p=photo: pipeline.find(p),
            "crop": lambda p=photo, f=faces: pipeline.crop(p, f),
            "restore_crops": lambda c=crops: pipeline.restore_crops(c),
            "guard": lambda c=crops, r=restored, t=to_photo, f=faces, s=strengths: pipeline.guard(c, r, t, f, s, 0.6),
            "paste": lambda p=photo, r=restored, t=to_photo, f=faces: pipeline.paste(p, r, t, f),
        }
        per_face = {name: round(median(step, repeats) / len(faces), 4) for name, step in steps.items()}
        whole = median(lambda p=photo: pipeline(p, output_type="pt"), repeats) / len(faces)
        report[f"batch {count}"] = {"faces": len(faces), "seconds_per_face": round(whole, 4), "steps": per_face}
    return {
        "benchmark": "speed",
        "crop": CROP,
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        **report,
        "peak_memory_mb": peak_memory_mb(),
        "provenance": provenance(("restore", "generator")),
    }


def generated_photo(pipeline: RestorePipeline, count: int) -> Tensor:
    """A photo (3,H,W) of `count` generated people in a row, each on 512 px."""
    z = torch.randn(count, pipeline.generator.config.style_dim, generator=torch.Generator().manual_seed(7))
    people = pipeline.generator(pipeline.generator.latents(z, truncation=0.6)) / 2 + 0.5
    return torch.cat(list(images.resize(people, CROP, CROP).clamp(0, 1)), 2)


def median(step: Callable[[], object], repeats: int) -> float:
    """Median seconds of a step after one warm-up."""
    step()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def peak_memory_mb() -> int:
    """Largest resident size of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))
