"""How well faces are grouped by person, on two photographs each of many real people.

`pairs.csv` in the photographs' folder (see `studio.benchmarks.identity`) names the photographs and which two show one
person. All of them go into one album; the largest face of each counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from studio import images
from studio.benchmarks.identity import WEIGHTS, read_pairs
from studio.benchmarks.provenance import provenance
from studio.errors import InputError
from studio.identity.album import THRESHOLD, AlbumMaker
from studio.identity.grouping import group

SWEEP = tuple(round(0.3 + 0.025 * k, 3) for k in range(17))  # thresholds
SHRUNK = (20, 16, 12, 9)  # px between the eyes
EVERY = 8  # photograph is shrunk


def run(photos_dir: str | Path, progress: Callable[[int, int], None] = lambda done, count: None) -> dict[str, Any]:
    """Group the photographs of `pairs.csv` and compare with who is who.

    Args:
        photos_dir: folder with `pairs.csv` and the photographs it names.
        progress: called with (photographs done, photographs in all).

    Returns:
        `people` and `photos` that count, `set_aside` (reason -> count), `missing` (photographs without a face),
        `threshold` with its `scores`; `chosen` (the threshold with the best B-cubed F on every other person) with its
        scores on the people it was chosen on (`seen`) and on the others (`unseen`); `sweep`, the scores of all
        people at each threshold; `blurred` of `blurred_faces`; and `provenance`.

    Raises:
        InputError: no `pairs.csv` there, or fewer than two people in it.
    """
    folder = Path(photos_dir)
    names, people = who_is_who(read_pairs(folder / "pairs.csv"))
    maker = AlbumMaker.from_pretrained()
    album = maker([folder / name for name in names], on_photo=progress)
    largest = [face for face in album.faces if face.index == 0]
    kept = [face for face in largest if not face.reason]
    vectors, who = torch.stack([face.vector for face in kept]), np.array([people[face.photo] for face in kept])
    aside = [face.reason.split(":")[0] for face in largest if face.reason]
    chosen, seen, unseen = halves(vectors, who)
    return {
        "benchmark": "album",
        "people": len(set(who.tolist())),
        "photos": len(kept),
        "set_aside": {reason: aside.count(reason) for reason in sorted(set(aside))},
        "missing": [names[i] for i in album.without_face],
        "threshold": THRESHOLD,
        "scores": scores(vectors, who, THRESHOLD),
        "chosen": {"threshold": chosen, "seen": seen, "unseen": unseen},
        "sweep": [scores(vectors, who, threshold) for threshold in SWEEP],
        "blurred": blurred_faces(maker, [folder / name for name in names[::EVERY]]),
        "provenance": provenance(WEIGHTS),
    }


def blurred_faces(maker: AlbumMaker, photos: Sequence[Path]) -> list[dict[str, float]]:
    """Photographs shrunk and enlarged again: how many faces that only look large are set aside?

    Returns:
        For each of `SHRUNK`: `eyes` (px between the eyes of the shrunk face), `faces` (found in the enlarged
        photographs), and `set_aside`, the share of them that are too blurred. Photographs whose face is no larger
        than twice the largest of `SHRUNK` are left out.
    """
    found: dict[int, list[bool]] = {eyes: [] for eyes in SHRUNK}
    for path in photos:
        photo = images.load(path)
        faces = maker.look(photo)
        if not faces or faces[0].eye_distance < 2 * max(SHRUNK):
            continue
        for eyes, reasons in found.items():
            share = eyes / faces[0].eye_distance
            small = images.resize(photo.pixels, round(photo.height * share), round(photo.width * share))
            soft = maker.look(photo.with_pixels(images.resize(small, photo.height, photo.width)))
            reasons += [soft[0].reason.startswith("too blurred")] if soft else []
    return [
        {"eyes": eyes, "faces": len(reasons), "set_aside": float(np.mean(reasons))}
        for eyes, reasons in found.items()
        if reasons
    ]


def who_is_who(pairs: Sequence[tuple[str, str, bool]]) -> tuple[list[str], list[int]]:
    """Photographs, and a number for the person in each: those that a genuine pair joins show one person.

    Raises:
        InputError: fewer than two people.
    """
    person: dict[str, int] = {}
    for a, b, same in pairs:
        if same:
            one = person.setdefault(a, len(person))
            other = person.setdefault(b, one)
            person = {name: one if who == other else who for name, who in person.items()}
    if len(set(person.values())) < 2:
        raise InputError(f"there must be pairs of at least two people, got {len(person)} photos of one: add some")
    names = sorted(person)
    return names, [person[name] for name in names]


def halves(vectors: torch.Tensor, who: np.ndarray) -> tuple[float, dict[str, float], dict[str, float]]:
    """The threshold that is best for every other person, and its scores on those and on the other people."""
    first: Any = np.isin(who, np.unique(who)[::2])
    found = [scores(vectors[first], who[first], threshold) for threshold in SWEEP]
    best = max(found, key=lambda row: row["b_cubed_f"])
    return best["threshold"], best, scores(vectors[~first], who[~first], best["threshold"])


def scores(vectors: torch.Tensor, who: np.ndarray, threshold: float) -> dict[str, float]:
    """Group vectors, each of a photograph of its own, and compare with who they are.

    Args:
        vectors: (N,D).
        who: (N,) int, the person of each.
        threshold: of the grouping.

    Returns:
        As `agreement`, with `threshold` and the number of `groups`.
    """
    groups = group(vectors, range(len(vectors)), threshold)
    label = np.empty(len(vectors), int)
    for number, members in enumerate(groups):
        label[members] = number
    return {"threshold": threshold, "groups": len(groups), **agreement(label, who)}


def agreement(label: np.ndarray, who: np.ndarray) -> dict[str, float]:
    """How well groups agree with people.

    Args:
        label: (N,) int, the group of each face.
        who: (N,) int, the person of each.

    Returns:
        `precision`: share of the pairs in one group that are one person, 1 without such pairs; `recall`: share of the
        pairs of one person that are in one group, 1 without such pairs; the B-cubed precision, recall and F of Bagga
        and Baldwin (1998), which are means over faces, so that a large group does not count more than its members.
    """
    together, same = label[:, None] == label, who[:, None] == who
    both = together & same
    pairs, found, wanted = (int(matrix.sum()) - len(who) for matrix in (both, together, same))  # without the diagonal
    precision, recall = (both.sum(1) / matrix.sum(1) for matrix in (together, same))
    p, r = float(precision.mean()), float(recall.mean())
    return {
        "precision": pairs / found if found else 1.0,
        "recall": pairs / wanted if wanted else 1.0,
        "b_cubed_precision": p,
        "b_cubed_recall": r,
        "b_cubed_f": 2 * p * r / (p + r),
    }
