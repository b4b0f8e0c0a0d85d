"""Drawing the prior's faces: exactly, quickly, and with something added to a map in the middle."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.device import fast_bfloat16
from studio.networks.generator import Generator
from studio.networks.image_head import ImageHead
from studio.networks.loading import StrictModel
from studio.tone import Tone, with_tone

SEARCHED = 256  # px, side of the pictures that searches compare and measure
MAP_BLOCK = 3  # the map that can be moved is the one after this many blocks: 32 px


def quick_copy(generator: StrictModel) -> StrictModel:
    """A copy in bfloat16 (20 MB) where that is faster, else the generator itself: for searching, not for the result."""
    if not fast_bfloat16(generator.device.type):
        return generator
    return torch.nn.Module.to(deepcopy(generator), dtype=torch.bfloat16)


def picture(generator: Generator, w: Tensor, head: ImageHead | None = None, added: Tensor | None = None) -> Tensor:
    """Latents, and what is added to the map, to pictures, with gradients.

    Args:
        generator: the prior.
        w: W or W+ latents (N,16,512), any float type.
        head: a quicker way to a picture, which is about right; None draws the generator's own.
        added: (N,512,32,32) added to the generator's own map after `MAP_BLOCK` blocks, in its units; None adds nothing.

    Returns:
        (N,3,S,S) float32 RGB, about [0,1], not clamped.
    """
    w = generator.slots(w.to(generator.dtype))
    if added is None:
        return (generator(w) if head is None else head.render(generator, w)).float() / 2 + 0.5
    x = generator.features(w, MAP_BLOCK) + added.to(w)
    if head is None:
        return generator.decode(x, w, MAP_BLOCK).float() / 2 + 0.5
    return head(generator.run_blocks(x, w, MAP_BLOCK, head.config.start), w).float() / 2 + 0.5


def render(
    generator: Generator, w: Tensor, size: int, head: ImageHead | None = None, added: Tensor | None = None
) -> Tensor:
    """`picture`, averaged to (N,3,size,size)."""
    return F.interpolate(picture(generator, w, head, added), (size, size), mode="area")


def quick_draw(generator: Generator, head: ImageHead, tone: Tone | None) -> Callable[[Tensor], Tensor]:
    """W+ latents to pictures (N,3,256,256) RGB, about [0,1], with gradients, through a quick head."""
    with torch.inference_mode(False):  # tensors made in the caller's inference mode cannot have gradients
        prior, quick = quick_copy(generator), quick_copy(head)
        tone = None if tone is None else tone.copied()
    return lambda w: with_tone(render(prior, w, SEARCHED, quick), tone)
