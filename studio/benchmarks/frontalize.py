"""How well heads are turned: back to a front that is known, and what it does to verification on real photographs.

*Generated people.* A person is turned to the front, then by each angle to one side, and the side is given to the
pipeline. Turning along a direction alone makes another person of somebody (0.6 and more at 45°), so that the side is
brought back to the person by `identity_steps`, which follow the encoder that also judges; `input_distance` says how far
it still is. Sides whose measured angle is more than 4° off are left out, and those in which the mesh sees no face.

*Real photographs.* Every pair of `pairs.csv` with a side turned by `min_yaw` or more, as the mesh measures it:
distances as they are, and with the turned sides frontalized. And half-profiles of `aligned_old`, chosen by the yaw in
`manifest.csv`, of whom there is no second photograph: how straight they get, and how far from the photo.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.frontalize import METHODS, STEPS, FrontalizePipeline, check_arguments
from studio import images, sheets
from studio.benchmarks.identity import read_pairs, separation
from studio.benchmarks.provenance import FINDER, provenance
from studio.errors import InputError, StudioError
from studio.identity.similarity import SAME_PERSON
from studio.latents.edit import move_to
from studio.latents.identity_steps import identity_steps
from studio.networks.frontalizer import Frontalizer
from studio.photosets import evenly

PROFILES = (20.0, 50.0)  # degrees
ANGLES = (15.0, 30.0, 45.0, 60.0)
OFF = 4.0  # degrees that a side may be off its angle
HOLD_STEPS = 25
TRUNCATION = 0.7
WEIGHTS = ("generator", "head_256", "directions", "identity", *FINDER, "frontal")


def run(
    photos: Path | None,
    people: int,
    pairs: bool,
    limit: int,
    min_yaw: float,
    profiles: int,
    seed: int,
    methods: list[str],
    steps: int | None,
    refine: int,
    threads: int,
    model: str,
    sheet: Path | None,
    profile_sheet: Path | None,
    say: Callable[[str], None],
    frontalizer: Path | None = None,
) -> dict[str, Any]:
    """Turn generated people back to the front, and real half-profiles to it.

    Args:
        photos: folder with `pairs.csv` and `manifest.csv`, or None for generated people alone.
        people: how many are generated; 0 leaves them out.
        pairs: whether the real pairs are measured; every photograph of them has to be looked at for that.
        limit: at most so many real photographs are turned, the most turned ones first; 0 takes all.
        min_yaw: degrees that a side of a pair is turned at least.
        profiles: half-profiles of `photos/aligned_old`, evenly spread over them; 0 leaves them out.
        seed: of the people.
        methods: of `FrontalizePipeline.__call__`, one or more, each of which is given the same faces.
        steps: of the search for a likeness, see there; None takes the method's own.
        refine: steps of the refinement, see there.
        threads: CPU threads; 0 leaves the default.
        model: see `FrontalizePipeline.from_pretrained`.
        sheet: where a sheet of the generated people goes (front, then side and results of each angle), or None.
        profile_sheet: where one of the half-profiles goes (photo and results), or None.
        say: receives progress lines.
        frontalizer: folder of a two-pathway network to measure in place of the model's, such as `RUN/frontalizer` of a
            training.

    Returns:
        `generated` (see `turn_generated`), `pairs` (see `turn_pairs`) and `half_profiles` (see `turn_profiles`), by
        method, None for what was left out; and what was asked.

    Raises:
        InputError: nothing to measure, an unknown method, or no `pairs.csv`.
    """
    if photos is None and people < 1:
        raise InputError("there must be something to turn, got no photos and no people: pass --photos or --people")
    if unknown := [method for method in methods if method not in METHODS]:
        raise InputError(f"--method must be one of {', '.join(METHODS)}, got {unknown[0]!r}: choose one of them")
    for method in methods:  # before minutes of work, each face of which would be counted as refused
        check_arguments(0.0, None, "keep", "generated", None, method, steps, refine, "pt")
    if threads:
        torch.set_num_threads(threads)
    pipeline = FrontalizePipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    if frontalizer:
        pipeline.register_modules(frontalizer=Frontalizer.from_pretrained(frontalizer))
    settings: dict[str, dict[str, Any]] = {
        method: {
            "method": method,
            "num_inference_steps": STEPS[method] if steps is None else steps,
            "refinement_steps": refine,
        }
        for method in methods
    }
    return {
        "benchmark": "frontalize",
        "seed": seed,
        "people": people,
        "settings": settings,
        "generated": turn_generated(pipeline, people, seed, settings, sheet, say) if people else None,
        "pairs": turn_pairs(pipeline, photos, limit, min_yaw, settings, say) if photos and pairs else None,
        "half_profiles": turn_profiles(pipeline, photos, profiles, settings, profile_sheet, say)
        if photos and profiles
        else None,
        "provenance": provenance(WEIGHTS, {"frontal": frontalizer} if frontalizer else {}),
    }


# ---- generated people


def turn_generated(
    pipeline: FrontalizePipeline,
    people: int,
    seed: int,
    settings: dict[str, dict[str, Any]],
    sheet: Path | None,
    say: Callable[[str], None],
) -> dict[str, list[dict[str, Any]]]:
    """Sides of generated people, turned back.

    Returns:
        By method, for each of `ANGLES`: `sides` (used), `refused` (by the pipeline), `input_distance` (side to true
        front), `residual_yaw` (mean and worst |yaw| of the result), `likeness_distance` (side to its likeness),
        `to_input` and `to_front` (identity distances of the result: mean, worst, and the share below 0.6 as `same`) and
        `seconds` (median).
    """
    found: dict[tuple[str, float], list[dict[str, float]]] = {(one, angle): [] for one in settings for angle in ANGLES}
    refused = dict.fromkeys(found, 0)
    rows = []
    for number in range(people):
        w = sample(pipeline, seed * 1000 + number)
        front = at_yaw(pipeline, w, 0.0)
        values, person = pipeline.look(pipeline.exact(front, None))
        row: list[Any] = [picture_of(pipeline, front)]
        for k, angle in enumerate(ANGLES):
            sign = 1.0 if (number + k) % 2 else -1.0
            try:
                side = held(pipeline, front, person, sign * angle, float(values[1]))
                measured, vector = pipeline.look(pipeline.exact(side, None))
            except StudioError:
                say(f"person {number}, {angle:.0f}°: left out, the prior draws no such side")
                continue
            if abs(float(measured[0]) - sign * angle) > OFF:
                say(f"person {number}, {angle:.0f}°: left out, the side measures {float(measured[0]):+.0f}°")
                continue
            given = picture_of(pipeline, side)
            row.append(given)
            for method, asked in settings.items():
                start = time.perf_counter()
                try:
                    output = pipeline(given, output_type="pt", background="generated", **asked)
                except StudioError as error:
                    refused[method, angle] += 1
                    say(f"person {number}, {angle:.0f}°, {method}: {error}")
                    continue
                report, seconds = output.reports[0], time.perf_counter() - start
                turned = pipeline.look(pipeline.exact(output.latents[0], None))[1]
                numbers = {
                    "input_distance": float((vector - person).norm()),
                    "residual_yaw": abs(report.pose_after[0]),
                    "likeness_distance": report.likeness_distance,
                    "to_input": report.identity_distance,
                    "to_front": float((turned - person).norm()),
                    "seconds": seconds,
                }
                found[method, angle].append(numbers)
                row.append(output.images[0])
                said = ", ".join(f"{name} {value:.2f}" for name, value in numbers.items())
                say(f"person {number}, {angle:.0f}°, {method}: {said}")
        rows.append(row)
    if sheet:
        sheets.write(sheet, rows, height=192)
    return {
        method: [
            {"angle": angle, "refused": refused[method, angle], **summary(found[method, angle])} for angle in ANGLES
        ]
        for method in settings
    }


def summary(sides: list[dict[str, float]]) -> dict[str, Any]:
    """Means and worst cases of one angle."""
    if not sides:
        return {"sides": 0}
    columns = {name: np.array([side[name] for side in sides]) for name in sides[0]}
    to_front = columns["to_front"]
    return {
        "sides": len(sides),
        "input_distance": spread(columns["input_distance"]),
        "residual_yaw": spread(columns["residual_yaw"]),
        "likeness_distance": spread(columns["likeness_distance"]),
        "to_input": spread(columns["to_input"]),
        "to_front": {**spread(to_front), "same": round(float((to_front < SAME_PERSON).mean()), 4)},
        "seconds": round(float(np.median(columns["seconds"])), 2),
    }


def spread(values: np.ndarray) -> dict[str, float]:
    """Mean and worst (largest)."""
    return {"mean": round(float(values.mean()), 4), "worst": round(float(values.max()), 4)}


@torch.no_grad()
def sample(pipeline: FrontalizePipeline, seed: int) -> Tensor:
    """W+ latents (1,16,512) of a generated person."""
    prior = pipeline.generator
    z = torch.randn(1, prior.config.style_dim, generator=torch.Generator().manual_seed(seed))
    return prior.slots(prior.latents(z.to(prior.dtype), TRUNCATION)).clone()


@torch.no_grad()
def at_yaw(pipeline: FrontalizePipeline, w: Tensor, yaw: float) -> Tensor:
    """Latents moved along the direction of yaw alone until their (quickly drawn) picture measures it."""
    draw = pipeline.quick_draw(None)
    return move_to(pipeline.space, w, {"yaw": yaw}, lambda moved: pipeline.look(draw(moved))[0])[0]


@torch.no_grad()
def held(pipeline: FrontalizePipeline, front: Tensor, person: Tensor, yaw: float, pitch: float) -> Tensor:
    """The person of `front` from the side: moved along the direction, then back to the person at that pose."""
    moved = identity_steps(
        pipeline.quick_draw(None),
        at_yaw(pipeline, front, yaw),
        person,
        pipeline.space,
        pipeline.finder(),
        pipeline.encoder(),
        steps=HOLD_STEPS,
        pose=torch.tensor([[yaw, pitch]]),
    )
    return at_yaw(pipeline, moved.w, yaw)


@torch.no_grad()
def picture_of(pipeline: FrontalizePipeline, w: Tensor) -> Tensor:
    """The generator's picture (3,S,S) in [0,1], at most 512 px, as a photo to give to the pipeline."""
    drawn = (pipeline.generator(w)[0] / 2 + 0.5).clamp(0, 1)
    side = min(512, drawn.shape[-1])
    return images.resize(drawn, side, side)


# ---- real photographs


def turn_pairs(
    pipeline: FrontalizePipeline,
    folder: Path,
    limit: int,
    min_yaw: float,
    settings: dict[str, dict[str, Any]],
    say: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    """Verification of real pairs before and after their turned sides are frontalized.

    Returns:
        By method: `photos` turned and `refused` (with the reasons), `pairs` that they belong to, `residual_yaw`,
        `to_input` (identity distance of the turned to the photo), and `before`, `after` (`separation` without its
        curve), None where the pairs are all of one kind. In the pairs of a refused photo, it stays as it is.

    Raises:
        InputError: no `pairs.csv` there.
    """
    pairs = read_pairs(folder / "pairs.csv")
    names = sorted({name for a, b, _ in pairs for name in (a, b)})
    vectors, yaws = {}, {}
    for done, name in enumerate(names):
        photo = images.load(folder / name)
        faces = pipeline.finder()(photo.pixels)
        if len(faces):
            vectors[name] = pipeline.encoder().embed(photo.pixels, faces.mesh[:1])[0].cpu()
            yaws[name] = abs(float(faces.pose[0, 0]))
        if done % 50 == 49:
            say(f"{done + 1} of {len(names)} photographs measured")
    turned = sorted((name for name in yaws if yaws[name] >= min_yaw), key=lambda name: -yaws[name])
    turned = turned[:limit] if limit else turned
    concerned = [(a, b, same) for a, b, same in pairs if a in vectors and b in vectors and (a in turned or b in turned)]
    return {
        method: {"min_yaw": min_yaw}
        | turn_sides(pipeline, folder, turned, {name: yaws[name] for name in turned}, concerned, vectors, asked, say)
        for method, asked in settings.items()
    }


def turn_sides(
    pipeline: FrontalizePipeline,
    folder: Path,
    turned: list[str],
    yaws: dict[str, float],
    concerned: list[tuple[str, str, bool]],
    vectors: dict[str, Tensor],
    settings: dict[str, Any],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """`turn_pairs` of one method, for the photographs `turned` and the pairs `concerned`."""
    after, residual, to_input, refused = dict(vectors), [], [], {}
    for name in turned:
        try:
            output = pipeline(folder / name, face=0, output_type="pt", background="generated", **settings)
        except StudioError as error:
            refused[name] = str(error)
            say(f"{name}: {error}")
            continue
        after[name] = pipeline.look(pipeline.exact(output.latents[0], None))[1]
        report = output.reports[0]
        residual.append(abs(report.pose_after[0]))
        to_input.append(report.identity_distance)
        say(f"{name}: yaw {yaws[name]:.0f}° to {residual[-1]:.1f}°, identity distance {to_input[-1]:.2f}")
    same = np.array([same for *_, same in concerned], dtype=bool)
    return {
        "photos": len(turned) - len(refused),
        "refused": refused,
        "pairs": len(concerned),
        "residual_yaw": spread(np.array(residual)) if residual else None,
        "to_input": spread(np.array(to_input)) if to_input else None,
        **{name: separated(concerned, same, known) for name, known in (("before", vectors), ("after", after))},
    }


def separated(
    pairs: list[tuple[str, str, bool]], same: np.ndarray, vectors: dict[str, Tensor]
) -> dict[str, Any] | None:
    """`separation` of the pairs' distances, without its curve; None where they are all of one kind."""
    if same.all() or not same.any():
        return None
    scores = separation(np.array([float((vectors[a] - vectors[b]).norm()) for a, b, _ in pairs]), same)
    scores.pop("curve")
    return scores


def turn_profiles(
    pipeline: FrontalizePipeline,
    folder: Path,
    count: int,
    settings: dict[str, dict[str, Any]],
    sheet: Path | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Real half-profiles turned to the front.

    Returns:
        By method: `photos` turned of `asked`, `refused` (file to reason), `yaw_before` and `residual_yaw` (|yaw|),
        `to_input` (identity distance of the result to the photo), `likeness_distance`, `same` (share of results below
        0.6), and `seconds` (median).

    Raises:
        InputError: no `manifest.csv` there, or no half-profile in it.
    """
    chosen = half_profiles(folder, count)
    refused: dict[str, dict[str, str]] = {method: {} for method in settings}
    columns: dict[str, list[dict[str, float]]] = {method: [] for method in settings}
    rows = []
    for path in chosen:
        row = []
        for method, asked in settings.items():
            start = time.perf_counter()
            try:
                output = pipeline(path, face=0, output_type="pt", background="generated", **asked)
            except StudioError as error:
                refused[method][path.name] = str(error)
                say(f"{path.name}, {method}: {error}")
                continue
            report = output.reports[0]
            columns[method].append(
                {
                    "yaw_before": abs(report.pose_before[0]),
                    "residual_yaw": abs(report.pose_after[0]),
                    "likeness_distance": report.likeness_distance,
                    "to_input": report.identity_distance,
                    "seconds": time.perf_counter() - start,
                }
            )
            row += [output.images[0]] if row else [output.crops[0], output.images[0]]
            values = ", ".join(f"{name} {value:.2f}" for name, value in columns[method][-1].items())
            say(f"{path.name}, {method}: {values}")
        rows += [row] if row else []
    if sheet and rows:
        wide = max(1, 6 // (1 + len(settings)))
        lines = [rows[i : i + wide] for i in range(0, len(rows), wide)]
        sheets.write(sheet, [[picture for row in line for picture in row] for line in lines], height=192)
    return {
        method: {"asked": len(chosen), "refused": refused[method]} | profile_summary(columns[method])
        for method in settings
    }


def profile_summary(columns: list[dict[str, float]]) -> dict[str, Any]:
    """Means and worst cases of one method."""
    values = {name: np.array([column[name] for column in columns]) for name in columns[0]} if columns else {}
    seconds = values.pop("seconds", None)
    return {
        "photos": len(columns),
        **{name: spread(column) for name, column in values.items()},
        "same": round(float((values["to_input"] < SAME_PERSON).mean()), 4) if columns else None,
        "seconds": None if seconds is None else round(float(np.median(seconds)), 2),
    }


def half_profiles(folder: Path, count: int) -> list[Path]:
    """At most `count` files of `folder/aligned_old` that the manifest says are turned by `PROFILES`, evenly spread."""
    file = folder / "manifest.csv"
    if not file.is_file():
        raise InputError(f"{file} must say how far faces are turned, and it is not there: name another folder")
    with file.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["set"] == "aligned_old" and row["yaw_deg"]]
    least, most = PROFILES
    names = sorted(row["file"] for row in rows if least <= abs(float(row["yaw_deg"])) <= most)
    if not names:
        raise InputError(f"{file} must name half-profiles (set aligned_old, yaw_deg), it names none: leave them out")
    return [folder / "aligned_old" / name for name in evenly(names, count)]
