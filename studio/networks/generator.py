"""The face prior: MobileStyleGAN for FFHQ faces at 1024 px (Belousov, arXiv 2104.04767).

A mapping network turns Gaussian noise z into a latent w. The synthesis network grows a learned 4 px constant to
1024 px in seven blocks; each block doubles the size with an inverse Haar wavelet step (the paper's section 3.2)
followed by two depthwise-separable convolutions whose input is scaled by the latent. Demodulation is a constant
here and already part of the pointwise weights.

One latent per layer ("W+") is a tensor of 16 style layers: the first convolution, two for each of the seven blocks
(the wavelet step shares that of the block's first convolution), and the image head.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.errors import InputError
from studio.networks.loading import StrictModel

SLOPE = 0.2


class Mapping(nn.Module):
    """z (N,512) -> w (N,512): pixel norm, then linear layers with LeakyReLU and gain sqrt(2)."""

    def __init__(self, dim: int, depth: int) -> None:
        super().__init__()
        self.layers: Any = nn.ModuleList(nn.Linear(dim, dim) for _ in range(depth))

    def forward(self, z: Tensor) -> Tensor:
        """Noise (N,512) to latents (N,512)."""
        w = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for layer in self.layers:
            w = F.leaky_relu(layer(w), SLOPE) * math.sqrt(2)
        return w


class Modulation(nn.Module):
    """Latent -> one factor per input channel, w (N,512) -> (N,C)."""

    def __init__(self, style_dim: int, channels: int, scale: float) -> None:
        super().__init__()
        self.linear = nn.Linear(style_dim, channels)
        self.scale = scale

    def forward(self, w: Tensor) -> Tensor:
        """Latent (N,512) to factors (N,C)."""
        return self.scale * self.linear(w)


class FirstConv(nn.Module):
    """The only full 3x3 convolution: modulated, at 4 px."""

    noise: Tensor

    def __init__(self, style_dim: int, channels: int, size: int) -> None:
        super().__init__()
        self.modulation = Modulation(style_dim, channels, 1 / math.sqrt(channels * 9))
        self.weight = nn.Parameter(torch.zeros(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("noise", torch.zeros(1, 1, size, size))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map (N,C,4,4) and latent (N,512) to a map of the same shape."""
        x = x * self.modulation(w)[:, :, None, None]
        return F.leaky_relu_(F.conv2d(x, self.weight, self.bias, padding=1).add_(self.noise), SLOPE)


class StyledConv(nn.Module):
    """Modulated depthwise 3x3, pointwise, fixed noise, bias, LeakyReLU."""

    noise: Tensor

    def __init__(self, style_dim: int, channels_in: int, channels_out: int, size: int) -> None:
        super().__init__()
        self.modulation = Modulation(style_dim, channels_in, 1 / math.sqrt(channels_in * 9))
        self.depthwise = nn.Parameter(torch.zeros(channels_in, 1, 3, 3))
        self.pointwise = nn.Parameter(torch.zeros(channels_out, channels_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        self.register_buffer("noise", torch.zeros(1, 1, size, size))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map (N,C,H,W) and latent (N,512) to (N,C_out,H,W)."""
        factor = self.modulation(w)  # (N, C)
        if len(x) == 1:
            # One face: the factor goes into the small kernel instead of over the whole map.
            kernel = self.depthwise * factor[0, :, None, None, None]
        else:
            x, kernel = x * factor[:, :, None, None], self.depthwise
        x = F.conv2d(x, kernel, padding=1, groups=x.shape[1])
        x = F.conv2d(x, self.pointwise, self.bias)
        return F.leaky_relu_(x.add_(self.noise), SLOPE)


class Block(nn.Module):
    """Modulate, inverse Haar (doubles the size, quarters the channels), two styled convolutions."""

    def __init__(self, style_dim: int, channels_in: int, channels_out: int, size: int) -> None:
        super().__init__()
        self.up = Modulation(style_dim, channels_in, 1.0)
        self.conv1 = StyledConv(style_dim, channels_in // 4, channels_out, size)
        self.conv2 = StyledConv(style_dim, channels_out, channels_out, size)

    def forward(self, x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
        """Map (N,C,H,W) and its two latents to (N,C_out,2H,2W)."""
        x = inverse_haar(x, self.up(w1))
        return self.conv2(self.conv1(x, w1), w2)


def inverse_haar(x: Tensor, factor: Tensor | None = None) -> Tensor:
    """One inverse Haar step on a modulated map, (N,4C,H,W) -> (N,C,2H,2W).

    The four bands of one output channel (ll, lh, hl, hh) lie beside each other, so that the step is one grouped
    transposed convolution: each output channel is the sum of its bands times a fixed 2x2 pattern.

    Args:
        x: the bands.
        factor: (N,4C) modulation, or None.
    """
    if x.dtype == torch.bfloat16 and x.device.type == "cpu":
        return inverse_haar_by_sums(x, factor)
    patterns = x.new_tensor([[[1, 1], [1, 1]], [[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]]])
    kernel = (patterns * 0.5)[:, None].repeat(x.shape[1] // 4, 1, 1, 1)  # (4C, 1, 2, 2)
    if factor is not None and len(x) == 1:
        kernel = kernel * factor[0, :, None, None, None]
    elif factor is not None:
        x = x * factor[:, :, None, None]
    return F.conv_transpose2d(x, kernel, stride=2, groups=x.shape[1] // 4)


def inverse_haar_by_sums(x: Tensor, factor: Tensor | None = None) -> Tensor:
    """`inverse_haar` as sums: five times as quick on a CPU in bfloat16, which has no grouped transposed convolution."""
    factor = x.new_full((1, x.shape[1]), 0.5) if factor is None else 0.5 * factor
    bands = (x * factor[:, :, None, None]).permute(0, 2, 3, 1).unflatten(3, (-1, 4))  # (N, H, W, C, 4)
    ll, lh, hl, hh = bands.permute(4, 0, 1, 2, 3).contiguous()
    rows, tilt, columns, cross = ll + lh, ll - lh, hl + hh, hl - hh
    top = torch.stack([rows + columns, rows - columns], 3)  # (N, H, W, 2, C)
    bottom = torch.stack([tilt + cross, tilt - cross], 3)
    return torch.stack([top, bottom], 2).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class Generator(StrictModel):
    """The face prior, frozen in every pipeline.

    Args:
        channels: width before the first block and after each block; seven blocks reach 1024 px.
        style_dim: length of z and of one latent w.
        mapping_depth: number of mapping layers.
    """

    @register_to_config
    def __init__(
        self,
        channels: tuple[int, ...] = (512, 512, 512, 512, 512, 256, 128, 64),
        style_dim: int = 512,
        mapping_depth: int = 8,
    ) -> None:
        super().__init__()
        self.num_blocks = len(channels) - 1
        self.num_slots = 2 * self.num_blocks + 2
        self.image_size = 4 * 2 ** (self.num_blocks + 1)
        self.mapping = Mapping(style_dim, mapping_depth)
        self.constant = nn.Parameter(torch.zeros(1, channels[0], 4, 4))
        self.first = FirstConv(style_dim, channels[0], 4)
        self.blocks: Any = nn.ModuleList(
            Block(style_dim, channels[i], channels[i + 1], 8 * 2**i) for i in range(self.num_blocks)
        )
        self.to_image_modulation = Modulation(style_dim, channels[-1], 1 / math.sqrt(channels[-1]))
        self.to_image = nn.Conv2d(channels[-1], 12, 1)
        self.register_buffer("mean_latent", torch.zeros(style_dim))

    def latents(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """Noise to latents, pulled towards the mean latent.

        Args:
            z: (N, style_dim) standard normal.
            truncation: 1 keeps the latent, 0 gives the mean face (StyleGAN, arXiv 1812.04948, appendix B).

        Returns:
            w (N, style_dim).
        """
        return self.mean_latent + truncation * (self.mapping(z) - self.mean_latent)

    def slots(self, w: Tensor) -> Tensor:
        """W (N, style_dim) or W+ (N, num_slots, style_dim) -> W+ (N, num_slots, style_dim)."""
        dim = self.config.style_dim
        if w.ndim == 2 and w.shape[1] == dim:
            return w[:, None].expand(-1, self.num_slots, -1)
        if w.ndim == 3 and w.shape[1:] == (self.num_slots, dim):
            return w
        raise InputError(
            f"latents must be (N,{dim}) or (N,{self.num_slots},{dim}), got {tuple(w.shape)}: pass one of the two"
        )

    def features(self, w: Tensor, stop: int) -> Tensor:
        """Run from the constant through the first `stop` blocks.

        Args:
            w: W or W+ latents, see `slots`.
            stop: number of blocks, 0 to `num_blocks`; 3 gives (N,512,32,32).

        Returns:
            The map after that block, (N, channels[stop], 4·2^stop, 4·2^stop).
        """
        if not 0 <= stop <= self.num_blocks:
            raise InputError(f"stop must be between 0 and {self.num_blocks}, got {stop}")
        w = self.slots(w)
        x = self.first(self.constant.expand(len(w), -1, -1, -1), w[:, 0])
        return self.run_blocks(x, w, 0, stop)

    def run_blocks(self, x: Tensor, w: Tensor, start: int, stop: int) -> Tensor:
        """Run blocks `start` to `stop - 1` on the map x; `w` must be W+."""
        for i in range(start, stop):
            x = self.blocks[i](x, w[:, 1 + 2 * i], w[:, 2 + 2 * i])
        return x

    def decode(self, features: Tensor, w: Tensor, start: int) -> Tensor:
        """Finish an image from a map taken after `start` blocks.

        Args:
            features: (N, channels[start], 4·2^start, 4·2^start), as `features(w, start)` returns.
            w: W or W+ latents; only those of the remaining style layers are read.
            start: number of blocks that the map has passed.

        Returns:
            (N,3,image_size,image_size) RGB, about [-1,1], not clamped.
        """
        w = self.slots(w)
        if len(w) > 1 and features.device.type == "cpu" and not torch.is_grad_enabled():
            # A CPU is busy with one face, and one face at a time folds its factors into the kernels.
            return torch.cat([self.decode(features[i : i + 1], w[i : i + 1], start) for i in range(len(w))])
        x = self.run_blocks(features, w, start, self.num_blocks)
        x = x * self.to_image_modulation(w[:, -1])[:, :, None, None]
        return inverse_haar(self.to_image(x))

    def forward(self, w: Tensor) -> Tensor:
        """Latents to images: W or W+ -> (N,3,image_size,image_size) RGB, about [-1,1], not clamped."""
        return self.decode(self.features(w, 0), w, 0)
