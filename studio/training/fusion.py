"""How the training of the restorer joins its estimate with the face that it has drawn.

The losses of stage 2 look at this joined picture. As much of the prior is added as brings the local energy of an octave
of the estimate up to the prior's. (The pipeline joins with `studio.imaging.joining`, which is told how certain the
photograph is; here nothing is known but the two pictures, and gradients pass through.)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.imaging.pyramid import collapse, local_mean, pyramid

HANDED_ON = 0.5  # of an octave's uncertainty, to the next coarser one


def fill_gain(estimate: Tensor, prior: Tensor) -> Tensor:
    """How much of the prior's band to add to the estimate's band.

    Solves |e + g p|^2 = |p|^2 for g over a neighbourhood; 0 where the estimate already has the prior's energy, and
    at most 1.

    Args:
        estimate: one band, (N,3,H,W).
        prior: the same band.

    Returns:
        g, (N,1,H,W) in [0,1].
    """
    ee, pp, ep = local_mean(estimate.square()), local_mean(prior.square()), local_mean(estimate * prior)
    pp = pp.clamp_min(1e-8)
    root = (ep.square() + pp * (pp - ee)).clamp_min(0).sqrt()
    return torch.where(ee < pp, (root - ep) / pp, torch.zeros_like(ee)).clamp(0, 1)


def fuse(estimate: Tensor, prior: Tensor, fidelity: float | Tensor) -> Tensor:
    """One face out of estimate and prior.

    Args:
        estimate: (N,3,S,S) RGB.
        prior: (N,3,S,S) RGB.
        fidelity: 0 gives the prior in the estimate's colours; 0.5 the estimate where it is sharp, and where it is not,
            filled up and half replaced by the prior; 1 the estimate alone; other numbers what lies between. A number,
            or (N,) one per face.

    Returns:
        (N,3,S,S) RGB, not clamped.
    """
    fidelity = torch.as_tensor(fidelity, dtype=estimate.dtype, device=estimate.device).view(-1, 1, 1, 1)
    from_estimate, from_prior = pyramid(estimate), pyramid(prior)
    trust, fill = (2 * fidelity).clamp(max=1), (2 - 2 * fidelity).clamp(max=1)
    joined, unsure = [], None
    for e, p in zip(from_estimate[:-1], from_prior[:-1], strict=True):
        # A measured number: a gradient through it would reward estimate for being weak.
        gain = fill_gain(e.detach(), p.detach())
        filled = e + fill * gain * p
        # Where the photo lacks an octave, the next one is there but less certain.
        unsure = gain if unsure is None else torch.maximum(gain, HANDED_ON * F.avg_pool2d(unsure, 2))
        share = 1 - trust + trust * (1 - fidelity).clamp(max=0.5) * unsure  # of the prior
        joined.append(filled + share * (p - filled))
    return collapse([*joined, from_estimate[-1]])
