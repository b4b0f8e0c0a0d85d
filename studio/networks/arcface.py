"""ArcFace (arXiv 1801.07698): an improved ResNet of 100 layers that says who somebody is, in 512 numbers.

Batch normalization behind a convolution or a matrix is part of it here, as in files made for use.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.networks.loading import StrictModel


class Block(nn.Module):
    """Normalization, two convolutions and a skip; `down` halves the size."""

    def __init__(self, channels_in: int, channels_out: int, down: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.act = nn.PReLU(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, stride=2 if down else 1, padding=1)
        self.skip = nn.Conv2d(channels_in, channels_out, 1, stride=2) if down else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels_in, H, W) -> (N, channels_out, H', W')."""
        y = self.conv2(self.act(self.conv1(self.norm(x))))
        return y + (x if self.skip is None else self.skip(x))


class ArcFaceNet(StrictModel):
    """Aligned face -> identity vector.

    Args:
        size: side of the input in pixels.
        widths: channels of each stage; every stage halves the size.
        depths: blocks in each stage.
        embedding_dim: length of the vector.
    """

    @register_to_config
    def __init__(
        self,
        size: int = 112,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        depths: tuple[int, ...] = (3, 13, 30, 3),
        embedding_dim: int = 512,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        self.act = nn.PReLU(widths[0])
        before = (widths[0], *widths[:-1])
        self.stages: Any = nn.ModuleList(
            nn.Sequential(*(Block(c_in if i == 0 else c_out, c_out, i == 0) for i in range(depth)))
            for c_in, c_out, depth in zip(before, widths, depths, strict=True)
        )
        side = size // 2 ** len(widths)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.embed = nn.Linear(widths[-1] * side * side, embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N,3,size,size) RGB in [-1,1], aligned by five points (`align.arcface_transform`) -> (N, embedding_dim)."""
        x = self.act(self.stem(x))
        for stage in self.stages:
            x = stage(x)
        return self.embed(self.norm(x).flatten(1))

    def unit(self, crops: Tensor) -> Tensor:
        """Aligned crops (N,3,size,size) RGB in [0,1] -> unit vectors (N, embedding_dim) float32."""
        return F.normalize(self(2 * crops - 1).float(), dim=1)
