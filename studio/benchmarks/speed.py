"""Seconds per face and per step of `RestorePipeline`, with any of its models, on a generated photograph."""

from __future__ import annotations

import importlib
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.restore import CROP, OWN_PARTS, RestorePipeline
from studio import images, weights
from studio.benchmarks.provenance import provenance
from studio.networks.generator import Generator

BATCHES = (1, 8)
MEGAPIXEL = (864, 1152)  # px, a photo of which nothing but noise is to be cleaned


@torch.inference_mode()
def run(threads: int, repeats: int, models: Sequence[str]) -> dict[str, Any]:
    """Time the steps on a photo with one face and on one with eight.

    Args:
        threads: CPU threads; 0 leaves torch's default.
        repeats: runs of each step after one warm-up; the median counts.
        models: see `RestorePipeline.from_pretrained`. One that is published and not here is timed with random numbers.

    Returns:
        Of the first model, per batch: `seconds_per_face` of the whole call, `cpu_seconds_per_face` (of all threads
        together, which a busy machine changes little), and `steps` in seconds per face. The others likewise under
        `models`, by name, with `random` where their numbers are. `peak_memory_mb` of the process.
    """
    if threads:
        torch.set_num_threads(threads)
    photos: dict[int, images.Photo] = {}
    found = []
    for model in models:
        pipeline, random = load(model)
        if not photos:
            generator = pipeline.generator or weights.load("generator")
            photos = {count: images.load(generated_photo(generator, count)) for count in BATCHES}
        found.append(({"random": True} if random else {}) | timed(pipeline, repeats, photos))
    first, *others = found
    return {
        "benchmark": "speed",
        "model": models[0],
        "crop": CROP,
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        **first,
        **({"models": dict(zip(models[1:], others, strict=True))} if others else {}),
        "peak_memory_mb": peak_memory_mb(),
        "provenance": provenance(("restore", "map_flow", "cleaner", "generator")),
    }


def load(model: str) -> tuple[RestorePipeline, bool]:
    """A pipeline, and whether its restorer is filled with random numbers because its file is not here."""
    entry = weights.entries().get(model)
    if entry is None or entry.published is None or weights.locate(model)[0] != "absent":
        return RestorePipeline.from_pretrained(model), False
    module, name = entry.network.split(":")
    network = getattr(importlib.import_module(module), name)().eval()
    parts: dict[str, Any] = {**OWN_PARTS, "restorer": network, **weights.components(cleaner="cleaner")}
    return RestorePipeline(**parts), True


def timed(pipeline: RestorePipeline, repeats: int, photos: dict[int, images.Photo]) -> dict[str, Any]:
    """`run` of one model."""
    pipeline.set_progress_bar_config(disable=True)
    report: dict[str, Any] = {}
    for count, photo in photos.items():
        faces = pipeline.find(photo)
        crops, to_photo = pipeline.crop(photo, faces)
        reading = pipeline.read(crops)
        joined, masks = pipeline.join(reading), pipeline.masks(reading, to_photo, faces, "auto")
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
        before = time.process_time()
        # Random numbers may draw anybody: the guard would put the photo back, and end the step early.
        whole = median(lambda p=photo: pipeline(p, output_type="pt", identity_guard=None), repeats) / len(faces)
        processors = (time.process_time() - before) / (repeats + 1) / len(faces)
        report[f"batch {count}"] = {
            "faces": len(faces),
            "seconds_per_face": round(whole, 4),
            "cpu_seconds_per_face": round(processors, 4),
            "steps": per_face,
        }
    return report


def generated_photo(generator: Generator, count: int) -> Tensor:
    """A photo (3,H,W) of `count` generated people in a row, each on 512 px."""
    z = torch.randn(count, generator.config.style_dim, generator=torch.Generator().manual_seed(7))
    people = generator(generator.latents(z, truncation=0.6)) / 2 + 0.5
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
