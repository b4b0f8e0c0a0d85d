"""Two photographs: is it the same person? A distance, and what such a distance was worth on pairs of real people."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studio import images, weights
from studio.errors import InputError, NoFaceError
from studio.faces import align
from studio.faces.select import LEAST
from studio.find import FaceFinder
from studio.identity.encoder import IdentityEncoder
from studio.identity.similarity import distance
from studio.images import Photo

FIGURES = weights.COMMITTED / "figures" / "identity.json"  # what `studio bench identity --out` wrote
# px. With one side shrunk to 12 the measured separation stays (AUC 0.995, from 0.998); at 9 (0.982) and 7 (0.966)
# faces of one person drift apart as two people would.
SMALLEST_EYE_DISTANCE = LEAST["recognise"].eyes
RARE = 0.02  # share of pairs that a clear verdict may be wrong about
CROP = 256  # px, of the pictures to look at

SAME, DIFFERENT, UNSURE, TOO_POOR = "same", "different", "unsure", "too poor"


@dataclass(frozen=True)
class Comparison:
    """Two faces compared.

    Attributes:
        verdict: "same", "different", "unsure" or "too poor".
        sentence: the verdict in words, with its error rates.
        distance: of the identity vectors, 0 to about 1.4.
        probability: that it is the same person, if that was as likely as not before looking; calibrated on pairs of
            real photographs, see `same_probability`. None where the faces are too poor to tell.
        genuine_farther: share of the pairs of one person that were farther apart than this.
        impostor_nearer: share of the pairs of two people that were as near as this, or nearer.
        eye_distances: px between the eyes, in the one photo and in the other.
        crops: the two faces, aligned, (2,3,256,256) RGB in [0,1].
        face_counts: faces found in each photo; the largest one counts.
    """

    verdict: str
    sentence: str
    distance: float
    probability: float | None
    genuine_farther: float
    impostor_nearer: float
    eye_distances: tuple[float, float]
    crops: Tensor
    face_counts: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, JSON-able."""
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "distance": round(self.distance, 4),
            "probability": None if self.probability is None else round(self.probability, 4),
            "genuine_farther": round(self.genuine_farther, 4),
            "impostor_nearer": round(self.impostor_nearer, 4),
            "eye_distances": [round(value, 1) for value in self.eye_distances],
            "face_counts": list(self.face_counts),
        }


class Comparer:
    """Finds the largest face of each photo and compares the two.

    Args:
        finder: of faces.
        encoder: of identities.
    """

    def __init__(self, finder: FaceFinder, encoder: IdentityEncoder) -> None:
        self.finder = finder
        self.encoder = encoder

    @classmethod
    def from_pretrained(cls) -> Comparer:
        """With the weights of the store, on the CPU.

        Raises:
            MissingWeightsError: not here and could not be fetched.
        """
        return cls(FaceFinder.from_pretrained(), IdentityEncoder.from_pretrained())

    @torch.inference_mode()
    def __call__(self, first: images.Source | Photo, second: images.Source | Photo) -> Comparison:
        """Compare the largest faces of two photos, given as anything that `studio.images.load` takes.

        Raises:
            ImageError: a photo that cannot be used.
            NoFaceError: a photo without a face.
        """
        vectors, crops, eyes, counts = [], [], [], []
        for source in (first, second):
            photo = images.load(source)
            faces = self.finder(photo.pixels)
            if not len(faces):
                raise NoFaceError(f"both photos must show a face, {photo.name} shows none: cut it closer")
            largest = faces.largest
            vectors.append(self.encoder.embed(photo.pixels, largest.mesh))
            crops.append(align.warp(photo.pixels, align.ffhq_transform(largest.mesh, CROP), CROP).clamp(0, 1))
            eyes.append(float(largest.eye_distances[0]))
            counts.append(len(faces))
        apart = float(distance(*vectors)[0])
        verdict = judge(apart, min(eyes))
        farther, nearer = error_rates(apart)
        return Comparison(
            verdict,
            sentence(verdict, apart, min(eyes)),
            apart,
            None if verdict == TOO_POOR else same_probability(apart),
            farther,
            nearer,
            (eyes[0], eyes[1]),
            torch.cat(crops),
            (counts[0], counts[1]),
        )


def compare_faces(first: images.Source | Photo, second: images.Source | Photo) -> Comparison:
    """Compare the largest faces of two photos, given as anything that `studio.images.load` takes.

    Loads the networks every time; keep a `Comparer` for many pairs.

    Raises:
        ImageError: a photo that cannot be used.
        NoFaceError: a photo without a face.
        MissingWeightsError: weights that are not here and could not be fetched.
    """
    return Comparer.from_pretrained()(first, second)


@cache
def figures() -> dict[str, Any]:
    """The committed result of `studio bench identity`."""
    return json.loads(FIGURES.read_text(encoding="utf-8"))


def curve() -> np.ndarray:
    """(K,3): a distance, the share of genuine pairs and the share of impostor pairs at most that far apart."""
    return np.array(figures()["scores"]["curve"])


def error_rates(apart: float) -> tuple[float, float]:
    """What was measured at a distance: the share of genuine pairs farther apart, and of impostor pairs as near."""
    table = curve()
    genuine, impostor = (float(np.interp(apart, table[:, 0], table[:, k])) for k in (1, 2))
    return 1 - genuine, impostor


def probability(apart: float | np.ndarray, intercept: float, slope: float) -> float | np.ndarray:
    """The logistic curve 1 / (1 + exp(-(intercept + slope · apart)))."""
    return 1 / (1 + np.exp(-np.clip(intercept + slope * apart, -50, 50)))


def same_probability(apart: float) -> float:
    """That two faces at a distance are of one person, if that was as likely as not before looking.

    Fitted by `studio bench identity` on pairs of real photographs, and checked there on people it was not fitted on.
    Look-alikes and relatives are rare among those pairs, so that it is no proof.
    """
    fitted = figures()["calibration"]
    return float(probability(apart, fitted["intercept"], fitted["slope"]))


def judge(apart: float, eyes: float) -> str:
    """The verdict on a distance between faces of which the smaller has `eyes` px between its eyes.

    Raises:
        InputError: a negative distance.
    """
    if apart < 0:
        raise InputError(f"a distance must be at least 0, got {apart}: compare the vectors again")
    if eyes < SMALLEST_EYE_DISTANCE:
        return TOO_POOR
    farther, nearer = error_rates(apart)
    if nearer <= RARE:
        return SAME
    return DIFFERENT if farther <= RARE else UNSURE


def sentence(verdict: str, apart: float, eyes: float) -> str:
    """A verdict in words, with how often it was wrong where it was measured."""
    if verdict == TOO_POOR:
        return (
            f"Too poor to tell: {eyes:.0f} px between the eyes of the smaller face, {SMALLEST_EYE_DISTANCE:.0f} are "
            f"needed. The distance of {apart:.2f} says more about the picture than about the person."
        )
    scores = figures()["scores"]
    farther, nearer = error_rates(apart)
    measured = (
        f"Distance {apart:.2f}: {same_probability(apart):.0%} likely to be one person, if that was as likely as not "
        f"before. Of {scores['impostor']['count']} pairs of two people {nearer:.0%} were this near, of "
        f"{scores['genuine']['count']} pairs of one person {farther:.0%} were farther apart."
    )
    words = {
        SAME: "Probably the same person, or a close relative.",
        DIFFERENT: "Probably two people.",
        UNSURE: "Cannot be told: the same person, or two who look alike.",
    }
    return f"{words[verdict]} {measured} This is no evidence of who somebody is."
