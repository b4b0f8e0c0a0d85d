"""Bringing a restored face nearer to a person who is known from another photograph.

Heavy damage takes away who somebody is, and no network can read it there; a second photograph tells. Restoration guided
by one is old (GFRNet, arXiv 1804.04829, warps the other photograph onto the face); here its identity vector alone is
followed, so that pose, age and light of the second one do not matter.

What moves is a latent, not the map that the restorer predicted: the map gets what the generator itself would change in
it. A map that moves freely comes nearer in fewer steps (0.1 of the person in the encoder's eyes), and pleases the
encoder with veins and furrows that no face has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.networks.generator import Generator
from studio.networks.latent_space import LatentSpace
from studio.networks.restorer import START_BLOCK, Restored

SAMPLES = 16_384  # mapped for the statistics of the latents; the whitening needs far more of them than dimensions
FIT_STEPS, FIT_RATE = 40, 0.2
RATE, TEXTURE_RATE = 0.12, 0.06  # of Adam, in spreads
NEAR = 0.3  # identity distance at which nothing more is asked for; two photographs of one person are 0.35 apart
PLACE = 20.0  # weight of the squared change of the picture at 1/8 of 256 px
PULL = 0.06  # of the mean squared way, in spreads; at 0.01 a girl got a moustache, though her distance was no larger
COARSE = 32  # px


@dataclass
class Resembling:
    """What `resemble` found.

    Attributes:
        parts: what the restorer gave, moved; those it was given when no step came nearer.
        before, after: identity distances of the face as it was and as it became, as drawn while searching. The encoder
            that measures also led, so that they flatter.
    """

    parts: Restored
    before: float
    after: float


def gaussian_space(generator: Generator, seed: int = 0) -> LatentSpace:
    """Gaussian coordinates of a generator's latents, without directions and samples: from its own mapping."""
    dim = generator.config.style_dim
    space = LatentSpace(dim=dim, attributes=(), bank=0)
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(SAMPLES, dim, generator=rng)
    with torch.no_grad():
        latents = [
            generator.latents(part.to(generator.device, generator.dtype)).float().cpu() for part in z.split(2048)
        ]
    space.fit(torch.cat(latents))
    return space.to(generator.device)


def nearest_structure(generator: Generator, features: Tensor, space: LatentSpace, steps: int = FIT_STEPS) -> Tensor:
    """Gaussian coordinates (1,D) of the latent whose own map is nearest to a predicted one.

    Args:
        generator: draws maps with gradients; only its first blocks are used.
        features: (1,C,H,W) the map after `START_BLOCK` blocks.
        space: the Gaussian coordinates.
        steps: of Adam.
    """
    v = torch.zeros(1, space.config.dim, device=features.device, requires_grad=True)
    optimizer, gain = torch.optim.Adam([v], lr=FIT_RATE, betas=(0.9, 0.99)), space.gain()
    spread = features.square().mean()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = FIT_RATE * (1 - 0.9 * step / steps)
        error = (structure_map(generator, space.latents(gain * v)) - features).square().mean() / spread
        cost = error + PULL * v.square().mean()
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
    return gain * v.detach()


def structure_map(generator: Generator, w: Tensor) -> Tensor:
    """The map (N,C,H,W) float32 that a latent (N,D) has after `START_BLOCK` blocks."""
    return generator.features(w.to(generator.dtype), START_BLOCK).float()


def resemble(
    parts: Restored,
    person: Tensor,
    draw: Callable[[Restored], Tensor],
    embed: Callable[[Tensor], Tensor],
    generator: Generator,
    space: LatentSpace,
    latent_spread: Tensor,
    steps: int,
    on_step: Callable[[int, Tensor, Tensor], Tensor | None] | None = None,
) -> Resembling:
    """Adam on what identity distance is left above `NEAR`, the change of the coarse picture, and the way gone.

    Args:
        parts: what the restorer gave for one face.
        person: (E,) identity vector of the person.
        draw: parts to the prior's picture (1,3,S,S) RGB, about [0,1], with gradients.
        embed: such a picture to the identity vector (1,E) of the face as it will be shown, with gradients.
        generator: its first blocks say how maps change.
        space: the Gaussian coordinates, see `gaussian_space`.
        latent_spread: (1,D) of the latent that colours and textures the face.
        steps: how many.
        on_step: called with (step, identity distance (1,), Gaussian coordinates (1,D) of the structure) after each step
            is measured; what it returns, if anything, is where the structure of the next one starts.

    Returns:
        The nearest of the steps.
    """
    with torch.inference_mode(False), torch.enable_grad():
        parts, person = copied(parts), person.detach().clone().to(parts.features.device)
        spread, gain = latent_spread.detach().clone(), space.gain()
        start = nearest_structure(generator, parts.features, space)
        with torch.no_grad():
            own = structure_map(generator, space.latents(start))
        structure = torch.zeros_like(start, requires_grad=True)
        texture = torch.zeros_like(parts.latent, requires_grad=True)
        optimizer = torch.optim.Adam(
            [{"params": [structure], "rate": RATE}, {"params": [texture], "rate": TEXTURE_RATE}],
            lr=RATE,
            betas=(0.9, 0.99),
        )
        found, coarse = Resembling(parts, torch.inf, torch.inf), None
        for step in range(steps + 1):
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * (1 - 0.7 * step / max(steps, 1))
            change = structure_map(generator, space.latents(start + gain * structure)) - own
            moved = replace(parts, features=parts.features + change, latent=parts.latent + spread * texture)
            picture = draw(moved)
            small = F.interpolate(picture, (COARSE, COARSE), mode="area")
            coarse = small.detach() if coarse is None else coarse
            distance = (embed(picture) - person).norm()
            if step == 0:
                found.before = float(distance.detach())
            if float(distance.detach()) < found.after:
                found.after, found.parts = float(distance.detach()), detached(moved)
            given = None
            if on_step is not None:
                given = on_step(step, distance.detach().view(1), (start + gain * structure).detach())
            if step < steps:
                cost = (distance - NEAR).clamp_min(0).square() + PLACE * (small - coarse).square().mean()
                cost = cost + PULL * (structure.square().mean() + texture.square().mean())
                optimizer.zero_grad()
                cost.backward()
                if given is not None:
                    start = given - (gain * structure).detach()
                optimizer.step()
    return found


def copied(parts: Restored) -> Restored:
    """The same, of tensors that may take part in gradients whatever mode the caller is in."""
    return Restored(
        parts.features.detach().clone(),
        parts.latent.detach().clone(),
        parts.estimate.detach().clone(),
        [(scale.detach().clone(), shift.detach().clone()) for scale, shift in parts.spatial],
        None if parts.styles is None else parts.styles.detach().clone(),
    )


def detached(parts: Restored) -> Restored:
    """The same without its graph."""
    return replace(parts, features=parts.features.detach(), latent=parts.latent.detach())
