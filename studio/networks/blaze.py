"""Blocks of the MediaPipe face networks (BlazeFace, arXiv 1907.05047; Face Mesh, 1907.06724; Iris, 2006.11341).

Every block is "depthwise 3x3, pointwise 1x1, add the input, activate". A block that halves the size adds the
max-pooled input; a block that widens adds the input with zero channels appended. TensorFlow's "SAME" padding puts
the odd pixel at the bottom and right, which a plain torch convolution cannot do, hence `same`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pads (N,C,H,W) with zeros the way TensorFlow's "SAME" does for a square kernel."""
    pads = []
    for size in (x.shape[-1], x.shape[-2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads) if any(pads) else x


class SameConv(nn.Conv2d):
    """A convolution with bias and "SAME" padding. A symmetric case is left to the convolution, which is faster."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(c_in, c_out, kernel, stride, padding=padding, groups=groups)

    def forward(self, input: Tensor) -> Tensor:
        """(N,c_in,H,W) -> (N,c_out,ceil(H/stride),ceil(W/stride))."""
        return super().forward(input if self.stride[0] == 1 else same(input, self.kernel_size[0], self.stride[0]))


def depthwise(channels: int, stride: int = 1) -> SameConv:
    """3x3, one filter per channel."""
    return SameConv(channels, channels, 3, stride, groups=channels)


def activation(channels: int, prelu: bool) -> nn.Module:
    """PReLU with one slope per channel, or ReLU."""
    return nn.PReLU(channels) if prelu else nn.ReLU()


def shortcut(x: Tensor, channels: int, stride: int) -> Tensor:
    """The input of a block, brought to the size and channels of its output (never fewer channels)."""
    if stride == 2:
        x = F.max_pool2d(x, 2)
    return F.pad(x, (0, 0, 0, 0, 0, channels - x.shape[1])) if channels > x.shape[1] else x


class Residual(nn.Module):
    """`body(x) + shortcut(x)`, activated; (N,c_in,H,W) -> (N,c_out,H/stride,W/stride)."""

    def __init__(self, body: nn.Sequential, c_out: int, stride: int, prelu: bool) -> None:
        super().__init__()
        self.body = body
        self.act = activation(c_out, prelu)
        self.c_out, self.stride = c_out, stride

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        return self.act(self.body(x) + shortcut(x, self.c_out, self.stride))


def single(c_in: int, c_out: int, stride: int = 1, *, prelu: bool) -> Residual:
    """The BlazeBlock: depthwise, pointwise."""
    return Residual(nn.Sequential(depthwise(c_in, stride), SameConv(c_in, c_out)), c_out, stride, prelu)


def double(c_in: int, c_mid: int, c_out: int, stride: int = 1) -> Residual:
    """The double BlazeBlock: depthwise, squeeze, ReLU, depthwise, expand."""
    body = nn.Sequential(
        depthwise(c_in, stride), SameConv(c_in, c_mid), nn.ReLU(), depthwise(c_mid), SameConv(c_mid, c_out)
    )
    return Residual(body, c_out, stride, prelu=False)


def bottleneck(c_in: int, c_out: int, stride: int = 1) -> Residual:
    """The iris block: squeeze (2x2 unpadded where it halves), PReLU, depthwise, expand."""
    c_mid = c_out // 2
    squeeze = nn.Conv2d(c_in, c_mid, stride, stride)
    body = nn.Sequential(squeeze, nn.PReLU(c_mid), depthwise(c_mid), SameConv(c_mid, c_out))
    return Residual(body, c_out, stride, prelu=True)
