"""The colour of irises: what a family notices first when a restored face looks like somebody else."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from studio.metrics.image import srgb_to_lab

RADIUS = 0.19  # of an iris, in distances of the eye's corners: 11.7 mm of an opening of about 30
RING = 0.35, 0.9  # of the radius: outside of the pupil, inside of the dark rim
UPPER = -0.3  # of the radius: what lies above is the lid's, and its shadow's


def iris_colours(images: Tensor, centres: np.ndarray, widths: np.ndarray) -> Tensor:
    """The median colour of the ring of each iris.

    Args:
        images: (N,3,H,W) RGB in [0,1].
        centres: (N,2,2) x and y of both irises in pixels.
        widths: (N,2) distances of each eye's corners in pixels.

    Returns:
        (N,2,3) CIE Lab; NaN where the ring holds no pixel.
    """
    height, width = images.shape[2:]
    y, x = np.mgrid[:height, :width]
    colours = srgb_to_lab(images.float().clamp(0, 1)).permute(0, 2, 3, 1)
    found = torch.full((len(images), 2, 3), torch.nan)
    for i, j in np.ndindex(len(images), 2):
        radius = RADIUS * widths[i, j]
        dx, dy = ((x - centres[i, j, 0]) / radius, (y - centres[i, j, 1]) / radius)
        away = np.hypot(dx, dy)
        ring = torch.from_numpy((away > RING[0]) & (away < RING[1]) & (dy > UPPER))
        if ring.any():
            found[i, j] = colours[i][ring].median(0).values.cpu()
    return found


def iris_error(colours: Tensor, targets: Tensor) -> Tensor:
    """How far irises (N,2,3) in Lab are from the originals': the CIE 1976 difference, the mean of both, (N,)."""
    return (colours - targets).square().sum(2).sqrt().mean(1)


def iris_mismatch(colours: Tensor) -> Tensor:
    """How far the two irises of a face are from each other: the CIE 1976 difference of (N,2,3) Lab, (N,)."""
    return (colours[:, 0] - colours[:, 1]).square().sum(1).sqrt()
