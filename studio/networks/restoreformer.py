"""RestoreFormer (arXiv 2201.06374): features of the damaged face ask a dictionary of clean faces, by attention.

The map of the encoder is replaced by its nearest codes; the decoder's attention takes the queries from the encoder's
features and keys and values from what it draws. Tensors have the published names.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.networks.face_restorer import with_photo
from studio.networks.loading import StrictModel
from studio.networks.vq import Codebook, Down, ResBlock, Up, attend, normalize

SHORTCUT = "nin_shortcut"


class Attention(nn.Module):
    """Multi-head attention; another map may ask."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = normalize(channels), normalize(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor, asking: Tensor | None = None) -> Tensor:
        """(N, C, H, W), and another such map that the queries come from -> (N, C, H, W)."""
        y = self.norm1(x)
        query = y if asking is None else self.norm2(asking)
        return x + self.proj_out(attend(self.q(query), self.k(y), self.v(y), self.heads))


class Middle(nn.Module):
    """Between going down and going up."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.block_1, self.block_2 = (ResBlock(channels, channels, SHORTCUT) for _ in range(2))
        self.attn_1 = Attention(channels, heads)


class Level(nn.Module):
    """The blocks of one size; those of the smallest have attention, all but one change the size afterwards."""

    def __init__(self, widths: list[int], heads: int, resample: tuple[str, nn.Module] | None) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.block = nn.ModuleList(ResBlock(before, after, SHORTCUT) for before, after in pairs)
        self.attn = nn.ModuleList(Attention(after, heads) for _, after in pairs if heads)
        if resample:
            self.add_module(*resample)


class Encoder(nn.Module):
    """From the picture to a map."""

    def __init__(self, width: int, multipliers: tuple[int, ...], codes_dim: int, heads: int) -> None:
        super().__init__()
        widths = [width, *(multiplier * width for multiplier in multipliers)]
        last = len(multipliers) - 1
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        self.down: Any = nn.ModuleList(
            Level(
                [widths[level], widths[level + 1], widths[level + 1]],
                heads if level == last else 0,
                None if level == last else ("downsample", Down(widths[level + 1])),
            )
            for level in range(last + 1)
        )
        self.mid = Middle(widths[-1], heads)
        self.norm_out = normalize(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], codes_dim, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N,3,H,W) -> the map (N, codes_dim, h, w), and what asks in the middle and in the smallest level."""
        x = self.conv_in(x)
        for level in self.down:
            for i, block in enumerate(level.block):
                x = block(x)
                x = level.attn[i](x) if len(level.attn) else x
            x = level.downsample(x) if hasattr(level, "downsample") else x
        in_level = self.mid.block_1(x)
        in_middle = self.mid.block_2(self.mid.attn_1(in_level))
        return self.conv_out(F.silu(self.norm_out(in_middle))), in_middle, in_level


class Decoder(nn.Module):
    """From a map of codes to the picture."""

    def __init__(self, width: int, multipliers: tuple[int, ...], codes_dim: int, heads: int) -> None:
        super().__init__()
        widths = [multiplier * width for multiplier in multipliers]
        last = len(multipliers) - 1
        self.conv_in = nn.Conv2d(codes_dim, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], heads)
        self.up: Any = nn.ModuleList(
            Level(
                [widths[min(level + 1, last)], *[widths[level]] * 3],
                heads if level == last else 0,
                ("upsample", Up(widths[level])) if level else None,
            )
            for level in range(last + 1)
        )
        self.norm_out = normalize(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, x: Tensor, in_middle: Tensor, in_level: Tensor) -> Tensor:
        """(N, codes_dim, h, w) and what asks, see `Encoder.forward` -> (N,3,H,W)."""
        x = self.mid.block_1(self.conv_in(x))
        x = self.mid.block_2(self.mid.attn_1(x, in_middle))
        for level in reversed(self.up):
            for i, block in enumerate(level.block):
                x = block(x)
                x = level.attn[i](x, in_level) if len(level.attn) else x
            x = level.upsample(x) if hasattr(level, "upsample") else x
        return self.conv_out(F.silu(self.norm_out(x)))


class RestoreFormer(StrictModel):
    """Aligned face -> restored face.

    Args:
        width: channels at the size of the face.
        multipliers: channels at each half of it, in widths.
        codes: how many codes there are.
        codes_dim: length of a code.
        heads: of the attention.
    """

    template = "facexlib"
    fidelity_means = "up to 0.5 the network's own picture, at 1 half of the photo mixed in"

    @register_to_config
    def __init__(
        self,
        width: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2, 4, 4, 8),
        codes: int = 1024,
        codes_dim: int = 256,
        heads: int = 8,
    ) -> None:
        super().__init__()
        multipliers = tuple(multipliers)
        self.encoder = Encoder(width, multipliers, codes_dim, heads)
        self.decoder = Decoder(width, multipliers, codes_dim, heads)
        self.quantize = Codebook(codes, codes_dim)
        self.quant_conv, self.post_quant_conv = (nn.Conv2d(codes_dim, codes_dim, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(N,3,512,512) RGB in [-1,1], aligned by the template -> the same, restored, in about [-1,1]."""
        read, in_middle, in_level = self.encoder(x)
        codes = self.quantize.nearest(self.quant_conv(read))
        return self.decoder(self.post_quant_conv(self.quantize.look_up(codes)), in_middle, in_level)

    def restore(self, crops: Tensor, fidelity: Tensor) -> Tensor:
        """See `studio.networks.face_restorer.FaceRestorer`."""
        return with_photo(self(2 * crops - 1) / 2 + 0.5, crops, fidelity)
