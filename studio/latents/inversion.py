"""Finding a face in the prior: latents whose picture is the given one, and can still be edited.

A search over one latent per slot finds any picture and leaves the faces that directions were fitted on. Here a face is
first two latents, one for its structure (slots below 7, up to the 32 px map) and one for its texture, as the prior
itself mixes them; every slot may then leave its group a little, and pays for it. What is compared: pixels at 64 px,
maps and vector of the identity network, and the points of the mesh. Everything happens in Gaussian coordinates, where
the distance from the middle says how rare a face is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from studio import images
from studio.faces.align import dlib_transform, warp
from studio.faces.paste import soft_mask
from studio.faces.templates import LEFT_EYE_CORNERS, RIGHT_EYE_CORNERS
from studio.find import FaceFinder
from studio.latents.measure import trace_aligned
from studio.networks.identity import IdentityNet
from studio.networks.latent_space import LatentSpace

STRUCTURE_SLOTS = 7  # slots that are used up to the 32 px map; the others colour and texture it
COMPARED = 64  # px
OUTSIDE = 0.3  # weight of the pixels outside the face
MAPS = slice(1, 3)  # stages of the identity network whose maps are compared: 17 and 8 px
PIXELS, FEATURES, IDENTITY, LANDMARKS = 40.0, 0.3, 1.0, 4.0
RARITY, OWN_WAY = 0.01, 0.05


@dataclass(frozen=True)
class Traits:
    """What is compared of N faces.

    Attributes:
        pixels: (N,3,64,64) RGB, about [0,1].
        mesh: (N,468,3) in eye distances of the face.
        maps: of the identity network, see `MAPS`.
        vector: (N,E) its vectors of the faces as they are, not mirrored.
        points: (N,468,3) the mesh in pixels of the pictures.
    """

    pixels: Tensor
    mesh: Tensor
    maps: list[Tensor]
    vector: Tensor
    points: Tensor


def traits(pictures: Tensor, finder: FaceFinder, net: IdentityNet, place: Tensor | None = None) -> Traits:
    """What is compared of faces, with gradients.

    Args:
        pictures: (N,3,S,S) FFHQ-aligned, RGB in [0,1].
        finder: its mesh places the faces.
        net: the identity network.
        place: (1,468,3) where the identity network should look for the face, in pixels; None: where it is. While a face
            is searched for, it is the wanted one's place: one that follows the face leaves its own part out of the
            gradient, and searches then drift off after some 35 steps.
    """
    points, _ = trace_aligned(finder, pictures)
    right, left = (points[:, list(i)].mean(1) for i in (RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS))
    apart = (left - right).norm(dim=1).detach().view(-1, 1, 1)
    at = points if place is None else place.expand(len(pictures), -1, -1)
    chips = warp(pictures, dlib_transform(at.detach().cpu().numpy(), net.config.size), net.config.size)
    maps = net.features(chips.to(net.dtype))
    vector = net.embed(maps[-1].mean((2, 3)))
    small = images.resize(pictures, COMPARED, COMPARED)
    return Traits(small, points / apart, [one.float() for one in maps[MAPS]], vector.float(), points)


def unlikeness(found: Traits, wanted: Traits, weight: Tensor) -> Tensor:
    """How far N faces are from one, (N,): a weighted sum of mean squared differences.

    Args:
        found: of N faces.
        wanted: of one face.
        weight: (1,1,64,64) of the pixels, with a mean of 1.
    """
    pixels = ((found.pixels - wanted.pixels).square() * weight).mean((1, 2, 3))
    maps = [(a - b).square().mean((1, 2, 3)) / b.square().mean() for a, b in zip(found.maps, wanted.maps, strict=True)]
    identity = (found.vector - wanted.vector).square().sum(1)
    landmarks = (found.mesh - wanted.mesh).square().sum(2).mean(1)
    return PIXELS * pixels + FEATURES * torch.stack(maps).mean(0) + IDENTITY * identity + LANDMARKS * landmarks


def invert(
    draw: Callable[[Tensor], Tensor],
    crop: Tensor,
    start: Tensor,
    space: LatentSpace,
    finder: FaceFinder,
    net: IdentityNet,
    *,
    steps: int = 40,
    rate: float = 0.03,
    on_step: Callable[[int, Tensor], Tensor | None] | None = None,
) -> Tensor:
    """Search the prior for a face.

    Args:
        draw: W+ latents (1,slots,D) to an aligned picture (1,3,S,S) RGB, about [0,1], with gradients; 256 px do.
        crop: (3,S,S) the face, FFHQ-aligned, RGB in [0,1].
        start: (1,slots,D) W+ latents.
        space: the Gaussian coordinates.
        finder: its mesh places the faces.
        net: the identity network.
        steps: of Adam; 40 give a likeness.
        rate: in spreads; it falls to a tenth by the last step. On one side face, the cost after 6 steps from 1.93 was
            0.95 at 0.03, 1.18 at 0.1, 1.60 at 0.3: a step of Adam moves every coordinate, and there are many.
        on_step: called with (step, w) after each; what it returns, if anything, is where the next one starts.

    Returns:
        W+ latents (1,slots,D) of the step that was most alike.
    """
    with torch.inference_mode(False), torch.enable_grad():
        crop, begin = crop.detach().clone().to(start.device), space(start.detach().clone())
        with torch.no_grad():
            wanted = traits(crop[None], finder, net)
        weight = face_weight(wanted.points.cpu().numpy(), crop.shape[-1]).to(crop)
        group = (torch.arange(begin.shape[1], device=begin.device) >= STRUCTURE_SLOTS).long()
        gain = space.gain()
        shared = torch.zeros_like(begin[:, :2]).requires_grad_(True)  # (1, 2, D)
        own = torch.zeros_like(begin).requires_grad_(True)
        optimizer = torch.optim.Adam([shared, own], lr=rate, betas=(0.9, 0.99))
        least, best = torch.inf, start.detach().clone()
        for step in range(steps + 1):
            optimizer.param_groups[0]["lr"] = rate * (1 - 0.9 * step / max(steps, 1))
            common = begin + gain * shared[:, group]
            w = space.latents(common + gain * own)
            found = traits(draw(w).clamp(0, 1), finder, net, wanted.points)
            cost = unlikeness(found, wanted, weight)
            cost = cost + RARITY * common.square().mean((1, 2)) + OWN_WAY * own.square().mean((1, 2))
            if float(cost.detach()) < least:
                least, best = float(cost.detach()), w.detach().clone()
            given = on_step(step, w.detach()) if on_step is not None else None
            if step < steps:
                optimizer.zero_grad()
                cost.sum().backward()
                if given is not None:
                    with torch.no_grad():
                        begin = space(given) - gain * (shared[:, group] + own)
                optimizer.step()
    return best


def face_weight(mesh: np.ndarray, side: int) -> Tensor:
    """Weight (1,1,64,64) of an aligned face's pixels, mean 1; mesh (1,468,3) in pixels of a picture of `side`."""
    to_picture = np.array([[[1.0, 0, 0], [0, 1.0, 0]]], np.float32) * (side / COMPARED)
    weight = OUTSIDE + (1 - OUTSIDE) * soft_mask(mesh, to_picture, COMPARED)
    return weight / weight.mean()
