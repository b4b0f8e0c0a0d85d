"""k-means, and the faces that a component dictionary keeps."""

from __future__ import annotations

import torch
from torch import Tensor

from studio.networks.dictionary import COMPONENTS, cut, standardised
from studio.networks.generator import Generator


def k_means(points: Tensor, count: int, rng: torch.Generator, rounds: int) -> Tensor:
    """Centres (count,D) of points (N,D), from `count` of them drawn at random; one that loses all its points stays."""
    centres = points[torch.randperm(len(points), generator=rng)[:count]]
    for _ in range(rounds):
        nearest = torch.cdist(points, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        sizes = torch.bincount(nearest, minlength=len(centres))[:, None]
        centres = torch.where(sizes > 0, sums / sizes.clamp_min(1), centres)
    return centres


@torch.no_grad()
def choose_atoms(generator: Generator, latents: Tensor, count: int, start: int, seed: int = 0) -> Tensor:
    """The faces that a dictionary keeps: medoids of k-means over their components' maps.

    Args:
        generator: float32 or bfloat16.
        latents: (N,D) to choose from.
        count: number of atoms, N or fewer.
        start: blocks before the map that is looked at.
        seed: of the first centres and of the projection.

    Returns:
        (count,D), the latents of the faces nearest to the centres.
    """
    rng = torch.Generator().manual_seed(seed)
    rows, basis = [], {}
    for latent in latents.to(generator.device, generator.dtype).split(1):
        x = generator.features(generator.slots(latent), start)
        parts = []
        for name, box in COMPONENTS.items():
            flat = standardised(cut(x, box).float())[0].flatten().cpu()
            if name not in basis:  # 64 numbers keep the distances between maps of some 20,000 well enough
                basis[name] = torch.randn(len(flat), 64, generator=rng) / len(flat) ** 0.5
            parts.append(flat @ basis[name])
        rows.append(torch.cat(parts))
    points = torch.stack(rows)
    centres = k_means(points, count, rng, 20)
    chosen: list[int] = []
    for distances in torch.cdist(centres, points):
        distances[chosen] = torch.inf
        chosen.append(int(distances.argmin()))
    return latents[chosen]
