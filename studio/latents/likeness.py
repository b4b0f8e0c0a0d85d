"""A likeness of a photographed face in the prior, in the two ways that it is searched for.

`by_inversion` stays near what two latents draw, and gets the very face at its own angle; `by_pulse` stays on the sphere
of every slot, and gets a face that directions move best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from studio import images
from studio.find import FaceFinder
from studio.identity.encoder import IdentityEncoder
from studio.latents import bank, search
from studio.latents.edit import move_to
from studio.latents.inversion import invert
from studio.latents.measure import Resemblance
from studio.latents.prior import SEARCHED, quick_copy, render
from studio.networks.generator import Generator
from studio.networks.identity import IdentityNet
from studio.networks.latent_space import LatentSpace

ALIKE = ("yaw", "pitch", "smile", "mouth")  # what the start of an inversion has of the photograph
COMPARED = 64  # px, at which PULSE compares; finer detail is the identity's business
OBJECTIVE = search.Objective(pixels=60.0, cross=0.003, threshold=1e-4)
IDENTITY_WEIGHT = 3.0
RATE = 0.5

OnStep = Callable[[int, Tensor], Tensor | None]  # step, from 0, and W+ latents (1,slots,D) -> those to go on with


def by_inversion(
    draw: Callable[[Tensor], Tensor],
    measure: Callable[[Tensor], Tensor],
    crop: Tensor,
    start: Tensor,
    seen: Tensor,
    space: LatentSpace,
    finder: FaceFinder,
    net: IdentityNet,
    steps: int,
    on_step: OnStep,
) -> Tensor:
    """Turn a start to the photograph's pose and expression, then search from there for the face most like it.

    Args:
        draw: W+ latents (1,slots,D) to an aligned picture (1,3,256,256), with gradients, see `quick_draw`.
        measure: such a picture to its attributes (A,).
        crop: (3,256,256) the face, FFHQ-aligned, RGB in [0,1].
        start: (1,slots,D) W+ latents.
        seen: (A,) attributes of the crop.
        space: has the directions.
        finder: its mesh places the faces.
        net: the identity network.
        steps: of the search.
        on_step: called with (step, latents) after each of these steps; what it returns, if anything, is gone on with.

    Returns:
        W+ latents (1,slots,D) of the step that was most alike.
    """
    aims = {name: float(seen[space.number(name)]) for name in ALIKE}
    start, _ = move_to(space, start.clone(), aims, lambda w: measure(draw(w)))

    def each(step: int, w: Tensor) -> Tensor | None:
        return on_step(step - 1, w) if step else None

    return invert(draw, crop, start, space, finder, net, steps=steps, on_step=each)


def by_pulse(
    generator: Generator,
    space: LatentSpace,
    finder: FaceFinder,
    encoder: IdentityEncoder,
    crop: Tensor,
    person: Tensor,
    steps: int,
    on_step: OnStep,
) -> Tensor:
    """Start at the sample that is nearest, then search the sphere for pixels and person.

    Args:
        generator: the prior.
        space: its Gaussian coordinates, and the samples.
        finder: its mesh places the faces.
        encoder: says who they are.
        crop: (3,256,256) the face, FFHQ-aligned, RGB in [0,1].
        person: (E,) its identity vector.
        steps: of the search; about 100 give a likeness.
        on_step: called with (step, latents) after each; what it returns, if anything, is gone on with.

    Returns:
        W+ latents (1,slots,D).
    """

    def told(step: int, coordinates: Tensor, error: Tensor) -> Tensor | None:
        given = on_step(step, space.latents(coordinates))
        return None if given is None else space(given)

    # The caller may have switched gradients off in one way or the other; tensors of inference mode cannot have any.
    with torch.inference_mode(False), torch.enable_grad():
        crop, person, prior = crop.clone(), person.clone(), quick_copy(generator)
        start = space(bank.nearest(space, crop, 1, embedding=person))
        found = search.search(
            lambda coordinates: render(prior, space.latents(coordinates), SEARCHED),
            start[:, None].repeat(1, generator.num_slots, 1),
            images.resize(crop, COMPARED, COMPARED).to(start.device),
            replace(OBJECTIVE, extra=Resemblance(finder, encoder, person, IDENTITY_WEIGHT)),
            steps=steps,
            rate=RATE,
            on_step=told,
        )
    return space.latents(found.v)
