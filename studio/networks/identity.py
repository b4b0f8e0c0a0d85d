"""The identity network: dlib's face recognition ResNet (Davis E. King, "dlib_face_recognition_resnet_model_v1").

A 29-layer residual network trained with a metric loss: two aligned photographs of one person lie closer than 0.6.
dlib follows every convolution by a per-channel affine step; here it is folded into the convolution, so that one
block is two convolutions and a sum.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.errors import InputError
from studio.networks.loading import StrictModel

MEAN = (122.782, 117.001, 104.298)  # RGB of 0..255, as stored in dlib's file
SCALE = 256.0


class Block(nn.Module):
    """Two 3x3 convolutions and a skip; a `down` block halves the size without padding."""

    def __init__(self, channels_in: int, channels_out: int, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=2 if down else 1, padding=0 if down else 1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels_in, H, W) -> (N, channels_out, H', W')."""
        y = self.conv2(F.relu(self.conv1(x)))
        if self.down:
            x = F.avg_pool2d(x, 2)
        return F.relu(padded_sum(x, y))


def padded_sum(a: Tensor, b: Tensor) -> Tensor:
    """Sum of two maps (N,C,H,W) whose C, H and W may differ: the smaller is filled with zeros, at the end."""
    if a.shape == b.shape:
        return a + b
    c, h, w = (max(m, n) for m, n in zip(a.shape[1:], b.shape[1:], strict=True))
    a, b = (F.pad(x, (0, w - x.shape[3], 0, h - x.shape[2], 0, c - x.shape[1])) for x in (a, b))
    return a + b


class IdentityNet(StrictModel):
    """Aligned face -> identity vector. Frozen everywhere; gradients flow through to the picture.

    Args:
        size: side of the input.
        channels: width of each stage; every stage but the first halves the size.
        depths: blocks in each stage.
        embedding_dim: length of the vector.
    """

    @register_to_config
    def __init__(
        self,
        size: int = 150,
        channels: tuple[int, ...] = (32, 64, 128, 256, 256),
        depths: tuple[int, ...] = (3, 4, 3, 3, 1),
        embedding_dim: int = 128,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels[0], 7, stride=2)
        before = (channels[0], *channels[:-1])
        self.stages: Any = nn.ModuleList(
            nn.Sequential(*(Block(c_in if j == 0 else c_out, c_out, i > 0 and j == 0) for j in range(depth)))
            for i, (c_in, c_out, depth) in enumerate(zip(before, channels, depths, strict=True))
        )
        self.embed = nn.Linear(channels[-1], embedding_dim, bias=False)

    def features(self, x: Tensor) -> list[Tensor]:
        """The map after each stage, for feature losses.

        Args:
            x: (N,3,size,size) RGB in [0,1], a chip as `studio.faces.align.dlib_transform` places it.

        Returns:
            One map per stage; with the real network (N,32,35,35), (N,64,17,17), (N,128,8,8), (N,256,4,4)
            and (N,256,2,2), all after a ReLU.

        Raises:
            InputError: another shape.
        """
        size = self.config.size
        if x.ndim != 4 or x.shape[1:] != (3, size, size):
            raise InputError(f"chips must be (N,3,{size},{size}), got {tuple(x.shape)}: align the faces first")
        mean = torch.tensor(MEAN, dtype=x.dtype, device=x.device)[:, None, None]
        x = F.max_pool2d(F.relu(self.stem((x * 255 - mean) / SCALE)), 3, stride=2)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Chips (N,3,size,size) RGB in [0,1] -> vectors (N,embedding_dim), not normalised (length about 1.4)."""
        return self.embed(self.features(x)[-1].mean((2, 3)))
