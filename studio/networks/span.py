"""SPAN (arXiv 2311.12770): a small, fast network that draws a picture four times larger.

Its attention has no parameters: a block's result is weighted by an odd function of itself. The published training code
holds each 3x3 convolution as a sum of several; here they are one, as in the files made for use.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.networks.loading import StrictModel

MEAN = (0.4488, 0.4371, 0.404)  # RGB of the photographs it was trained on
RANGE = 255.0


class AttentionBlock(nn.Module):
    """Three convolutions; their result, with the input added, times `sigmoid - 1/2` of the result."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, width, H, W) -> the result and the first activation, both of that shape."""
        first = F.silu(self.conv1(x))
        last = self.conv3(F.silu(self.conv2(first)))
        return (last + x) * (torch.sigmoid(last) - 0.5), first


class SPAN(StrictModel):
    """Picture -> the same four times as large.

    Args:
        width: channels of the maps.
        blocks: how many attention blocks, 2 at least.
    """

    scale = 4

    @register_to_config
    def __init__(self, width: int = 48, blocks: int = 6) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.conv_first = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.ModuleList(AttentionBlock(width) for _ in range(blocks))
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        self.conv_join = nn.Conv2d(4 * width, width, 1)
        self.conv_last = nn.Conv2d(width, 3 * self.scale**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N,3,H,W) RGB in [0,1] -> (N,3,4H,4W), about [0,1]."""
        start = self.conv_first((x - self.mean) * RANGE)
        x, results, firsts = start, [], []
        for block in self.body:
            x, first = block(x)
            results.append(x)
            firsts.append(first)
        joined = self.conv_join(torch.cat((start, self.conv_body(x), results[0], firsts[-1]), 1))
        return F.pixel_shuffle(self.conv_last(joined), self.scale)
