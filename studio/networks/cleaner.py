"""What a damaged photograph says for sure: the least-error estimate of it, and how much of each octave that holds.

One small U-Net looks at the photograph itself, at its full size (pixel-unshuffled; Shi et al., arXiv 1609.05158), takes
noise, blocks, halos, screens and scratches away and undoes what blur can be undone. It invents nothing: trained for
the smallest error, it leaves flat what it cannot know. Beside that it says, octave by octave and place by place, which
share of the energy of the true photograph its estimate holds (one minus the Wiener filter's relative error). Where that
is 1 the photograph needs nobody; where it is 0 the prior has to draw. Nothing in it depends on the size of the picture,
so that a large one can be cleaned in tiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.errors import InputError
from studio.imaging.pyramid import pyramid
from studio.networks.loading import StrictModel
from studio.networks.start import silent
from studio.tone import LUMA, luma

STRIDE = 16  # sides are multiples of it
GAINS = (8.0, 4.0)  # of the finest octaves, which are shown to the network as large as the rest
PATTERNS = 8  # of 3x3 pixels, their mean apart
SHRUNK = 3  # octaves whose patterns are shrunk
KEEP = -4.0  # before the sigmoid, what an untrained network says of every pattern: nothing is taken away


class PlainBlock(nn.Module):
    """Norm, 3x3, SiLU, 3x3, sum. Each place is normalised alone, so that a tile is treated as the whole would be."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        silent(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N,C,H,W) to a map of the same shape."""
        y = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x + self.conv2(F.silu(self.conv1(y)))


@dataclass
class Cleaned:
    """What `Cleaner` returns.

    Attributes:
        estimate: (N,3,H,W) float32 RGB, about [0,1], not clamped.
        certainty: (N,O,H/4,W/4) float32 in [0,1], for each of O octaves, finest first, the share of the true octave's
            energy that the estimate holds there.
    """

    estimate: Tensor
    certainty: Tensor


class Cleaner(StrictModel):
    """A photograph to its least-error estimate, and the certainty of its octaves.

    Args:
        widths: channels at 1/4, 1/8 and 1/16 of the size.
        blocks: residual blocks at each of them on the way down, and at the first two on the way up.
        octaves: how many have a certainty.
    """

    @register_to_config
    def __init__(
        self, widths: tuple[int, int, int] = (48, 96, 160), blocks: tuple[int, int, int] = (2, 2, 3), octaves: int = 4
    ) -> None:
        super().__init__()
        w4, w8, w16 = widths
        self.enter = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(3 * 48, w4, 3, padding=1))
        self.fine = nn.Sequential(*(PlainBlock(w4) for _ in range(blocks[0])))
        self.down8 = nn.Conv2d(w4, w8, 2, stride=2)
        self.middle = nn.Sequential(*(PlainBlock(w8) for _ in range(blocks[1])))
        self.down16 = nn.Conv2d(w8, w16, 2, stride=2)
        self.coarse = nn.Sequential(*(PlainBlock(w16) for _ in range(blocks[2])))
        self.up8 = nn.Sequential(nn.Conv2d(w16, 4 * w8, 1), nn.PixelShuffle(2))
        self.middle_up = nn.Sequential(*(PlainBlock(w8) for _ in range(blocks[1])))
        self.up4 = nn.Sequential(nn.Conv2d(w8, 4 * w4, 1), nn.PixelShuffle(2))
        self.fine_up = nn.Sequential(*(PlainBlock(w4) for _ in range(blocks[0])))
        self.to_change = nn.Conv2d(w4, 48, 3, padding=1)
        self.to_certainty = nn.Sequential(nn.SiLU(), nn.Conv2d(w4, octaves, 3, padding=1))
        shares = nn.Conv2d(w4, SHRUNK * 2 * PATTERNS, 3, padding=1)
        self.to_shrink = nn.Sequential(nn.SiLU(), shares)
        silent(self.to_change, self.to_certainty[-1], shares)
        shares.bias = nn.Parameter(torch.full((SHRUNK * 2 * PATTERNS,), KEEP))

    def forward(self, x: Tensor) -> Cleaned:
        """Clean photographs.

        Args:
            x: (N,3,H,W) RGB in [0,1], of the network's dtype; H and W multiples of 16.

        Returns:
            `Cleaned`, all float32.

        Raises:
            InputError: another shape.
        """
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] % STRIDE or x.shape[3] % STRIDE:
            raise InputError(
                f"photos must be (N,3,H,W) with sides of {STRIDE} px times n, got {tuple(x.shape)}: pad them"
            )
        octaves = [gain * band for gain, band in zip(GAINS, pyramid(x, 2), strict=False)]
        octaves = [F.interpolate(band, size=x.shape[2:]) for band in octaves]
        fine = self.fine(self.enter(torch.cat([x - 0.5, *octaves], 1)))  # (N, w4, H/4, W/4)
        middle = self.middle(self.down8(fine))
        coarse = self.coarse(self.down16(middle))
        middle = self.middle_up(middle + self.up8(coarse))
        fine = self.fine_up(fine + self.up4(middle))
        change = F.pixel_shuffle(self.to_change(fine), 4)
        certainty, shares = (layer(fine).float().sigmoid() for layer in (self.to_certainty, self.to_shrink))
        with torch.autocast(x.device.type, enabled=False):  # half precision would be a grain of its own
            calm = shrink(x.float(), shares)
        return Cleaned(calm + change.float(), certainty)


def shrink(x: Tensor, shares: Tensor) -> Tensor:
    """Photographs without a share of each pattern of neighbouring pixels, octave by octave.

    Args:
        x: (N,3,H,W) float32 RGB.
        shares: (N,48,h,w) in [0,1], what is taken away: for each octave, finest first, of the patterns in the light,
            then of those in the colours.

    Returns:
        (N,3,H,W); the photographs where all shares are 0.
    """
    result = x
    for octave, of_octave in enumerate(shares.chunk(SHRUNK, 1)):
        small = F.avg_pool2d(result, 2**octave) if octave else result
        taken = patterns_taken(small, F.interpolate(of_octave, small.shape[2:], mode="bilinear", align_corners=False))
        if octave:
            taken = F.interpolate(taken, x.shape[2:], mode="bilinear", align_corners=False)
        result = result - taken
    return result


def patterns_taken(x: Tensor, shares: Tensor) -> Tensor:
    """What a share (N,16,H,W) of the patterns around each pixel of x (N,3,H,W) amounts to, (N,3,H,W)."""
    light = luma(x)
    basis = patterns().to(x).unsqueeze(1)  # (8, 1, 3, 3)
    parts = torch.cat([light, x[:, ::2] - light], 1)  # Y, R-Y, B-Y
    found = F.conv2d(F.pad(parts, (2, 2, 2, 2), mode="replicate"), basis.repeat(3, 1, 1, 1), groups=3)
    of_light, of_colour = F.pad(shares, (1, 1, 1, 1), mode="replicate").chunk(2, 1)
    found = found * torch.cat([of_light, of_colour, of_colour], 1)
    back = basis.flip(2, 3).transpose(0, 1).repeat(3, 1, 1, 1) / (PATTERNS + 1)  # (3, 8, 3, 3)
    y, red, blue = F.conv2d(found, back, groups=3).chunk(3, 1)
    return y + torch.cat([red, -(LUMA[0] * red + LUMA[2] * blue) / LUMA[1], blue], 1)


def patterns() -> Tensor:
    """The 3x3 cosine transform without its mean, (8,3,3) float32, orthonormal."""
    place = torch.arange(3)
    rows = torch.stack([torch.cos(math.pi * (place + 0.5) * k / 3) for k in range(3)])
    rows = rows / rows.norm(dim=1, keepdim=True)
    return torch.einsum("ij,kl->ikjl", rows, rows).reshape(PATTERNS + 1, 3, 3)[1:]
