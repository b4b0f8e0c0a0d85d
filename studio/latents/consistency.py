"""Whether a picture shrinks to a small one: how far it is from that, and how it is made to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from studio import images

FACE_CENTRE, FACE_RADII = (0.5, 0.56), (0.28, 0.38)  # (x, y), shares of the side of an aligned picture


def downscale_error(pictures: Tensor, target: Tensor) -> Tensor:
    """Mean squared error between shrunk pictures and a small one (PULSE's downscaling loss).

    Args:
        pictures: (N,3,S,S) RGB in [0,1].
        target: (3,h,h) or (N,3,h,h) RGB in [0,1].

    Returns:
        (N,) mean of squared differences over pixels and channels, after bicubic antialiased shrinking.
    """
    shrunk = images.resize(pictures, *target.shape[-2:])
    return (shrunk - target).square().flatten(1).mean(1)


def face_error(pictures: Tensor, target: Tensor) -> Tensor:
    """`downscale_error` inside the ellipse in which aligned faces lie; the background is often not a face's to draw.

    Args:
        pictures: (N,3,S,S) RGB in [0,1], FFHQ-aligned.
        target: (3,h,h) RGB in [0,1].

    Returns:
        (N,) mean of squared differences over the pixels of the ellipse, and channels.
    """
    side = target.shape[-1]
    middle = (torch.arange(side, device=target.device) + 0.5) / side
    (x, y), (a, b) = FACE_CENTRE, FACE_RADII
    inside = ((middle - x) / a).square() + ((middle[:, None] - y) / b).square() <= 1  # (h, h)
    difference = images.resize(pictures, side, side) - target
    return difference.square()[..., inside].flatten(1).mean(1)


def back_project(pictures: Tensor, target: Tensor, steps: int = 4) -> Tensor:
    """Make pictures shrink to a small one: add the enlarged rest, again and again (Irani and Peleg 1991).

    Enlarging and then shrinking weakens fine detail, so that the rest goes through the inverse of both first (their
    back-projection kernel): one step would do, but for values that leave [0,1]. What the prior cannot draw, a
    background mostly, is thereby laid over the picture as blurred as the small one shows it. No detail is found by
    this; the search has to bring that.

    Args:
        pictures: (N,C,S,S) in [0,1].
        target: (C,h,h) in [0,1].
        steps: how often.

    Returns:
        (N,C,S,S) in [0,1].
    """
    size, small = pictures.shape[-1], target.shape[-1]
    up, down = (resizing(*sides).to(pictures.device) for sides in ((small, size), (size, small)))
    spread = (torch.linalg.inv(up @ down) @ up).to(pictures)  # a row, undone and enlarged: (small, size)
    for _ in range(steps):
        rest = target - images.resize(pictures, small, small)
        pictures = (pictures + spread.T @ rest @ spread).clamp(0, 1)
    return pictures


def resizing(before: int, after: int) -> Tensor:
    """Bicubic antialiased resizing of rows as a matrix (before,after) float64: row @ matrix, not cut to [0,1]."""
    rows = torch.eye(before, dtype=torch.float64)[None, None]
    return F.interpolate(rows, (before, after), mode="bicubic", antialias=True, align_corners=False)[0, 0]
