"""Moving latents along directions with a meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from studio.networks.latent_space import LatentSpace

# Slots that a direction moves. Pose and expression live in the coarse ones; the light is colour and comes later; age is
# in bones, skin and hair.
SLOTS = {"light": (4, 12), "glasses": (0, 8), "age": (0, 16)}
GEOMETRY_SLOTS = (0, 6)


def move(space: LatentSpace, w: Tensor, attribute: str, amount: float | Tensor) -> Tensor:
    """Move faces along one direction.

    Args:
        space: has the directions.
        w: (N,slots,D) W+ latents.
        attribute: name of the direction.
        amount: in the attribute's unit; one number, or (N,).

    Returns:
        (N,slots,D), a new tensor; only the direction's own slots differ.

    Raises:
        InputError: there is no direction of that name.
    """
    step = space.directions[space.number(attribute)].to(w)
    start, stop = SLOTS.get(attribute, GEOMETRY_SLOTS)
    moved = w.clone()
    moved[:, start:stop] += step * (amount.view(-1, 1, 1) if isinstance(amount, Tensor) else amount)
    return moved


def move_to(
    space: LatentSpace,
    w: Tensor,
    aims: Mapping[str, float],
    measure: Callable[[Tensor], Tensor],
    corrections: int = 3,
) -> tuple[Tensor, Tensor]:
    """Move one face until it measures as wanted: move by what is missing, measure, and again; the nearest is kept.

    Args:
        space: has the directions.
        w: (1,slots,D) W+ latents.
        aims: attribute to its wanted value, in its unit.
        measure: W+ latents to the attributes (A,) of their picture, in the order of `space.config.attributes`.
        corrections: how many times it is moved.

    Returns:
        The moved latents and their attributes (A,).
    """

    def miss(values: Tensor) -> float:
        numbers = [space.number(name) for name in aims]
        spread = space.attribute_spread.float().cpu()[numbers]
        return float(((values.cpu()[numbers] - torch.tensor(list(aims.values()))) / spread).square().sum())

    values = measure(w)
    best = (miss(values), w, values)
    for _ in range(corrections if aims else 0):
        for name, aim in aims.items():
            w = move(space, w, name, aim - float(values[space.number(name)]))
        values = measure(w)
        best = min(best, (miss(values), w, values), key=lambda found: found[0])
    return best[1], best[2]
