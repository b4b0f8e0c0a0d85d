"""Real-ESRGAN's generator (arXiv 2107.10833): the residual-in-residual dense blocks of ESRGAN (1809.00219).

Tensors have the names of the published `RealESRGAN_x4plus.pth`, so that file fits as it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.networks.loading import StrictModel

SLOPE = 0.2  # of every leaky ReLU
RESIDUAL = 0.2  # share of what a block adds


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the input and all earlier results."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4 = (
            nn.Conv2d(width + i * growth, growth, 3, padding=1) for i in range(4)
        )
        self.conv5 = nn.Conv2d(width + 4 * growth, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> the same shape."""
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat((seen, F.leaky_relu(conv(seen), SLOPE, inplace=not torch.is_grad_enabled())), 1)
        return x + RESIDUAL * self.conv5(seen)


class TripleBlock(nn.Module):
    """Three dense blocks and a skip around them."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(width, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> the same shape."""
        return x + RESIDUAL * self.rdb3(self.rdb2(self.rdb1(x)))


class RRDBNet(StrictModel):
    """Picture -> the same four times as large, without noise, blur and JPEG blocks.

    Args:
        width: channels of the maps.
        growth: channels that each convolution of a dense block adds.
        blocks: how many triple blocks.
    """

    scale = 4

    @register_to_config
    def __init__(self, width: int = 64, growth: int = 32, blocks: int = 23) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(*(TripleBlock(width, growth) for _ in range(blocks)))
        self.conv_body, self.conv_up1, self.conv_up2, self.conv_hr = (
            nn.Conv2d(width, width, 3, padding=1) for _ in range(4)
        )
        self.conv_last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N,3,H,W) RGB in [0,1] -> (N,3,4H,4W), about [0,1]."""
        first = self.conv_first(x)
        x = first + self.conv_body(self.body(first))
        for conv in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2.0, mode="nearest")), SLOPE)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), SLOPE))
