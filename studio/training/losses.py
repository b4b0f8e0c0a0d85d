"""Losses of the restorer's first stage: plain regression, no gradient through the generator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.networks.identity import IdentityNet

# The identity chip on an FFHQ-aligned face of side 1, the mean over 256 generated faces (the spread is 0.03 in
# size and 0.016 in place). Alignment fixes the eyes and the mouth, so that a constant chip does and costs no mesh.
CHIP_SCALE = 0.689
CHIP_ORIGIN = (0.155, 0.258)


def feature_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Smooth L1 over normalised maps; its linear part keeps rare large features from ruling the step."""
    return F.smooth_l1_loss(predicted, target, beta=0.3)


def evidence_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """L1 over pixels and over neighbour differences, both (N,3,S,S) in [0,1]; the second asks for edges."""
    loss = F.l1_loss(predicted, target)
    for dim in (2, 3):
        loss = loss + F.l1_loss(predicted.diff(dim=dim), target.diff(dim=dim))
    return loss


def chips(faces: Tensor) -> Tensor:
    """Constant identity chips of FFHQ-aligned faces, (N,3,S,S) -> (N,3,150,150)."""
    side = faces.shape[2]
    x0, y0 = (round(origin * side) for origin in CHIP_ORIGIN)
    cut = round(CHIP_SCALE * side)
    return F.interpolate(faces[:, :, y0 : y0 + cut, x0 : x0 + cut], size=(150, 150), mode="bilinear", antialias=True)


def identity_loss(net: IdentityNet, predicted: Tensor, target: Tensor) -> Tensor:
    """Distance between intermediate maps of the identity network, relative to the target's own size.

    Deep features change smoothly where the 128-d descriptor hardly moves, so they also guide a face that is not
    recognisable yet (the identity-preserving loss of GFP-GAN, arXiv 2101.04061, equation 6, on maps).
    """
    with torch.no_grad():
        wanted = net.features(chips(target))
    found = net.features(chips(predicted.clamp(0, 1)))
    terms = [(f - w).square().mean() / w.square().mean().clamp_min(1e-6) for f, w in zip(found, wanted, strict=True)]
    return torch.stack(terms).mean()
