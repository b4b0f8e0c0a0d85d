"""Octaves of a picture: Laplacian pyramids (Burt and Adelson, IEEE Trans. Comm. 31(4), 1983)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

BANDS = 5
KERNEL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def blur(x: Tensor) -> Tensor:
    """Binomial 5-tap blur along both sides, (N,C,H,W), edges repeated."""
    taps = x.new_tensor(KERNEL)
    c = x.shape[1]
    x = F.pad(x, (2, 2, 2, 2), mode="replicate")
    x = F.conv2d(x, taps.view(1, 1, 1, 5).expand(c, -1, -1, -1), groups=c)
    return F.conv2d(x, taps.view(1, 1, 5, 1).expand(c, -1, -1, -1), groups=c)


def double(x: Tensor) -> Tensor:
    """Twice the size, bilinear."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def pyramid(x: Tensor, bands: int = BANDS) -> list[Tensor]:
    """Laplacian pyramid: `bands` band-pass maps, finest first, then the low-pass rest.

    Args:
        x: (N,C,S,S), S divisible by 2^bands.
        bands: how many octaves.
    """
    levels = []
    for _ in range(bands):
        small = F.avg_pool2d(x, 2)
        levels.append(x - double(small))
        x = small
    return [*levels, x]


def collapse(levels: list[Tensor]) -> Tensor:
    """The image of a pyramid."""
    x = levels[-1]
    for level in reversed(levels[:-1]):
        x = level + double(x)
    return x


def local_mean(x: Tensor) -> Tensor:
    """Mean over a neighbourhood of about nine pixels, (N,C,H,W) -> (N,1,H,W)."""
    return blur(blur(x.mean(1, keepdim=True)))
