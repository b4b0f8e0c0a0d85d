"""How well small faces are searched: do samples shrink to them, do they differ, how far are they from the person."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.upsample import UpsamplePipeline
from studio import images, sheets
from studio.benchmarks.provenance import provenance
from studio.errors import InputError
from studio.faces import align
from studio.latents.measure import embed, place_aligned

ALIGNED = 256  # px, of the originals
SHEET_ROWS = 8


def run(
    photos: Path,
    size: int,
    samples: int,
    steps: int,
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
        steps: of the search.
        limit: at most so many photos, evenly spread over the folder; 0 takes all.
        threads: CPU threads; 0 leaves the default.
        model: see `UpsamplePipeline.from_pretrained`.
        sheet: where a contact sheet goes (original, small, samples), or None.
        say: receives progress lines.

    Returns:
        `converged` (share of all samples whose picture's error is at most the threshold), `latents_converged` (the same
        of the picture of the latents alone), `faces_converged` (share of faces with all samples converged),
        `any_converged` (with at least one), `face_converged` (share of samples whose latents' error inside the face is
        small enough), `downscale_error`, `latent_error` and `face_error` (mean and worst), `between_samples` (mean
        pairwise identity distance), `to_original` (mean identity distance of samples to the original) and
        `nearest_to_original` (of the best sample of each face), `seconds` per face (median), and counts.

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
    errors, of_latents, of_face, converged, found = [], [], [], [], []
    between, to_original, seconds = [], [], []
    rows: list[list[Tensor]] = []
    for original, person in zip(originals, persons, strict=True):
        small = images.resize(original, size, size)
        start = time.perf_counter()
        output = pipeline(small, num_images_per_prompt=samples, num_inference_steps=steps, output_type="pt")
        seconds.append(time.perf_counter() - start)
        report = output.reports[0]
        errors.append([sample.downscale_error for sample in report.samples])
        of_latents.append([sample.latent_error for sample in report.samples])
        found.append([sample.found for sample in report.samples])
        of_face.append([sample.face_error for sample in report.samples])
        converged.append([sample.converged for sample in report.samples])
        between.append(report.mean_identity_distance)
        seen = images.resize(torch.stack(output.images[0]), ALIGNED, ALIGNED)
        vectors = embed(pipeline.encoder(), seen, place_aligned(pipeline.finder(), seen).mesh).cpu()
        to_original.append((vectors - person).norm(dim=1).tolist())
        rows.append([original, images.resize(small, ALIGNED, ALIGNED), *seen])
        shown = [np.round(each[-1], 4).tolist() for each in (errors, of_latents, of_face)]
        say(
            f"face {len(errors)}: errors {shown[0]}, of the latents {shown[1]}, there of the face {shown[2]}, "
            f"{seconds[-1]:.0f} s"
        )
    if sheet:
        sheets.write(sheet, rows[:SHEET_ROWS])
    return {
        "benchmark": "upsample",
        "set": photos.name,
        "faces": len(originals),
        "size": size,
        "samples": samples,
        "steps": steps,
        "threshold": report.threshold,
        "converged": mean(converged),
        "latents_converged": mean(found),
        "faces_converged": mean([all(each) for each in converged]),
        "any_converged": mean([any(each) for each in converged]),
        "face_converged": mean([[error <= report.threshold for error in each] for each in of_face]),
        "downscale_error": {"mean": mean(errors, 6), "worst": round(float(np.max(errors)), 6)},
        "latent_error": {"mean": mean(of_latents, 6), "worst": round(float(np.max(of_latents)), 6)},
        "face_error": {"mean": mean(of_face, 6), "worst": round(float(np.max(of_face)), 6)},
        "between_samples": mean(between) if samples > 1 else None,
        "to_original": mean(to_original),
        "nearest_to_original": mean([min(each) for each in to_original]),
        "seconds": round(float(np.median(seconds)), 2),
        "provenance": provenance(("generator", "head_256", "directions", "identity", "mesh")),
    }


def aligned_faces(pipeline: UpsamplePipeline, folder: Path, limit: int) -> Tensor:
    """The largest face of each photo, FFHQ-aligned: (N,3,256,256) in [0,1]."""
    paths = images.find_images([folder])
    if limit and limit < len(paths):
        paths = [paths[round(i * (len(paths) - 1) / max(limit - 1, 1))] for i in range(limit)]
    crops = []
    for path in paths:
        pixels = images.load(path).pixels
        faces = pipeline.finder()(pixels)
        if len(faces):
            crops.append(align.warp(pixels, align.ffhq_transform(faces.mesh[:1], ALIGNED), ALIGNED).clamp(0, 1))
    if not crops:
        raise InputError(f"the folder must hold portraits, no face was found in {folder}: give another one")
    return torch.cat(crops)


def mean(values: list[Any], digits: int = 4) -> float:
    """Mean of all numbers in a list, or list of lists."""
    return round(float(np.mean(np.asarray(values, np.float64))), digits)
