"""How well the identity encoder separates people, on pairs of real photographs.

`pairs.csv` in the photographs' folder has the columns a, b (paths from that folder), same (0 or 1) and kind. The
numbers say what `studio.identity.similarity.SAME_PERSON` is worth: how many genuine pairs lie below it, and how many
impostors.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from studio import images
from studio.benchmarks.provenance import FINDER, provenance
from studio.errors import InputError
from studio.find import FaceFinder
from studio.identity.compare import probability
from studio.identity.encoder import IdentityEncoder
from studio.identity.similarity import SAME_PERSON

CURVE = np.linspace(0.2, 1.1, 37)
SIZES = (0, 5, 10, 15, 20, 40, 10_000)  # px between the eyes
SHRUNK = (16, 12, 9, 7, 5)  # px between the eyes
EVERY = 4  # pair is shrunk
FOLDS = 10
RIDGE = 0.01  # on the slope: the two kinds hardly overlap, and the likelihood alone would want a step
BINS = (0.0, 0.05, 0.5, 0.95, 1.0)  # of probabilities, for the reliability table
WEIGHTS = ("identity", *FINDER)


def run(photos_dir: str | Path, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Measure the encoder on `pairs.csv`.

    Args:
        photos_dir: folder with `pairs.csv` and the photographs it names.
        progress: called with (photographs done, photographs in all).

    Returns:
        `scores` of `separation`, `calibration` of `calibration`, `by_eye_distance` of `by_size`, `shrunk` of
        `shrunk_pairs`, `missing` (photographs in which no face was found), `pairs_left_out` and `provenance`.

    Raises:
        InputError: no `pairs.csv` there, or fewer than one usable pair of each kind.
    """
    folder = Path(photos_dir)
    pairs = read_pairs(folder / "pairs.csv")
    names = sorted({name for a, b, _ in pairs for name in (a, b)})
    finder, encoder = FaceFinder.from_pretrained(), IdentityEncoder.from_pretrained()
    vectors, eyes = {}, {}
    for done, name in enumerate(names):
        vectors[name], eyes[name] = embed_largest(folder / name, finder, encoder)
        if progress:
            progress(done + 1, len(names))
    usable = [(a, b, same) for a, b, same in pairs if vectors[a] is not None and vectors[b] is not None]
    distances = np.array([np.linalg.norm(vectors[a] - vectors[b]) for a, b, _ in usable])
    genuine = np.array([same for *_, same in usable], dtype=bool)
    return {
        "benchmark": "identity",
        "scores": separation(distances, genuine),
        "calibration": calibration(distances, genuine, [(person(a), person(b)) for a, b, _ in usable]),
        "by_eye_distance": by_size(distances, genuine, np.array([min(eyes[a], eyes[b]) for a, b, _ in usable])),
        "shrunk": shrunk_pairs(folder, usable[::EVERY], vectors, finder, encoder),
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


def shrunk_pairs(
    folder: Path,
    pairs: list[tuple[str, str, bool]],
    vectors: dict[str, np.ndarray],
    finder: FaceFinder,
    encoder: IdentityEncoder,
) -> list[dict[str, Any]]:
    """The same on some of the pairs, with one side of each made small: where do distances stop to mean anything?

    Returns:
        For each of `SHRUNK`, largest first: `eyes` (px between the eyes of the shrunk face), `found` (share of the
        shrunk photographs in which the face is found) and `scores` of `separation` on those, without their curve.
    """
    done = []
    for eyes in SHRUNK:
        found = []
        for a, b, same in pairs:
            pixels = images.load(folder / a).pixels
            before = embed_largest(pixels, finder, encoder)[1]
            share = min(1.0, eyes / before)
            small = images.resize(pixels, *(max(4, round(side * share)) for side in pixels.shape[1:]))
            vector = embed_largest(small, finder, encoder)[0]
            if vector is not None:
                found.append((np.linalg.norm(vector - vectors[b]), same))
        row: dict[str, Any] = {"eyes": eyes, "found": len(found) / len(pairs)}
        kinds = {same for _, same in found}
        if len(kinds) == 2:
            row["scores"] = separation(np.array([one for one, _ in found]), np.array([same for _, same in found]))
            row["scores"].pop("curve")
        done.append(row)
    return done


def embed_largest(
    photo: Path | torch.Tensor, finder: FaceFinder, encoder: IdentityEncoder
) -> tuple[np.ndarray | None, float]:
    """Identity vector (128,) of the largest face in a photograph, None when there is none; and px between its eyes."""
    pixels = photo if isinstance(photo, torch.Tensor) else images.load(photo).pixels
    faces = finder(pixels)
    if not len(faces):
        return None, 0.0
    with torch.inference_mode():
        return encoder.embed(pixels, faces.mesh[:1])[0].cpu().numpy(), float(faces.eye_distances[0])


def separation(distances: np.ndarray, same: np.ndarray) -> dict[str, Any]:
    """How well a distance tells genuine from impostor pairs.

    Args:
        distances: (N,) float.
        same: (N,) bool, at least one of each.

    Returns:
        `auc` (chance that a genuine pair is nearer than an impostor pair), `best_accuracy` with its `best_threshold`
        (chosen on the same pairs, so a little flattering), for `genuine` and `impostor` their count, mean, std and
        `below_0_6`, the share below the usual threshold, and `curve`: rows of a distance, the share of genuine pairs
        and the share of impostor pairs at most that far apart.

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
        "curve": [
            [round(float(at), 3), *(round(float((kind <= at).mean()), 4) for kind in (genuine, impostor))]
            for at in CURVE
        ],
    }


def person(name: str) -> str:
    """Who is on a photograph of `pairs.csv`: its name up to the first underscore."""
    return Path(name).stem.split("_")[0]


def calibration(distances: np.ndarray, same: np.ndarray, people: list[tuple[str, str]]) -> dict[str, Any]:
    """A probability of being the same person for a distance (Platt scaling), checked on people it was not fitted on.

    Args:
        distances: (N,) float.
        same: (N,) bool, at least one of each.
        people: the two people of each pair; the fold of a pair is that of its first, and no pair that holds a person
            of a fold is used to fit for it.

    Returns:
        `intercept` and `slope` of the probability 1 / (1 + exp(-(intercept + slope · distance))), for even odds before
        anything is seen; of the `folds` predicted by cross validation: `log_loss`, `brier`, `accuracy` (at 0.5, with
        the odds of the pairs), and `reliability`: rows of a range of probabilities, how many pairs got one in it,
        their mean probability and the share that is the same person.
    """
    names = sorted({first for first, _ in people})
    fold_of = {name: i % FOLDS for i, name in enumerate(np.random.RandomState(0).permutation(names))}
    folds = np.array([fold_of[first] for first, _ in people])
    predicted = np.empty(len(distances))
    for fold in range(FOLDS):
        test = folds == fold
        held = {name for pair, out in zip(people, test, strict=True) if out for name in pair}
        train = np.array([not held & set(pair) for pair in people])
        predicted[test] = probability(distances[test], *fit_logistic(distances[train], same[train]))
    intercept, slope = fit_logistic(distances, same)
    clipped = np.clip(predicted, 1e-6, 1 - 1e-6)
    return {
        "intercept": float(intercept - np.log(same.sum() / (~same).sum())),
        "slope": float(slope),
        "folds": FOLDS,
        "log_loss": float(-np.where(same, np.log(clipped), np.log(1 - clipped)).mean()),
        "brier": float(np.square(predicted - same).mean()),
        "accuracy": float(((predicted >= 0.5) == same).mean()),
        "reliability": [
            {
                "from": low,
                "to": high,
                "count": int(inside.sum()),
                "probability": float(predicted[inside].mean()),
                "same": float(same[inside].mean()),
            }
            for low, high in itertools.pairwise(BINS)
            if (inside := (predicted >= low) & ((predicted < high) | (high == 1))).any()
        ],
    }


def fit_logistic(distances: np.ndarray, same: np.ndarray) -> tuple[float, float]:
    """Intercept and slope of logistic regression, by Newton's method, with `RIDGE` on the slope."""
    x = np.stack([np.ones_like(distances), distances], 1)
    beta = np.zeros(2)
    penalty = np.array([0.0, RIDGE])
    for _ in range(50):
        p: Any = probability(distances, *beta)
        gradient = x.T @ (same - p) - penalty * beta
        hessian = (x * (p * (1 - p))[:, None]).T @ x + np.diag(penalty) + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        beta = beta + step * min(1.0, 5.0 / np.abs(step).max())
        if np.abs(step).max() < 1e-8:
            break
    return float(beta[0]), float(beta[1])


def by_size(distances: np.ndarray, same: np.ndarray, eyes: np.ndarray) -> list[dict[str, Any]]:
    """The same, apart for pairs whose smaller face has few or many pixels between its eyes.

    Args:
        distances: (N,) float.
        same: (N,) bool.
        eyes: (N,) px between the eyes of the smaller face.

    Returns:
        For each range of `SIZES` that holds pairs of both kinds: `from`, `to`, and `scores` of `separation` without
        their curve.
    """
    found = []
    for low, high in itertools.pairwise(SIZES):
        inside = (eyes >= low) & (eyes < high)
        if same[inside].any() and (~same[inside]).any():
            scores = separation(distances[inside], same[inside])
            scores.pop("curve")
            found.append({"from": low, "to": high, "scores": scores})
    return found


def summary(distances: np.ndarray) -> dict[str, float]:
    """Count, mean, spread and the share below `SAME_PERSON`."""
    return {
        "count": len(distances),
        "mean": float(distances.mean()),
        "std": float(distances.std()),
        "below_0_6": float((distances < SAME_PERSON).mean()),
    }
