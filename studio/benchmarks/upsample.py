"""How well small faces are searched: do samples shrink to them, do they differ, how far are they from the person."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.upsample import SampleReport, UpsamplePipeline
from studio import images, sheets
from studio.benchmarks.provenance import provenance
from studio.errors import InputError
from studio.faces import align
from studio.latents.measure import embed, place_aligned
from studio.photosets import evenly

ALIGNED = 256  # px, of the originals
SHEET_ROWS = 8


def run(
    photos: Path,
    size: int,
    samples: int,
    steps: int,
    move_map: bool,
    limit: int,
    threads: int,
    model: str,
    sheet: Path | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Shrink the largest face of each photo and search for faces that shrink to it.

    Args:
        photos: folder of portraits, whole photographs.
        size: of the small faces, px.
        samples: per face.
        steps: of the search at most.
        move_map: see `UpsamplePipeline.__call__`; False measures the search of latents alone.
        limit: at most so many photos, evenly spread over the folder; 0 takes all.
        threads: CPU threads; 0 leaves the default.
        model: see `UpsamplePipeline.from_pretrained`.
        sheet: where a contact sheet goes (original, small, samples), or None.
        say: receives progress lines.

    Returns:
        `found` (share of all samples whose error, as the prior draws them, is at most the threshold), `faces_found`
        (share of faces with all samples found), `any_found` (with at least one), `face_found` (share of samples whose
        error inside the face, as drawn, is small enough), `converged` (share of samples whose returned picture's error
        is at most the threshold), `drawn_error`, `face_error` and `downscale_error` (mean and worst), `map_shift`
        (mean and worst, in standard deviations), `between_samples` (mean pairwise identity distance), `to_original`
        (mean identity distance of samples to the original) and `nearest_to_original` (of the best sample of each face),
        `seconds` per face (median), and counts.

    Raises:
        InputError: no face in the folder.
    """
    if threads:
        torch.set_num_threads(threads)
    pipeline = UpsamplePipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    originals = aligned_faces(pipeline, photos, limit)
    say(f"{len(originals)} faces from {photos.name}")
    persons = embed(pipeline.encoder(), originals, place_aligned(pipeline.finder(), originals).mesh).cpu()
    samples_of: list[list[SampleReport]] = []  # per face
    between, to_original, seconds = [], [], []
    rows: list[list[Tensor]] = []
    for original, person in zip(originals, persons, strict=True):
        small = images.resize(original, size, size)
        start = time.perf_counter()
        output = pipeline(
            small, num_images_per_prompt=samples, num_inference_steps=steps, move_map=move_map, output_type="pt"
        )
        seconds.append(time.perf_counter() - start)
        report = output.reports[0]
        samples_of.append(report.samples)
        between.append(report.mean_identity_distance)
        drawn: Any = output.images[0]
        seen = images.resize(torch.stack(drawn), ALIGNED, ALIGNED)
        vectors = embed(pipeline.encoder(), seen, place_aligned(pipeline.finder(), seen).mesh).cpu()
        to_original.append((vectors - person).norm(dim=1).tolist())
        rows.append([original, images.resize(small, ALIGNED, ALIGNED), *seen])
        drawn, of_face = (
            [round(getattr(sample, name), 4) for sample in report.samples] for name in ("drawn_error", "face_error")
        )
        say(f"face {len(rows)}: errors as drawn {drawn}, there of the face {of_face}, {seconds[-1]:.0f} s")
    if sheet:
        sheets.write(sheet, rows[:SHEET_ROWS])

    def all_of(name: str) -> list[list[Any]]:
        return [[getattr(sample, name) for sample in each] for each in samples_of]

    found = all_of("found")
    return {
        "benchmark": "upsample",
        "set": photos.name,
        "faces": len(originals),
        "size": size,
        "samples": samples,
        "steps": steps,
        "move_map": move_map,
        "threshold": report.threshold,
        "found": mean(found),
        "faces_found": mean([all(each) for each in found]),
        "any_found": mean([any(each) for each in found]),
        "face_found": mean([[error <= report.threshold for error in each] for each in all_of("face_error")]),
        "converged": mean(all_of("converged")),
        "drawn_error": mean_and_worst(all_of("drawn_error")),
        "face_error": mean_and_worst(all_of("face_error")),
        "downscale_error": mean_and_worst(all_of("downscale_error")),
        "map_shift": mean_and_worst(all_of("map_shift")),
        "between_samples": mean(between) if samples > 1 else None,
        "to_original": mean(to_original),
        "nearest_to_original": mean([min(each) for each in to_original]),
        "seconds": round(float(np.median(seconds)), 2),
        "provenance": provenance(("generator", "head_256", "directions", "identity", "mesh")),
    }


def aligned_faces(pipeline: UpsamplePipeline, folder: Path, limit: int) -> Tensor:
    """The largest face of each photo, FFHQ-aligned: (N,3,256,256) in [0,1]."""
    paths = images.find_images([folder])
    paths = evenly(paths, limit or len(paths))
    crops = []
    for path in paths:
        pixels = images.load(path).pixels
        faces = pipeline.finder()(pixels)
        if len(faces):
            crops.append(align.warp(pixels, align.ffhq_transform(faces.mesh[:1], ALIGNED), ALIGNED).clamp(0, 1))
    if not crops:
        raise InputError(f"the folder must hold portraits, no face was found in {folder}: give another one")
    return torch.cat(crops)


def mean_and_worst(values: list[list[float]]) -> dict[str, float]:
    """Of all numbers in a list of lists."""
    return {"mean": mean(values, 6), "worst": round(float(np.max(values)), 6)}


def mean(values: list[Any], digits: int = 4) -> float:
    """Mean of all numbers in a list, or list of lists."""
    return round(float(np.mean(np.asarray(values, np.float64))), digits)
