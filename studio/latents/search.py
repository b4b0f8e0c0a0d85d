"""Searching the prior for faces that look a certain way: PULSE (Menon et al., arXiv 2003.03808) and what it lacks.

PULSE looks for latents whose picture, shrunk, is the given small one. Each slot of W+ stays on a sphere, because that
is where a Gaussian of many dimensions lies, and the slots of one face should lie close together (the geodesic cross
term). The published search starts anywhere; here it starts at the nearest of a bank of samples, and returns the best
step and not the last.

What latents cannot say (a flag, a collar, the very person) a map can: in the second part of a search, an offset is
added to the generator's own map at 32 px and moved with the latents. BDInvert (Kang et al., arXiv 2107.03182) calls
such a space F/W+. All blocks behind that map still draw, so that what is found is sharp.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from studio import images

EPSILON = 2e-3  # mean squared error over RGB in [0,1] under which PULSE counts a face as found
AIM = 0.9  # of the threshold: what is searched, so that rounding afterwards does not cross it
CHECK_EVERY = 10  # steps between two looks at what the exact picture is, where a quicker one is searched
SETTLE = 5  # steps after all samples are there, in which the cross term and the shift of the map fall


def geodesic_cross(v: Tensor) -> Tensor:
    """Sum of squared angles between all pairs of slots (PULSE, GEOCROSS).

    Args:
        v: (N,K,D) latents on a sphere.

    Returns:
        (N,) rad², 0 when all slots of a face are one latent.
    """
    v = F.normalize(v, dim=-1)
    apart = (v[:, :, None] - v[:, None]).square().sum(-1)  # (N, K, K)
    along = (v[:, :, None] + v[:, None]).square().sum(-1)
    # atan2 of the two is exact for small angles, where acos of the dot product is not; 1e-9 keeps the root's slope.
    angle = 2 * torch.atan2((apart + 1e-9).sqrt(), (along + 1e-9).sqrt())
    return angle.square().sum((1, 2)) / 2


def to_sphere(v: Tensor, radius: Tensor | float) -> Tensor:
    """The nearest points of the sphere of that radius, (…,D)."""
    return F.normalize(v, dim=-1) * radius


@dataclass
class Found:
    """The best step of each sample.

    Attributes:
        v: (N,slots,D) Gaussian coordinates.
        cost: (N,) its objective.
        error: (N,) its downscale error while searching.
        step: (N,) which it was.
        added: (N,C,H,W) what is added to the generator's own maps, in their units; None where they were not moved.
        map_shift: (N,) root mean square of that, in spreads of the map; 0 where it was not moved.
    """

    v: Tensor
    cost: Tensor
    error: Tensor
    step: Tensor
    added: Tensor | None
    map_shift: Tensor


@dataclass(frozen=True)
class MapMove:
    """The second part of a search, in which the generator's own maps move too.

    Attributes:
        start: (N,C,H,W) maps of the starting faces. A shift is measured in their spread: the standard deviation of each
            channel over the map.
        after: steps before, in which only the latents move.
        rate: of Adam, in spreads; it falls with that of the latents.
        weight: of the shift's mean square, in spreads.
    """

    start: Tensor
    after: int
    rate: float = 0.06
    weight: float = 4.0


@dataclass(frozen=True)
class Objective:
    """What is minimised: `pixels` · max(error, aim) + `cross` · GEOCROSS + whatever `extra` adds.

    PULSE's published weights are 100, and 0.05 of 64 times the mean squared angle over all ordered pairs, which for 16
    slots is 0.025 of the sum over pairs. That held real portraits at errors of 0.006 to 0.01, far above the threshold,
    so that the slots may lie further apart here; once the aim is reached, only the cross term is left to fall.

    Attributes:
        pixels, cross: weights.
        threshold: downscale error that is good enough.
        extra: pictures (N,3,S,S) to a further cost (N,), or None.
    """

    pixels: float = 100.0
    cross: float = 0.005
    threshold: float = EPSILON
    extra: Callable[[Tensor, int], Tensor] | None = None


def search(
    draw: Callable[..., Tensor],
    start: Tensor,
    target: Tensor,
    objective: Objective,
    *,
    steps: int,
    rate: float,
    exact: Callable[..., Tensor] | None = None,
    maps: MapMove | None = None,
    on_step: Callable[[int, Tensor, Tensor], Tensor | None] | None = None,
) -> Found:
    """Spherical gradient descent (Adam, projected after each step) on all samples at once, first of latents alone.

    Args:
        draw: Gaussian coordinates (N,slots,D) to pictures (N,3,S,S) RGB in [0,1], with gradients. Once maps move, it is
            given (N,C,H,W) as well: what is added to them.
        start: (N,slots,D) Gaussian coordinates; every slot stays at its distance from the middle.
        target: (3,h,h) or (N,3,h,h) the small picture, RGB in [0,1].
        objective: see there.
        steps: how many at the most; it ends `SETTLE` steps after all samples have been at the aim.
        exact: like `draw`, but slower and right, where `draw` is an approximation (an image head): every `CHECK_EVERY`
            steps, twice as often once maps move, what the two differ by when shrunk is measured, and counted in until
            the next time; only those steps can be the best. Without it, a search finds what the approximation shows
            wrongly.
        rate: of Adam, in units of the Gaussian's standard deviation; it falls to a tenth by the last step.
        maps: when and how the generator's maps move too; None moves latents only.
        on_step: called with (step, v, error) after each; what it returns, if anything, replaces v.

    Returns:
        The best step of each sample, by the objective.
    """
    radius = start.norm(dim=-1, keepdim=True)
    v = start.clone().requires_grad_(True)
    optimizer, rates = torch.optim.Adam([v], betas=(0.9, 0.99)), [rate]
    if maps is not None:
        spread = maps.start.std((2, 3), keepdim=True).clamp_min(1e-6)  # (N, C, 1, 1); no channel is divided by 0
        shift = torch.zeros_like(maps.start).requires_grad_(True)
        optimizer.add_param_group({"params": [shift]})
        rates.append(maps.rate)
    best = nothing_found(start, maps)
    settling, offset = 0, torch.zeros_like(target)
    for step in range(steps):
        for group, full in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = full * min(1, (step + 1) / 4) * (1 - 0.9 * step / steps)
        moving = maps is not None and step >= maps.after
        given = (v, shift * spread) if moving else (v,)
        pictures = draw(*given)
        shrunk = images.resize(pictures, *target.shape[-2:])
        checked = exact is not None and (step % (CHECK_EVERY // 2 if moving else CHECK_EVERY) == 0 or step == steps - 1)
        if checked:
            with torch.no_grad():
                offset = images.resize(exact(*given), *target.shape[-2:]) - shrunk
        error = (shrunk + offset - target).square().flatten(1).mean(1)
        cost = objective.pixels * error.clamp_min(AIM * objective.threshold) + objective.cross * geodesic_cross(v)
        if moving:
            cost = cost + maps.weight * shift.square().mean((1, 2, 3))
        if objective.extra is not None:
            cost = cost + objective.extra(pictures, step)
        if checked or exact is None:
            keep_best(best, step, cost, error, *given)
        settling += bool((best.error <= AIM * objective.threshold).all())
        if settling > SETTLE:
            break
        optimizer.zero_grad()
        cost.sum().backward()
        optimizer.step()
        with torch.no_grad():
            v.copy_(to_sphere(v, radius))
            replaced = on_step(step, v.detach(), error.detach()) if on_step is not None else None
            if replaced is not None:
                v.copy_(replaced)
    if best.added is not None:
        best.map_shift = (best.added / spread).square().mean((1, 2, 3)).sqrt()
    return best


def nothing_found(start: Tensor, maps: MapMove | None) -> Found:
    """Before the first step."""
    infinite, zero = start.new_full((len(start),), torch.inf), start.new_zeros(len(start))
    added = None if maps is None else torch.zeros_like(maps.start)
    return Found(start.clone(), infinite, infinite.clone(), zero.long().cpu(), added, zero)


def keep_best(best: Found, step: int, cost: Tensor, error: Tensor, v: Tensor, added: Tensor | None = None) -> None:
    """Take over the samples whose cost has fallen."""
    better = cost.detach() < best.cost
    best.v[better] = v.detach()[better]
    best.cost[better] = cost.detach()[better]
    best.error[better] = error.detach()[better]
    best.step[better.cpu()] = step
    if added is not None and best.added is not None:
        best.added[better] = added.detach()[better]
