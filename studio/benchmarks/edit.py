"""Editing in the photograph: how much of what was asked for comes, and what it costs of the person."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.edit import STEPS, EditPipeline, Sitter
from studio import images, sheets
from studio.benchmarks.frontalize import spread
from studio.benchmarks.provenance import provenance
from studio.errors import InputError, NoFaceError, StudioError
from studio.identity.similarity import SAME_PERSON
from studio.latents.attributes import YEARS
from studio.latents.prior import SEARCHED
from studio.metrics import psnr
from studio.networks.latent_space import AGE
from studio.photosets import evenly

WEIGHTS = ("generator", "restore", "parts", "directions", "head_256", "head_512", "identity", "mesh")
OLDER = 15.0  # years, or less where that is more than 80
CHANGES = {
    "smile +1": {"smile": 1.0},
    "smile -1": {"smile": -1.0},
    "mouth +1": {"mouth": 1.0},
    "eyes +1": {"eyes": 1.0},
    "brow +1": {"brow": 1.0},
    "light +1": {"light": 1.0},
    "glasses +2": {"glasses": 2.0},
    "glasses -2": {"glasses": -2.0},
    "older": {AGE: OLDER},
    "younger": {AGE: -OLDER},
}
SHEET_FACES = 8


def run(
    photos: Path, limit: int, compare: bool, threads: int, sheet: Path | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Make the same changes to the largest face of each photograph.

    Args:
        photos: folder of portraits.
        limit: at most so many photographs, spread evenly over the folder; 0 takes all.
        compare: also search for a likeness of each, and make the changes to that (about a minute a photo).
        threads: CPU threads; 0 leaves the default.
        sheet: where the faces go, each with its changes, the first `SHEET_FACES`, or None.
        say: receives progress lines.

    Returns:
        `reading`: identity distance to the photo and PSNR (at 256 px) of the face as the restorer reads it and the
        prior draws it, without any search; `likeness_distance`: of the latents whose change is carried over. Then
        `in_photo`, and with `compare` `in_likeness`, with for each of `CHANGES` `moved`, the measured share of what was
        asked for, and `identity_distance` to the photo; `failed`, results that were no face; `same`, the share of
        distances below 0.6; medians `find_seconds` and `edit_seconds`. `skipped`: photographs without a face that is
        large enough. The identity encoder steered the searches and took part in training: distances flatter.

    Raises:
        InputError: no photograph shows a face.
    """
    if threads:
        torch.set_num_threads(threads)
    pipeline = EditPipeline.from_pretrained("edit")
    pipeline.set_progress_bar_config(disable=True)
    paths = images.find_images([photos])
    paths = evenly(paths, limit or len(paths))
    ways = {"photo": Way()} | ({"likeness": Way()} if compare else {})
    reading, sharp, likeness, skipped, cells = [], [], [], [], []
    for path in paths:
        begin = time.perf_counter()
        try:
            sitter = pipeline.prepare(path, face=0)
        except (NoFaceError, InputError):
            skipped.append(path.name)
            continue
        ways["photo"].found.append(time.perf_counter() - begin)
        assert sitter.portrait is not None and sitter.inside is not None  # of a photo
        crop = sitter.portrait.crop
        read = images.resize(crop - sitter.inside.lacking, SEARCHED, SEARCHED).clamp(0, 1)
        reading.append(float((pipeline.measured(read)[1] - sitter.vector).norm()))
        sharp.append(float(psnr(read, images.resize(crop[None], SEARCHED, SEARCHED))))
        likeness.append(sitter.likeness_distance)
        shown = [crop]
        for name, wanted in CHANGES.items():
            shown.append(torch.zeros_like(crop))
            with ways["photo"].change(name) as add:
                shown[-1] = edit(pipeline, sitter, wanted, add)
        cells.append(shown)
        if compare:
            edit_likeness(pipeline, sitter, ways["likeness"])
        say(f"{path.name}: read {reading[-1]:.2f} away, " + ", ".join(f"{k} {v.last():.2f}" for k, v in ways.items()))
    if not reading:
        raise InputError(f"the folder must hold portraits, no face was found in {len(paths)} photos: give another one")
    if sheet:
        sheets.write(sheet, cells[:SHEET_FACES], height=192)
    return {
        "benchmark": "edit",
        "set": photos.name,
        "faces": len(reading),
        "steps": STEPS["photo"],
        "reading": {"identity_distance": spread(np.array(reading)), "psnr": round(float(np.mean(sharp)), 2)},
        "likeness_distance": spread(np.array(likeness)),
        **{f"in_{name}": way.summary() for name, way in ways.items()},
        "skipped": skipped,
        "note": "the identity encoder steered the searches and took part in training, so its distances flatter",
        "provenance": provenance(WEIGHTS),
    }


class Way:
    """The figures of one way to edit."""

    def __init__(self) -> None:
        self.moved: dict[str, list[float]] = {name: [] for name in CHANGES}
        self.distances: dict[str, list[float]] = {name: [] for name in CHANGES}
        self.found: list[float] = []
        self.seconds: list[float] = []
        self.failed = 0

    @contextmanager
    def change(self, name: str) -> Iterator[Callable[..., None]]:
        """Times one change and counts it as failed where it leaves no face.

        What it yields takes what was asked for, the report's values before and after, and the distance to the photo.
        """
        begin = time.perf_counter()

        def add(given: dict[str, float], before: dict[str, float], after: dict[str, float], distance: float) -> None:
            self.seconds.append(time.perf_counter() - begin)
            ((attribute, value),) = given.items()
            step = value - before[attribute] if attribute == AGE else value
            self.moved[name].append((after[attribute] - before[attribute]) / step)
            self.distances[name].append(distance)

        try:
            yield add
        except StudioError:
            self.failed += 1

    def last(self) -> float:
        """Mean identity distance of the last photo's changes."""
        return float(np.mean([values[-1] for values in self.distances.values() if values] or [np.nan]))

    def summary(self) -> dict[str, Any]:
        """As `run` returns it."""
        every = np.concatenate([np.array(values) for values in self.distances.values()])
        return {
            "changes": {
                name: {
                    "moved": round(float(np.mean(self.moved[name])), 2),
                    "identity_distance": spread(np.array(self.distances[name])),
                }
                for name in CHANGES
                if self.moved[name]
            },
            "failed": self.failed,
            "same": round(float((every < SAME_PERSON).mean()), 4),
            "identity_distance": round(float(every.mean()), 4),
            "find_seconds": round(float(np.median(self.found)), 2),
            "edit_seconds": round(float(np.median(self.seconds)), 2),
        }


def edit(pipeline: EditPipeline, sitter: Sitter, wanted: dict[str, float], add: Callable[..., None]) -> torch.Tensor:
    """Make a change of `CHANGES` and count it; an age is told, not its change, and within what the prior draws."""
    ((name, step),) = wanted.items()
    if name == AGE:
        least, most = YEARS
        wanted = {AGE: min(max(float(sitter.seen[pipeline.space.number(AGE)]) + step, least), most)}
    done = pipeline.edit(sitter, wanted)
    add(wanted, done.report.before, done.report.after, done.report.identity_distance)
    return done.face


def edit_likeness(pipeline: EditPipeline, sitter: Sitter, way: Way) -> None:
    """The same changes on a likeness of the face."""
    assert sitter.portrait is not None  # of a photo
    begin = time.perf_counter()
    one = replace(sitter.portrait, crop=images.resize(sitter.portrait.crop, SEARCHED, SEARCHED))
    found = pipeline.likeness_of(pipeline.likeness(one), one)
    way.found.append(time.perf_counter() - begin)
    for name, wanted in CHANGES.items():
        with way.change(name) as add:
            edit(pipeline, found, wanted, add)
