"""How much a second photograph of the person helps: one of a genuine pair is damaged, the other guides.

The identity encoder that measures also leads. What keeps it honest is the other photograph: the steps follow the
reference, and what is reported is the distance to the *original*, which they never see. What a wrong reference does is
measured as well, with the next person's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.restore import CROP, RestorePipeline
from studio import images, sheets
from studio.benchmarks.identity import read_pairs
from studio.benchmarks.provenance import provenance
from studio.benchmarks.restore import (
    SHEET_ROWS,
    WEIGHTS,
    damage,
    find_in_crop,
    measure,
    place_irises,
    place_meshes,
    unmoved,
)
from studio.errors import InputError
from studio.faces import align
from studio.faces.faces import Faces
from studio.photosets import evenly
from studio.tone import tone_curve

SMALLEST = 256.0  # px, side of the aligned crop of an original
NOTE = "the identity encoder leads the steps and measures; the original that it measures to is another photo"


@torch.no_grad()
def run(
    photos: Path,
    recipes: Sequence[str],
    seed: int,
    limit: int,
    fidelity: float,
    steps: int,
    threads: int,
    model: str,
    sheet: Path | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Restore damaged originals alone, with the reference, and with somebody else's.

    Args:
        photos: folder with `pairs.csv`.
        recipes: of the damage.
        seed: of the damage.
        limit: at most so many pairs, spread evenly over them; 0 takes all.
        fidelity: see `RestorePipeline.__call__`.
        steps: towards the reference, see `reference_steps` there.
        threads: CPU threads; 0 leaves the default.
        model: see `RestorePipeline.from_pretrained`.
        sheet: where reference, damaged, alone, guided and original go, the first rows of each recipe, or None.
        say: receives progress lines.

    Returns:
        `pairs`, `original_to_reference` (mean identity distance of the two photographs), and by recipe the means of
        `studio.benchmarks.restore` for `input`, `alone`, `guided` and `stranger` (guided by the next pair's reference),
        each with `to_reference`, of the photograph that belongs to it.

    Raises:
        InputError: fewer than two pairs of which one side is large enough.
    """
    if threads:
        torch.set_num_threads(threads)
    pipeline = RestorePipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    clean, faces, people, shown = genuine_pairs(pipeline, photos, limit)
    say(f"{len(clean)} pairs")
    report: dict[str, Any] = {}
    rows: list[list[Tensor]] = []
    placed = place_meshes(pipeline, clean, faces)
    known = (clean, faces, placed, pipeline.read(clean).hair, place_irises(clean, placed))
    for recipe in recipes:
        damaged = damage(clean, recipe, seed)
        made: dict[str, list[Tensor]] = {"alone": [], "guided": [], "stranger": []}
        for i, crop in enumerate(damaged):
            tone = tone_curve(crop)
            made["alone"].append(pipeline.restore_crops(crop[None], fidelity, tone))
            for name, person in (("guided", people[i]), ("stranger", people[i - 1])):
                given = (crop[None], unmoved(1), faces[[i]], person, fidelity, tone, False, steps)
                made[name].append(pipeline.guide(*given).picture)
        versions = {"input": damaged} | {name: torch.cat(crops) for name, crops in made.items()}
        report[recipe] = {
            name: measure(pipeline, *known, damaged, crops)[0]
            | {"to_reference": to_people(pipeline, crops, faces, people.roll(1, 0) if name == "stranger" else people)}
            for name, crops in versions.items()
        }
        found = report[recipe]
        say(f"{recipe}: identity " + ", ".join(f"{name} {found[name]['identity_distance']:.3f}" for name in found))
        cells = (shown, damaged, versions["alone"], versions["guided"], clean)
        rows += [list(row) for row in zip(*(x[:SHEET_ROWS] for x in cells), strict=True)]
    if sheet:
        sheets.write(sheet, rows)
    return {
        "benchmark": "reference",
        "pairs": len(clean),
        "seed": seed,
        "fidelity": fidelity,
        "steps": steps,
        "original_to_reference": to_people(pipeline, clean, faces, people),
        "recipes": report,
        "note": NOTE,
        "provenance": provenance(WEIGHTS),
    }


def genuine_pairs(pipeline: RestorePipeline, photos: Path, limit: int) -> tuple[Tensor, Faces, Tensor, Tensor]:
    """Originals and who is on the other photograph of each.

    Returns:
        The aligned originals (N,3,512,512), their faces in pixels of those, the identity vectors (N,128) of the other
        photographs, and their aligned faces (N,3,512,512).
    """
    pairs = [(a, b) for a, b, same in read_pairs(photos / "pairs.csv") if same]
    crops, faces, people, shown = [], [], [], []
    for names in evenly(pairs, limit or len(pairs)):
        sides = [side for name in names if (side := largest_face(pipeline, photos / name)) is not None]
        if len(sides) < 2 or max(side[1] for side in sides) < SMALLEST:
            continue
        (crop, _, _), (other, _, person) = sorted(sides, key=lambda side: -side[1])
        face = find_in_crop(pipeline, crop[0])
        if face is None:
            continue
        crops.append(crop)
        faces.append(face)
        people.append(person)
        shown.append(other)
    if len(crops) < 2:
        raise InputError(f"two pairs with a face of {SMALLEST:.0f} px must be there, got {len(crops)}: raise --limit")
    return torch.cat(crops), Faces.cat(faces), torch.stack(people), torch.cat(shown)


def largest_face(pipeline: RestorePipeline, path: Path) -> tuple[Tensor, float, Tensor] | None:
    """The aligned largest face of a photo (1,3,512,512), the side of its crop in the photo, its identity vector."""
    photo = images.load(path)
    found = pipeline.find(photo)
    if not len(found):
        return None
    crop, to_photo = pipeline.crop(photo, found.largest)
    return crop, float(align.scale_of(to_photo)[0]) * CROP, pipeline.embed(crop, to_photo, found.largest)[0]


def to_people(pipeline: RestorePipeline, crops: Tensor, faces: Faces, people: Tensor) -> float:
    """Mean identity distance of crops (N,3,512,512) to vectors (N,128)."""
    return round(float((pipeline.embed(crops, unmoved(len(crops)), faces) - people).norm(dim=1).mean()), 4)
