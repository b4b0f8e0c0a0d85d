"""GFPGAN, the clean architecture of versions 1.2 to 1.4 (arXiv 2101.04061): a U-Net that steers a StyleGAN2 generator.

The U-Net gives a latent for every layer of the generator, and a scale and shift for half of the channels at each size
(channel-split spatial feature transform). Tensors have the published names. Noise maps are those stored in the file,
so that a face is restored the same every time.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.networks.face_restorer import with_photo
from studio.networks.loading import StrictModel

SLOPE = 0.2
WIDTHS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32, 1024: 16}  # x multiplier above 32 px
EPSILON = 1e-8


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU."""
    return F.leaky_relu(x, SLOPE)


def rescaled(x: Tensor, factor: float) -> Tensor:
    """Half or twice the size, bilinear."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class ResBlock(nn.Module):
    """Two convolutions and a skip, which halve (`factor` 0.5) or double (2.0) the size."""

    def __init__(self, channels_in: int, channels_out: int, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.conv1 = nn.Conv2d(channels_in, channels_in, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.skip = nn.Conv2d(channels_in, channels_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels_in, H, W) -> (N, channels_out, H·factor, W·factor)."""
        y = leaky(self.conv2(rescaled(leaky(self.conv1(x)), self.factor)))
        return y + self.skip(rescaled(x, self.factor))


class ModulatedConv(nn.Module):
    """A convolution whose input channels are scaled by a latent (StyleGAN2, arXiv 1912.04958, section 2.2)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, latent_dim: int, *, demodulate: bool) -> None:
        super().__init__()
        self.demodulate = demodulate
        self.modulation = nn.Linear(latent_dim, channels_in)
        self.weight = nn.Parameter(
            torch.randn(1, channels_out, channels_in, kernel, kernel) / math.sqrt(channels_in * kernel**2)
        )
        nn.init.ones_(self.modulation.bias)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """(N, channels_in, H, W) and (N, latent_dim) -> (N, channels_out, H, W)."""
        scale = self.modulation(latent)  # (N, channels_in)
        y = F.conv2d(x * scale[:, :, None, None], self.weight[0], padding=self.weight.shape[-1] // 2)
        if not self.demodulate:
            return y
        # The norm of the scaled weights: sums over kernel and input of (w s)^2, in float32 also where the net is not.
        energy = self.weight[0].float().square().sum((2, 3))  # (channels_out, channels_in)
        norm = torch.rsqrt(scale.float().square() @ energy.T + EPSILON)  # (N, channels_out)
        return y * norm[:, :, None, None].to(y.dtype)


class StyleConv(nn.Module):
    """Modulated convolution, stored noise, bias and activation."""

    def __init__(self, channels_in: int, channels_out: int, latent_dim: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.modulated_conv = ModulatedConv(channels_in, channels_out, 3, latent_dim, demodulate=True)
        self.weight = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(1, channels_out, 1, 1))

    def forward(self, x: Tensor, latent: Tensor, noise: Tensor) -> Tensor:
        """(N, channels_in, H, W) -> (N, channels_out, H, W), twice the size where it goes up."""
        x = self.modulated_conv(rescaled(x, 2.0) if self.up else x, latent) * math.sqrt(2)
        return leaky(x + self.weight * noise + self.bias)


class ToRGB(nn.Module):
    """A picture read off the features, added to the one of half the size."""

    def __init__(self, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.modulated_conv = ModulatedConv(channels, 3, 1, latent_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, latent: Tensor, smaller: Tensor | None) -> Tensor:
        """(N, channels, H, W) -> (N, 3, H, W)."""
        picture = self.modulated_conv(x, latent) + self.bias
        return picture if smaller is None else picture + rescaled(smaller, 2.0)


class Constant(nn.Module):
    """What the generator begins with."""

    def __init__(self, channels: int, size: int = 4) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, channels, size, size))


class Decoder(nn.Module):
    """StyleGAN2 with bilinear upsampling; half of its channels take a scale and a shift at each size."""

    def __init__(self, widths: list[int], latent_dim: int, mapping_depth: int) -> None:
        super().__init__()
        # Not used here, but in the published file: latents come from the U-Net.
        self.style_mlp = nn.ModuleDict(
            {str(2 * i + 1): nn.Linear(latent_dim, latent_dim) for i in range(mapping_depth)}
        )
        self.constant_input = Constant(widths[0])
        self.style_conv1 = StyleConv(widths[0], widths[0], latent_dim, up=False)
        self.to_rgb1 = ToRGB(widths[0], latent_dim)
        self.style_convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for before, width in itertools.pairwise(widths):
            self.style_convs.append(StyleConv(before, width, latent_dim, up=True))
            self.style_convs.append(StyleConv(width, width, latent_dim, up=False))
            self.to_rgbs.append(ToRGB(width, latent_dim))
        self.noises = nn.Module()
        for i in range(2 * len(widths) - 1):
            side = 4 * 2 ** ((i + 1) // 2)
            self.noises.register_buffer(f"noise{i}", torch.randn(1, 1, side, side))

    def forward(self, latents: Tensor, conditions: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Latents (N, layers, D) and a (scale, shift) for each size above 4 px -> (N, 3, S, S) in about [-1,1]."""
        noise = [getattr(self.noises, f"noise{i}") for i in range(2 * len(conditions) + 1)]
        x = self.constant_input.weight.expand(len(latents), -1, -1, -1)
        x = self.style_conv1(x, latents[:, 0], noise[0])
        picture = self.to_rgb1(x, latents[:, 1], None)
        for i, ((scale, shift), to_rgb) in enumerate(zip(conditions, self.to_rgbs, strict=True)):
            layer = 2 * i + 1
            x = self.style_convs[2 * i](x, latents[:, layer], noise[layer])
            kept, steered = x.chunk(2, 1)
            x = torch.cat((kept, steered * scale + shift), 1)
            x = self.style_convs[2 * i + 1](x, latents[:, layer + 1], noise[layer + 1])
            picture = to_rgb(x, latents[:, layer + 2], picture)
        return picture


class GFPGAN(StrictModel):
    """Aligned face -> restored face.

    Args:
        size: side of the face, a power of two.
        widths: channels at 4, 8, 16, ... px, of the generator; the U-Net has half of them.
        latent_dim: length of a latent.
        mapping_depth: linear layers of the generator's own mapping, which is in the file but not used.
    """

    template = "facexlib"
    fidelity_means = "up to 0.5 the network's own picture, at 1 half of the photo mixed in"

    @register_to_config
    def __init__(
        self,
        size: int = 512,
        widths: tuple[int, ...] = (512, 512, 512, 512, 512, 256, 128, 64),
        latent_dim: int = 512,
        mapping_depth: int = 8,
    ) -> None:
        super().__init__()
        narrow = [width // 2 for width in widths]
        levels = len(widths) - 1
        down = narrow[::-1]  # from the whole picture to 4 px
        self.conv_body_first = nn.Conv2d(3, down[0], 1)
        self.conv_body_down = nn.ModuleList(ResBlock(down[i], down[i + 1], 0.5) for i in range(levels))
        self.final_conv = nn.Conv2d(narrow[0], narrow[0], 3, padding=1)
        self.conv_body_up = nn.ModuleList(ResBlock(narrow[i], narrow[i + 1], 2.0) for i in range(levels))
        self.toRGB = nn.ModuleList(nn.Conv2d(width, 3, 1) for width in narrow[1:])  # only training looked at these
        self.final_linear = nn.Linear(narrow[0] * 16, 2 * len(widths) * latent_dim)
        self.stylegan_decoder = Decoder(list(widths), latent_dim, mapping_depth)
        self.condition_scale, self.condition_shift = (
            nn.ModuleList(
                nn.Sequential(
                    nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(SLOPE), nn.Conv2d(width, width, 3, padding=1)
                )
                for width in narrow[1:]
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N,3,size,size) RGB in [-1,1], aligned by the template -> the same, restored, in about [-1,1]."""
        x = leaky(self.conv_body_first(x))
        skips = []
        for block in self.conv_body_down:
            x = block(x)
            skips.append(x)
        x = leaky(self.final_conv(x))
        latents = self.final_linear(x.flatten(1)).unflatten(1, (-1, self.config.latent_dim))
        conditions = []
        for block, scale, shift in zip(self.conv_body_up, self.condition_scale, self.condition_shift, strict=True):
            x = block(x + skips.pop())
            conditions.append((scale(x), shift(x)))
        return self.stylegan_decoder(latents, conditions)

    def restore(self, crops: Tensor, fidelity: Tensor) -> Tensor:
        """See `studio.networks.face_restorer.FaceRestorer`."""
        return with_photo(self(2 * crops - 1) / 2 + 0.5, crops, fidelity)
