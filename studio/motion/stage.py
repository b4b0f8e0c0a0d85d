"""The stage: the aligned crop of a photograph in which its head moves, and what is known of it once for all frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from studio import images
from studio.faces import align
from studio.motion.dense import GRID, Flow, Still, smooth, warp
from studio.networks.depth import DepthNet
from studio.networks.reenactor import Reenactor
from studio.tone import LUMA, Tone, luma, with_tone

DRAWN = 256  # px, of what the network draws; a larger stage is warped at its own size
CELL, NEAR = 4, 9  # px of a cell, and cells along the side of the window, in which colours are looked for
EDGE = 0.1  # of how much a place follows the head: from there on the moved picture is shown, and the photo's no more


@dataclass(frozen=True)
class Stage:
    """One face, ready to be moved.

    Attributes:
        crop: (1,3,S,S) RGB in [0,1], FFHQ-aligned.
        small: (1,3,DRAWN,DRAWN), the same; in grey where the photo has one tone.
        mesh: (468,3) in shares of the crop's side.
        still: the face as geometry.
        depth: (1,1,h,w) z in shares of the crop's side.
        looked: what `Reenactor.look` reads in it.
        mask: (1,1,S,S) in [0,1], where the crop may change.
        tone: of a monochrome photo, or None.
    """

    crop: Tensor
    small: Tensor
    mesh: np.ndarray
    still: Still
    depth: Tensor
    looked: tuple[Tensor, Tensor, Tensor]
    mask: Tensor
    tone: Tone | None


def make_stage(
    photo: Tensor, mesh: np.ndarray, size: int, tone: Tone | None, depth: DepthNet, reenactor: Reenactor
) -> tuple[Stage, np.ndarray]:
    """The stage of a face, and crop_to_image (1,2,3).

    Args:
        photo: (3,H,W) RGB in [0,1].
        mesh: (1,468,3) in pixels of the photo.
        size: side of the crop in px.
        tone: of a monochrome photo.
        depth: says how deep hair, ears and neck lie.
        reenactor: looks at the still.
    """
    affine = align.ffhq_transform(mesh, size)
    crop = align.warp(photo, affine, size).clamp(0, 1)
    small = images.resize(crop, DRAWN, DRAWN)  # the crop itself, where that is its size
    small = small if tone is None else luma(small).expand_as(small)
    inside = (align.into_crop(mesh, affine, size)[0]).astype(np.float32)
    rough = Still(inside).depth()
    device, dtype = depth.device, depth.dtype
    found, head = (part.float().cpu() for part in depth(small.to(device, dtype), rough.to(device, dtype)))
    still = Still(inside, found, head)
    looked = reenactor.look(small.to(reenactor.device, reenactor.dtype), found.to(reenactor.device))
    return Stage(crop, small, inside, still, found, looked, change_mask(still, size), tone), affine


def change_mask(still: Still, size: int) -> Tensor:
    """(1,1,size,size) in [0,1]: 1 where the crop follows the head, 0 where the photo must stay as it is to the bit."""
    follows = torch.ones(GRID * GRID)
    x, y = (still.around[:, :2] * GRID).long().clamp(0, GRID - 1).T
    follows[y * GRID + x] = still.moves[:, 0]
    coarse = F.interpolate(follows.view(1, 1, GRID, GRID), (size, size), mode="bilinear", align_corners=False)
    return smooth(coarse / EDGE)


def draw(stage: Stage, flow: Flow, reenactor: Reenactor | None) -> Tensor:
    """Frames (N,3,S,S) RGB in [0,1] of a stage that moves as a flow says; without a network, as the flow warps it."""
    size, count = stage.crop.shape[-1], len(flow.source)
    warped = warp(stage.crop.expand(count, -1, -1, -1), flow.source).clamp(0, 1)
    if reenactor is None:
        return with_tone(warped, stage.tone).clamp(0, 1)
    small = warped
    if stage.small is not stage.crop:
        small = warp(stage.small.expand(count, -1, -1, -1), flow.source).clamp(0, 1)
    like: dict[str, Any] = {"device": reenactor.device, "dtype": reenactor.dtype}
    drawn, mask = reenactor(small.to(**like), flow.geometry.to(reenactor.device), flow.source.to(**like), stage.looked)
    drawn, mask = as_coloured(drawn.float().cpu(), small), mask.float().cpu()
    if size != DRAWN:
        drawn, mask = (images.resize(part, size, size) for part in (drawn, mask))
    return with_tone(torch.lerp(warped, drawn, mask), stage.tone).clamp(0, 1)


def as_coloured(drawn: Tensor, shown: Tensor) -> Tensor:
    """Drawn pictures (N,3,S,S) in colours that others (N,3,S,S) have near by, or greyer ones.

    A network of a short training draws teal where skin gives way to hair. Luma stays; of R-Y and B-Y, what lies beyond
    all that is shown within `NEAR` cells, and beyond grey, is cut off.
    """
    y, cells = luma(drawn), F.avg_pool2d(shown, CELL)
    colours = cells - luma(cells)
    least, most = (
        F.interpolate(bound, drawn.shape[2:], mode="bilinear", align_corners=False)
        for bound in (
            -F.max_pool2d((-colours).clamp_min(0), NEAR, 1, NEAR // 2),
            F.max_pool2d(colours.clamp_min(0), NEAR, 1, NEAR // 2),
        )
    )
    colour = torch.minimum(torch.maximum(drawn - y, least), most)
    red, blue = colour[:, :1], colour[:, 2:]
    green = -(LUMA[0] * red + LUMA[2] * blue) / LUMA[1]
    return y + torch.cat([red, green, blue], 1)
