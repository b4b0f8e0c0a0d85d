"""Variety that the training faces lack: other proportions, tilts, framings and colours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

BEND = 0.02  # of the side, standard deviation of the elastic field
TURN, ZOOM, SHIFT = 0.10, 0.07, 0.03  # radians, share, share of the side; standard deviations
GAIN, GAMMA = 0.12, 0.2  # of each colour channel, of all


def warp(faces: Tensor, rng: Generator, amount: float = 1.0) -> Tensor:
    """Turn, zoom, shift and bend faces, each in its own way.

    Args:
        faces: (N,3,S,S).
        rng: a CPU generator.
        amount: of the change; 0 gives the faces back.

    Returns:
        (N,3,S,S); what comes in from outside repeats the border.
    """
    count, side = len(faces), faces.shape[2]
    drawn = torch.randn(count, 5, generator=rng).clamp(-2, 2) * amount
    bend = torch.randn(count, 2, 5, 5, generator=rng).clamp(-2, 2) * (2 * BEND * amount)
    angle, zoom = TURN * drawn[:, 0], torch.exp(ZOOM * drawn[:, 1])
    stretch, shift = torch.exp(0.5 * ZOOM * drawn[:, 2]), 2 * SHIFT * drawn[:, 3:]
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    matrix = torch.stack(
        [torch.stack([cos * stretch, -sin, shift[:, 0]], 1), torch.stack([sin, cos / stretch, shift[:, 1]], 1)], 1
    )
    grid = F.affine_grid(matrix, [count, 1, side, side], align_corners=False)
    field = F.interpolate(bend, size=(side, side), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    return F.grid_sample(faces, grid + field, mode="bilinear", padding_mode="reflection", align_corners=False)


def recolour(faces: Tensor, rng: Generator) -> Tensor:
    """Another light: a gain for each channel and a gamma for all, (N,3,S,S) in [0,1] to the same."""
    count = len(faces)
    gain = torch.exp(GAIN * torch.randn(count, 3, 1, 1, generator=rng).clamp(-2, 2))
    gamma = torch.exp(GAMMA * torch.randn(count, 1, 1, 1, generator=rng).clamp(-2, 2))
    return (faces.clamp(1e-4, 1) ** gamma * gain).clamp(0, 1)
