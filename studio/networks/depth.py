"""Depth and outline of a whole head from one photograph: hair, ears and neck, which a face mesh does not have.

DaGAN (Hong et al., arXiv 2203.06605) learns it from videos. Here the mesh says what the face's depth is, and turned
people teach the rest (`studio.training.depth`).
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.errors import InputError
from studio.networks.loading import StrictModel
from studio.networks.start import silent

SIZE = 128  # px of the crop that is looked at; the map is half as large


def conv(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution with its normalisation."""
    layers = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.GroupNorm(8, after), nn.SiLU()
    return nn.Sequential(*layers)


class DepthNet(StrictModel):
    """A small U-Net that corrects a rough depth.

    Args:
        widths: channels at 64, 32, 16 and 8 px.
    """

    @register_to_config
    def __init__(self, widths: tuple[int, ...] = (32, 64, 96, 128)) -> None:
        super().__init__()
        self.stem = conv(4 * 4, widths[0])
        self.down = nn.ModuleList(nn.Sequential(conv(a, b, 2), conv(b, b)) for a, b in itertools.pairwise(widths))
        ups = list(zip(widths[::-1], widths[-2::-1], strict=False))
        self.up = nn.ModuleList(nn.Sequential(conv(a + b, b), conv(b, b)) for a, b in ups)
        self.out = nn.Conv2d(widths[0], 2, 3, padding=1)
        silent(self.out)

    def forward(self, face: Tensor, rough: Tensor) -> tuple[Tensor, Tensor]:
        """The depth of aligned faces, and where their heads are.

        Args:
            face: (N,3,S,S) float RGB in [0,1], FFHQ-aligned; shrunk or enlarged to 128 px.
            rough: (N,1,h,w), a first depth, z in sides of the crop: the mesh's, extrapolated (`Still.depth`).

        Returns:
            (N,1,64,64) z in sides of the crop, away from the camera; and (N,1,64,64) in [0,1], how surely it is head,
            skin or hair, and not clothes or background.

        Raises:
            InputError: the inputs have other shapes.
        """
        if face.ndim != 4 or face.shape[1] != 3 or rough.ndim != 4 or rough.shape[1] != 1:
            raise InputError(
                f"the depth network takes (N,3,S,S) and (N,1,h,w), got {tuple(face.shape)}, {tuple(rough.shape)}"
            )
        face, rough = (
            F.interpolate(x.float(), (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False).to(x.dtype)
            for x in (face, rough)  # in float32: a CPU does this in no other type
        )
        x = self.stem(F.pixel_unshuffle(torch.cat([face * 2 - 1, rough * 2], 1), 2))  # (N, W, 64, 64)
        kept = []
        for stage in self.down:
            kept.append(x)
            x = stage(x)
        for stage in self.up:
            larger = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = stage(torch.cat([larger, kept.pop()], 1))
        depth, head = self.out(x).float().split(1, 1)
        return F.avg_pool2d(rough, 2).float() + 0.3 * depth, head.sigmoid()
