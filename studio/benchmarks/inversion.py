"""How like a photograph the prior's nearest face is: the likeness that frontalization and editing begin with."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.frontalize import FrontalizePipeline
from studio import images, sheets
from studio.benchmarks.frontalize import WEIGHTS, spread
from studio.benchmarks.provenance import provenance
from studio.errors import InputError, NoFaceError
from studio.identity.similarity import SAME_PERSON
from studio.metrics import psnr
from studio.photosets import evenly

SHEET_FACES = 12


def run(
    photos: Path,
    steps: int,
    limit: int,
    threads: int,
    model: str,
    sheet: Path | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Search the prior for the largest face of each photograph.

    Args:
        photos: folder of portraits.
        steps: of the search, see `studio.latents.inversion.invert`.
        limit: at most so many photographs, spread evenly over the folder; 0 takes all.
        threads: CPU threads; 0 leaves the default.
        model: see `FrontalizePipeline.from_pretrained`.
        sheet: where photos and likenesses go, the first `SHEET_FACES`, or None.
        say: receives progress lines.

    Returns:
        `identity_distance` of the likeness, as the generator itself draws it, to the photo; the same of the `start`,
        before the search; `same`, the share below 0.6; `psnr` at 256 px in dB; median `seconds` a face; `skipped`,
        photographs without a face. The encoder that measures also steered the search.

    Raises:
        InputError: no photograph shows a face.
    """
    if threads:
        torch.set_num_threads(threads)
    pipeline = FrontalizePipeline.from_pretrained(model)
    paths = images.find_images([photos])
    paths = evenly(paths, limit or len(paths))
    starts, distances, likeness, seconds, skipped, cells = [], [], [], [], [], []
    for path in paths:
        try:
            subject = pipeline.subject(images.load(path), 0)
        except NoFaceError:
            skipped.append(path.name)
            continue
        begin = time.perf_counter()
        w = pipeline.likeness(subject, steps)
        seconds.append(time.perf_counter() - begin)
        pictures = [pipeline.exact(latents, subject.tone) for latents in (pipeline.likeness(subject, 0), w)]
        person = subject.person.float().cpu()
        start, last = (float((pipeline.look(picture)[1] - person).norm()) for picture in pictures)
        starts.append(start)
        distances.append(last)
        likeness.append(float(psnr(pictures[1].cpu(), subject.crop[None])))
        cells += [subject.crop, pictures[1][0]]
        say(f"{path.name}: identity {start:.2f} to {last:.2f}, {seconds[-1]:.0f} s")
    if not distances:
        raise InputError(f"the folder must hold portraits, no face was found in {len(paths)} photos: give another one")
    if sheet:
        shown = cells[: 2 * SHEET_FACES]
        sheets.write(sheet, [shown[i : i + 6] for i in range(0, len(shown), 6)], height=192)
    return {
        "benchmark": "inversion",
        "set": photos.name,
        "faces": len(distances),
        "steps": steps,
        "start": spread(np.array(starts)),
        "identity_distance": spread(np.array(distances)),
        "same": round(float((np.array(distances) < SAME_PERSON).mean()), 4),
        "psnr": round(float(np.mean(likeness)), 2),
        "seconds": round(float(np.median(seconds)), 2),
        "skipped": skipped,
        "note": "the encoder that measures also steered the search",
        "provenance": provenance(WEIGHTS),
    }
