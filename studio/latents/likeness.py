"""A likeness of a photographed face that can be edited: drawn quickly, started near, searched for by `invert`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from studio.find import FaceFinder
from studio.latents import search
from studio.latents.edit import move_to
from studio.latents.inversion import invert
from studio.networks.generator import Generator
from studio.networks.identity import IdentityNet
from studio.networks.image_head import ImageHead
from studio.networks.latent_space import LatentSpace
from studio.tone import Tone, with_tone

SEARCHED = 256  # px, side of the pictures that are compared
ALIKE = ("yaw", "pitch", "smile", "mouth")  # what the start of a search has of the photograph


def quick_draw(generator: Generator, head: ImageHead, tone: Tone | None) -> Callable[[Tensor], Tensor]:
    """W+ latents to pictures (N,3,256,256) RGB, about [0,1], with gradients, through a quick head."""
    with torch.inference_mode(False):  # tensors made in the caller's inference mode cannot have gradients
        prior, quick = search.quick_copy(generator), search.quick_copy(head)
        tone = None if tone is None else tone.copied()
    return lambda w: with_tone(search.render(prior, w, SEARCHED, quick), tone)


def find_likeness(
    draw: Callable[[Tensor], Tensor],
    measure: Callable[[Tensor], Tensor],
    crop: Tensor,
    start: Tensor,
    seen: Tensor,
    space: LatentSpace,
    finder: FaceFinder,
    net: IdentityNet,
    steps: int,
    on_step: Callable[[int, Tensor], None],
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
        on_step: called with (step, latents) after each of these steps.

    Returns:
        W+ latents (1,slots,D) of the step that was most alike.
    """
    aims = {name: float(seen[space.number(name)]) for name in ALIKE}
    start, _ = move_to(space, start.clone(), aims, lambda w: measure(draw(w)))

    def each(step: int, w: Tensor) -> None:
        if step:
            on_step(step - 1, w)

    return invert(draw, crop, start, space, finder, net, steps=steps, on_step=each)
