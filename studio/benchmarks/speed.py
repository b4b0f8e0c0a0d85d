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
MEGAPIXEL = (864, 1152)  # px, a photo of which nothing but noise is to be cleaned


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
        reading = pipeline.read(crops)
        joined, masks = pipeline.join(reading), pipeline.masks(reading, to_photo, faces, "head")
        guarded = crops, joined.picture, to_photo, faces, np.ones(len(faces), np.float32), 0.6
        steps: dict[str, Callable[[], object]] = {
            "find": lambda p=photo: pipeline.find(p),
            "crop": lambda p=photo, f=faces: pipeline.crop(p, f),
            "read": lambda c=crops: pipeline.read(c),
            "join": lambda r=reading: pipeline.join(r),
            "guard": lambda g=guarded: pipeline.guard(*g),
            "paste": lambda p=photo, j=joined, c=crops, t=to_photo, m=masks: pipeline.paste(p, j, c, t, m),
        }
        if count == 1:
            steps["clean, 1 MP"] = lambda: pipeline.clean(images.load(torch.rand(3, *MEGAPIXEL)))
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
        "provenance": provenance(("restore", "map_flow", "cleaner", "generator")),
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
