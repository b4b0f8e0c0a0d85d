"""Stored frames to upright RGB in [0,1]: matrix, range, bit depth, high dynamic range, turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from studio.video.info import VideoInfo

if TYPE_CHECKING:
    from av import VideoFrame

_SWS_MATRICES = {"bt709": 1, "fcc": 4, "bt601": 5, "smpte240m": 7, "bt2020": 9}
_WHITE = 203.0  # cd/m² of a diffuse white in HDR, ITU-R BT.2408
_KNEE = 0.75  # of SDR white: below it light stays as it is, above it what is brighter than white finds its place
_BT2020_TO_BT709 = (
    (1.660491, -0.587641, -0.072850),
    (-0.124550, 1.132900, -0.008349),
    (-0.018151, -0.100579, 1.118730),
)  # linear light, ITU-R BT.2087


def to_pixels(frame: VideoFrame, info: VideoInfo) -> Tensor:
    """(3,H,W) float32 RGB in [0,1], upright.

    Args:
        frame: As decoded.
        info: Of its file: what its numbers mean.
    """
    from av.video.reformatter import ColorRange, Interpolation

    deep = info.bits > 8
    size = (info.height, info.width) if info.rotation % 180 else (info.width, info.height)
    rgb = frame.reformat(
        *size,
        format="rgb48le" if deep else "rgb24",
        src_colorspace=_SWS_MATRICES.get(info.matrix),
        src_color_range=ColorRange.MPEG if info.color_range == "limited" else ColorRange.JPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT,
    )
    levels = np.ascontiguousarray(rgb.to_ndarray().transpose(2, 0, 1), dtype=np.float32)
    pixels = torch.from_numpy(levels).div_(65535 if deep else 255)
    if info.transfer != "sdr":
        pixels = to_sdr(pixels, info.transfer)
    pixels = torch.rot90(pixels, -info.rotation // 90, (1, 2))
    return (pixels.flip(2) if info.mirrored else pixels).contiguous()


def to_sdr(pixels: Tensor, transfer: str) -> Tensor:
    """High dynamic range as an ordinary screen shows it.

    Args:
        pixels: (3,H,W) float in [0,1], BT.2020 colours, of the transfer function.
        transfer: "hlg" (seen on a screen of 1,000 cd/m²) or "pq", both of ITU-R BT.2100.

    Returns:
        (3,H,W) float in [0,1], BT.709 colours, gamma 2.4. A diffuse white (203 cd/m²) comes out just below 1, brighter
        light between it and 1.
    """
    light = (_hlg(pixels) if transfer == "hlg" else _pq(pixels)) / _WHITE
    matrix = torch.tensor(_BT2020_TO_BT709, dtype=light.dtype)
    light = torch.einsum("ij,jhw->ihw", matrix, light).clamp_(min=0)
    room = 1 - _KNEE
    over = (light - _KNEE).clamp_(min=0)
    light = torch.where(light > _KNEE, _KNEE + room * over / (over + room), light)
    return light.pow_(1 / 2.4)


def _hlg(signal: Tensor) -> Tensor:
    """HLG to cd/m² on a screen of 1,000: inverse OETF, then the OOTF of gamma 1.2."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = torch.where(signal <= 0.5, signal**2 / 3, (((signal - c) / a).exp() + b) / 12)
    luma = (torch.tensor((0.2627, 0.6780, 0.0593)).view(3, 1, 1) * scene).sum(0, keepdim=True)
    return 1000 * luma.clamp_(min=1e-6) ** 0.2 * scene


def _pq(signal: Tensor) -> Tensor:
    """PQ to cd/m²."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = signal ** (1 / m2)
    return 10_000 * ((power - c1).clamp_(min=0) / (c2 - c3 * power)) ** (1 / m1)
