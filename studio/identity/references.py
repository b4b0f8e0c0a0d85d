"""Photos that say who somebody is: what is reported of them, and the consent with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from studio import checks
from studio.errors import InputError

LENGTHS = (0.8, 2.2)  # of an identity vector; those of photos are 1.2 to 1.7 long
NOTE = "generated: a synthetic picture of nobody at any place or time, whoever it resembles"  # in every report


@dataclass
class ReferenceReport:
    """One photo, or embedding, of the person.

    Attributes:
        name: of the file, or its number.
        eye_distance: px between the eyes; None for an embedding.
        distance: identity distance to the average of those that count; None for an embedding of another encoder.
        outlier: further than 0.6 from the one in the middle: probably somebody else, and left out of the average.
        monochrome: a photo in one tone. What the print adds to the face misleads the correction: the same photo out of
            `RestorePipeline` with `colorize=True` is the better reference.
    """

    name: str
    eye_distance: float | None
    distance: float | None
    outlier: bool
    monochrome: bool


def as_vector(vector: Any, length: int) -> Tensor:
    """An identity vector (length,) of whatever encoder, float32, on the CPU.

    Raises:
        InputError: no numbers, another shape, or not finite.
    """
    try:
        found = torch.as_tensor(vector).detach().float().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"an embedding must be ({length},) of float, got a {type(vector).__name__}") from error
    if tuple(found.shape) != (length,):
        raise InputError(
            f"an embedding must be ({length},), got {tuple(found.shape)}: take it from the encoder, one a person"
        )
    if not bool(found.isfinite().all()):
        raise InputError("an embedding must be finite, and this one holds NaN or infinity: embed the photo again")
    return found


def check_embedding(vector: Any, length: int) -> Tensor:
    """An identity vector of dlib's network (length,), float32, on the CPU.

    Args:
        vector: a tensor or an array.
        length: how many numbers.

    Raises:
        InputError: another shape, numbers that are not finite, or a length that no face has.
    """
    vector = as_vector(vector, length)
    if not LENGTHS[0] <= (size := float(vector.norm())) <= LENGTHS[1]:
        raise InputError(
            f"an embedding must be {LENGTHS[0]} to {LENGTHS[1]} long as those of IdentityEncoder are, got {size:.2f}: "
            "do not scale it, and take no other encoder's"
        )
    return vector


def check_consent(identity: Any, consent: bool) -> None:
    """Refuse to generate a person who did not agree.

    Raises:
        InputError: a person, and no consent.
    """
    if identity is not None and not consent:
        raise InputError(
            "generating a person needs their consent, and it was not stated: ask, then pass --consent "
            "(in Python consent=True; it is written into the result)"
        )


def check_numbers(limits: Mapping[str, tuple[int, int, int]]) -> None:
    """Refuse numbers that are not whole, or not within their limits: name to value, least and most."""
    for name, (value, low, high) in limits.items():
        if type(value) is not int or not low <= value <= high:
            raise InputError(f"{name} must be a whole number from {low} to {high}, got {value!r}: pass one")


def check_answers(face: int | None, consent: bool, output_type: str) -> None:
    """Refuse a face, a consent or a type of output that is none."""
    if face is not None and (type(face) is not int or face < 0):
        raise InputError(f"face must be a whole number of 0 or more, or None, got {face!r}: 0 is the largest face")
    if not isinstance(consent, bool):
        raise InputError(f"consent must be True or False, got {consent!r}: say it plainly")
    checks.output_type(output_type)
