"""How well the identity encoder separates people, on pairs of real photographs.

`pairs.csv` in the photographs' folder has the columns a, b (paths from that folder), same (0 or 1) and kind. The
numbers say what `studio.identity.similarity.SAME_PERSON` is worth: how many genuine pairs lie below it, and how many
impostors.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from studio import images
from studio.benchmarks.provenance import provenance
from studio.errors import InputError
from studio.find import FaceFinder
from studio.identity.encoder import IdentityEncoder
from studio.identity.similarity import SAME_PERSON

WEIGHTS = ("identity", "detector_full_range", "detector_back", "mesh")


def run(photos_dir: str | Path, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Measure the encoder on `pairs.csv`.

    Args:
        photos_dir: folder with `pairs.csv` and the photographs it names.
        progress: called with (photographs done, photographs in all).

    Returns:
        `scores` of `separation`, `missing` (photographs in which no face was found), `pairs_left_out` and
        `provenance`.

    Raises:
        InputError: no `pairs.csv` there, or fewer than one usable pair of each kind.
    """
    folder = Path(photos_dir)
    pairs = read_pairs(folder / "pairs.csv")
    names = sorted({name for a, b, _ in pairs for name in (a, b)})
    finder, encoder = FaceFinder.from_pretrained(), IdentityEncoder.from_pretrained()
    vectors = {}
    for done, name in enumerate(names):
        vectors[name] = embed_largest(folder / name, finder, encoder)
        if progress:
            progress(done + 1, len(names))
    usable = [(a, b, same) for a, b, same in pairs if vectors[a] is not None and vectors[b] is not None]
    distances = np.array([np.linalg.norm(vectors[a] - vectors[b]) for a, b, _ in usable])
    return {
        "benchmark": "identity",
        "scores": separation(distances, np.array([same for *_, same in usable], dtype=bool)),
        "missing": [name for name in names if vectors[name] is None],
        "pairs_left_out": len(pairs) - len(usable),
        "provenance": provenance(WEIGHTS),
    }


def read_pairs(file: Path) -> list[tuple[str, str, bool]]:
    """Rows of `pairs.csv` as (a, b, same person)."""
    if not file.is_file():
        raise InputError(f"{file} must list the pairs (columns a, b, same), and it is not there: name another folder")
    with file.open(newline="", encoding="utf-8") as stream:
        return [(row["a"], row["b"], row["same"] == "1") for row in csv.DictReader(stream)]


def embed_largest(file: Path, finder: FaceFinder, encoder: IdentityEncoder) -> np.ndarray | None:
    """Identity vector (128,) of the largest face in a photograph, None when there is no face."""
    pixels = images.load(file).pixels
    faces = finder(pixels)
    if not len(faces):
        return None
    with torch.inference_mode():
        return encoder.embed(pixels, faces.mesh[:1])[0].cpu().numpy()


def separation(distances: np.ndarray, same: np.ndarray) -> dict[str, Any]:
    """How well a distance tells genuine from impostor pairs.

    Args:
        distances: (N,) float.
        same: (N,) bool, at least one of each.

    Returns:
        `auc` (chance that a genuine pair is nearer than an impostor pair), `best_accuracy` with its `best_threshold`
        (chosen on the same pairs, so a little flattering), and for `genuine` and `impostor` their count, mean, std
        and `below_0_6`, the share below the usual threshold.

    Raises:
        InputError: pairs of one kind only.
    """
    if same.all() or not same.any():
        raise InputError(f"there must be genuine and impostor pairs, got {same.sum()} of {len(same)} genuine: add some")
    genuine, impostor = distances[same], distances[~same]
    nearer = (genuine[:, None] < impostor).mean() + (genuine[:, None] == impostor).mean() / 2
    thresholds = np.unique(distances)
    accuracies = [((distances <= threshold) == same).mean() for threshold in thresholds]
    return {
        "auc": float(nearer),
        "best_accuracy": float(max(accuracies)),
        "best_threshold": float(thresholds[np.argmax(accuracies)]),
        "genuine": summary(genuine),
        "impostor": summary(impostor),
    }


def summary(distances: np.ndarray) -> dict[str, float]:
    """Count, mean, spread and the share below `SAME_PERSON`."""
    return {
        "count": len(distances),
        "mean": float(distances.mean()),
        "std": float(distances.std()),
        "below_0_6": float((distances < SAME_PERSON).mean()),
    }
