"""Where a search starts: the faces of a bank of samples that look like a small picture, and like a person."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.errors import InputError
from studio.networks.latent_space import THUMB, LatentSpace

IDENTITY_COST = 0.02  # squared identity distance of strangers, about 0.6, then counts as much as a face's pixels
RIDGE = 500.0  # on a tenth of the bank it leaves 0.64 of the variance of w, 0.75 without identities; the nearest: 1.34


def nearest(
    space: LatentSpace,
    target: Tensor,
    count: int,
    rng: torch.Generator | None = None,
    embedding: Tensor | None = None,
    grey: bool = False,
    choice: int = 4,
) -> Tensor:
    """Bank samples whose shrunk pictures are nearest to a small one.

    Args:
        space: has the bank.
        target: (3,h,w) RGB in [0,1].
        count: how many.
        rng: draws them from the `choice` · `count` nearest; None takes the nearest.
        embedding: (E,) identity vector of the person, which then counts too.
        grey: compare brightness only, because the small picture has no colours.
        choice: see `rng`.

    Returns:
        (count,D) latents w, nearest first.

    Raises:
        InputError: more than the bank holds.
    """
    if count > space.config.bank:
        raise InputError(f"at most {space.config.bank} samples can be searched for at once, got {count}: ask for less")
    side = min(THUMB, *target.shape[-2:])
    thumbs = F.interpolate(space.bank_thumbs.float() / 255, (side, side), mode="area")
    small = F.interpolate(target[None].to(thumbs), (side, side), mode="area")
    difference = (thumbs - small).mean(1) if grey else thumbs - small
    cost = difference.square().flatten(1).mean(1)  # (K,)
    if embedding is not None:
        cost = cost + IDENTITY_COST * (space.bank_embeddings.float() - embedding.to(thumbs)).square().sum(1)
    order = cost.argsort()
    if rng is not None:
        pool = order[: choice * count]
        order = pool[torch.randperm(len(pool), generator=rng)[:count].sort().values.to(pool.device)]
    return space.bank_latents[order[:count]].float()


def estimate(space: LatentSpace, target: Tensor, embedding: Tensor | None = None, grey: bool = False) -> Tensor:
    """Gaussian coordinates of a small picture: a ridge regression of the bank's on their pictures (and identities).

    Args:
        space: has the bank.
        target: (3,h,w) RGB in [0,1].
        embedding: (E,) identity vector of the person, which then counts too.
        grey: look at brightness only.

    Returns:
        (1,D). It is the mean of the faces that look so, and so paler than any of them.
    """
    side = min(THUMB, *target.shape[-2:])

    def features(pictures: Tensor, vectors: Tensor | None) -> Tensor:
        small = F.interpolate(pictures, (side, side), mode="area")
        small = (small.mean(1) if grey else small).flatten(1)
        return small if vectors is None else torch.cat([small, vectors], 1)  # (K, F)

    v = space(space.bank_latents.float())
    x = features(space.bank_thumbs.float() / 255, None if embedding is None else space.bank_embeddings.float())
    at = features(target[None].to(x), None if embedding is None else embedding[None].to(x))
    middle, spread = x.mean(0), x.std(0) + 1e-4
    x, at = (x - middle) / spread, (at - middle) / spread
    gram = x.T @ x + RIDGE * torch.eye(x.shape[1], device=x.device)
    slope = torch.linalg.solve(gram, x.T @ (v - v.mean(0)))  # (F, D)
    return v.mean(0) + at @ slope
