"""Parts that CodeFormer and RestoreFormer share: blocks of a VQGAN (arXiv 2012.09841), and the look-up of codes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def normalize(channels: int) -> nn.GroupNorm:
    """Group normalization, in groups of a 32nd of the channels."""
    return nn.GroupNorm(min(32, channels), channels, eps=1e-6)


class ResBlock(nn.Module):
    """Two convolutions and a skip.

    Args:
        channels_in: see `forward`.
        channels_out: see `forward`.
        shortcut: name of the skip's convolution, where the channels change: published files differ in it.
    """

    def __init__(self, channels_in: int, channels_out: int, shortcut: str) -> None:
        super().__init__()
        self.norm1 = normalize(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = normalize(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut = shortcut if channels_in != channels_out else ""
        if self.shortcut:
            self.add_module(shortcut, nn.Conv2d(channels_in, channels_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels_in, H, W) -> (N, channels_out, H, W)."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (self.get_submodule(self.shortcut)(x) if self.shortcut else x)


class Down(nn.Module):
    """Half the size, by a convolution that looks to the right and below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H/2, W/2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Module):
    """Twice the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, 2H, 2W)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int = 1) -> Tensor:
    """Attention among the places of maps (N,C,H,W), with the channels cut into `heads`."""
    n, c, h, w = q.shape
    q, k, v = (x.reshape(n, heads, c // heads, h * w).transpose(2, 3) for x in (q, k, v))  # (N, heads, HW, C/heads)
    return F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(n, c, h, w)


class Codebook(nn.Module):
    """The vectors that a map may consist of."""

    def __init__(self, codes: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, channels)

    def look_up(self, indices: Tensor) -> Tensor:
        """Indices (N, H, W) -> map (N, C, H, W)."""
        return self.embedding(indices).permute(0, 3, 1, 2).contiguous()

    def nearest(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) -> indices (N, H, W) of the nearest vectors."""
        vectors = self.embedding.weight.float()
        places = x.float().permute(0, 2, 3, 1).flatten(0, 2)  # (NHW, C)
        distances = vectors.square().sum(1) - 2 * places @ vectors.T  # but for a term that all have
        return distances.argmin(1).view(x.shape[0], *x.shape[2:])
