"""What can be changed in a face, by name: the units, and how far the prior goes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from studio.errors import InputError
from studio.networks.latent_space import AGE, LatentSpace

ANGLES = ("yaw", "pitch")
AS_IT_SHOULD_BE = (*ANGLES, AGE)  # asked for in degrees and years; the others as a change, in spreads
MOST_SPREADS = 4.0  # further out than this, pictures stop being faces
MOST_DEGREES = 60.0
YEARS = (30.0, 80.0)  # that the reading was learned from, and the prior reaches


def asked(**changes: float | None) -> dict[str, float]:
    """Those of the changes that are not None.

    Raises:
        InputError: one is no number.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{name} must be a number or None, got {value!r}: pass a number")
    return {name: float(value) for name, value in given.items()}


def check_changes(space: LatentSpace, changes: Mapping[str, float]) -> None:
    """Refuse attributes that there are not, and changes that leave the faces that the prior knows.

    Raises:
        InputError: see above.
    """
    for name, value in changes.items():
        space.number(name)
        low, high, unit = -MOST_SPREADS, MOST_SPREADS, "spreads"
        if name in ANGLES:
            low, high, unit = -MOST_DEGREES, MOST_DEGREES, "degrees"
        elif name == AGE:
            low, high, unit = *YEARS, "years"
        if not low <= value <= high:
            raise InputError(f"{name} must be from {low:g} to {high:g} {unit}, got {value:g}: ask for less")


def check_in_photo(changes: Mapping[str, float]) -> None:
    """Refuse what cannot be changed in a photograph.

    Raises:
        InputError: nothing, or a turn.
    """
    if not changes:
        raise InputError("a change is needed, got none: ask for a smile, glasses or an age")
    if turned := [name for name in ANGLES if name in changes]:
        raise InputError(f"{turned[0]} can't be changed in the photograph itself: edit its likeness instead")


def aims(space: LatentSpace, seen: Tensor, changes: Mapping[str, float]) -> dict[str, float]:
    """What each attribute of a face with attributes (A,) should be after these changes, in its own unit."""
    spread = space.attribute_spread.float().cpu()
    return {
        name: float(value) if name in AS_IT_SHOULD_BE else float(seen[i] + value * spread[i])
        for name, value in changes.items()
        for i in (space.number(name),)
    }


def ways(space: LatentSpace, seen: Tensor, changes: Mapping[str, float]) -> dict[str, float]:
    """By how much each attribute of a face with attributes (A,) is to change, in its own unit."""
    spread = space.attribute_spread.float().cpu()
    return {
        name: float(value - seen[i]) if name in AS_IT_SHOULD_BE else float(value * spread[i])
        for name, value in changes.items()
        for i in (space.number(name),)
    }


def as_reported(space: LatentSpace, values: Tensor) -> dict[str, float]:
    """Attributes (A,) by name: degrees, years, or spreads from the average generated face."""
    mean, spread = space.attribute_mean.float().cpu(), space.attribute_spread.float().cpu()
    return {
        name: round(float(values[i] if name in AS_IT_SHOULD_BE else (values[i] - mean[i]) / spread[i]), 2)
        for i, name in enumerate(space.config.attributes)
    }
