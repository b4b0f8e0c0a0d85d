"""LivePortrait's five networks (arXiv 2407.03168): a still face moved by key points that nobody labelled.

Appearance features of the still as a volume, key points and their motion from any picture, a warp of the volume by
both, a generator that draws it, and small networks that adjust key points (stitching, eyes, lips). Tensors have the
published names, but for spectral normalization, which `studio/convert/torch.py` divides out.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.networks.loading import StrictModel

SLOPE = 0.2
VARIANCE = 0.01  # of the Gaussian around a key point
EPSILON = 1e-6
BIN_DEGREES, FIRST_BIN = 3.0, -97.5  # what one of the 66 bins of a head angle stands for


class ConvNorm(nn.Module):
    """Convolution, batch normalization and activation.

    Args:
        conv: `nn.Conv2d` or `nn.Conv3d`.
        channels_in: see `forward`.
        channels_out: see `forward`.
        slope: of the activation below zero.
        pool: afterwards, halve height and width.
        double: before, double them.
    """

    def __init__(
        self,
        conv: type[nn.Module],
        channels_in: int,
        channels_out: int,
        *,
        slope: float = 0.0,
        pool: bool = False,
        double: bool = False,
    ) -> None:
        super().__init__()
        self.conv = conv(channels_in, channels_out, 3, padding=1)
        self.norm = (nn.BatchNorm2d if conv is nn.Conv2d else nn.BatchNorm3d)(channels_out)
        self.slope, self.pool, self.doubled = slope, pool, double

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels_in, [D,] H, W) -> (N, channels_out, [D,] H', W')."""
        flat = (1,) * (x.ndim - 4)  # depth keeps its size
        if self.doubled:
            x = F.interpolate(x, scale_factor=(*(float(one) for one in flat), 2.0, 2.0))
        x = F.leaky_relu(self.norm(self.conv(x)), self.slope)
        if self.pool:
            x = F.avg_pool2d(x, 2) if not flat else F.avg_pool3d(x, (1, 2, 2))
        return x


class ResBlock3d(nn.Module):
    """Two convolutions of a volume and a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv3d(channels, channels, 3, padding=1) for _ in range(2))
        self.norm1, self.norm2 = (nn.BatchNorm3d(channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, D, H, W) -> the same shape."""
        y = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(y)))


class LivePortraitAppearance(StrictModel):
    """Still face -> volume of features.

    Args:
        width: channels after the first convolution; each halving doubles them.
        halvings: of the size.
        most: channels at most.
        channels: of the volume.
        depth: of the volume.
        blocks: how many residual blocks.
    """

    @register_to_config
    def __init__(
        self,
        width: int = 64,
        halvings: int = 2,
        most: int = 512,
        channels: int = 32,
        depth: int = 16,
        blocks: int = 6,
    ) -> None:
        super().__init__()
        widths = [min(most, width * 2**i) for i in range(halvings + 1)]
        self.first = ConvNorm(nn.Conv2d, 3, width)
        self.down_blocks = nn.ModuleList(
            ConvNorm(nn.Conv2d, before, after, pool=True) for before, after in itertools.pairwise(widths)
        )
        self.second = nn.Conv2d(widths[-1], channels * depth, 1)
        self.resblocks_3d = nn.Sequential()
        for i in range(blocks):
            self.resblocks_3d.add_module(f"3dr{i}", ResBlock3d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N,3,256,256) RGB in [0,1], cropped around the head -> (N, channels, depth, 64, 64)."""
        x = self.first(x)
        for block in self.down_blocks:
            x = block(x)
        x = self.second(x)
        return self.resblocks_3d(x.unflatten(1, (self.config.channels, self.config.depth)))


class Norm(nn.LayerNorm):
    """Layer normalization over the channels of a map (N,C,H,W)."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResponseNorm(nn.Module):
    """Global response normalization (ConvNeXt V2, arXiv 2301.00808, section 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma, self.beta = (nn.Parameter(torch.zeros(1, 1, 1, channels)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> the same shape."""
        energy = x.norm(dim=(1, 2), keepdim=True)
        return x + self.gamma * (x * (energy / (energy.mean(-1, keepdim=True) + EPSILON))) + self.beta


class ConvNextBlock(nn.Module):
    """A block of ConvNeXt V2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.pwconv1, self.pwconv2 = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.grn = ResponseNorm(4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.pwconv2(self.grn(F.gelu(self.pwconv1(y))))
        return x + y.permute(0, 3, 1, 2)


@dataclass
class HeadMotion:
    """What moves a head.

    Attributes:
        pitch, yaw, roll: (N,66) scores of angles, see `degrees`.
        shift: (N,3), of the head.
        expression: (N, 3·points), how each key point is off the head's own.
        scale: (N,1).
        points: (N, 3·points), key points of the head at rest, which depend on the person alone.
    """

    pitch: Tensor
    yaw: Tensor
    roll: Tensor
    shift: Tensor
    expression: Tensor
    scale: Tensor
    points: Tensor


def degrees(bins: Tensor) -> Tensor:
    """Scores (N,66) of a head angle -> (N,) degrees, the expected one."""
    places = torch.arange(bins.shape[1], device=bins.device, dtype=bins.dtype)
    return (bins.softmax(1) @ places) * BIN_DEGREES + FIRST_BIN


class MotionTrunk(nn.Module):
    """ConvNeXt V2 with a linear layer for each thing that is read off."""

    def __init__(self, depths: tuple[int, ...], widths: tuple[int, ...], points: int, bins: int) -> None:
        super().__init__()
        self.downsample_layers = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(3, widths[0], 4, stride=4), Norm(widths[0], eps=EPSILON))]
        )
        for before, after in itertools.pairwise(widths):
            halve = nn.Conv2d(before, after, 2, stride=2)
            self.downsample_layers.append(nn.Sequential(Norm(before, eps=EPSILON), halve))
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNextBlock(width) for _ in range(depth)))
            for depth, width in zip(depths, widths, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1], eps=EPSILON)
        self.fc_kp, self.fc_exp = (nn.Linear(widths[-1], 3 * points) for _ in range(2))
        self.fc_pitch, self.fc_yaw, self.fc_roll = (nn.Linear(widths[-1], bins) for _ in range(3))
        self.fc_scale, self.fc_t = nn.Linear(widths[-1], 1), nn.Linear(widths[-1], 3)

    def forward(self, x: Tensor) -> HeadMotion:
        """(N,3,H,W) -> what moves the head."""
        for halve, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(halve(x))
        x = self.norm(x.mean((2, 3)))  # (N, C)
        angles = self.fc_pitch(x), self.fc_yaw(x), self.fc_roll(x)
        return HeadMotion(*angles, self.fc_t(x), self.fc_exp(x), self.fc_scale(x), self.fc_kp(x))


class LivePortraitMotion(StrictModel):
    """Face -> key points and what moves them.

    Args:
        points: how many key points.
        depths: blocks of each stage.
        widths: channels of each stage.
        bins: of each head angle.
    """

    @register_to_config
    def __init__(
        self,
        points: int = 21,
        depths: tuple[int, ...] = (3, 3, 9, 3),
        widths: tuple[int, ...] = (96, 192, 384, 768),
        bins: int = 66,
    ) -> None:
        super().__init__()
        self.detector = MotionTrunk(tuple(depths), tuple(widths), points, bins)

    def forward(self, x: Tensor) -> HeadMotion:
        """(N,3,256,256) RGB in [0,1], cropped around the head -> what moves the head."""
        return self.detector(x)


def grid(depth: int, height: int, width: int, like: Tensor) -> Tensor:
    """The places of a volume, (depth, height, width, 3) as (x, y, z) from -1 to 1."""
    z, y, x = (torch.linspace(-1, 1, side, dtype=like.dtype, device=like.device) for side in (depth, height, width))
    z, y, x = torch.meshgrid(z, y, x, indexing="ij")
    return torch.stack((x, y, z), -1)


def sampled(volume: Tensor, places: Tensor) -> Tensor:
    """A volume (N,C,D,H,W) at places (N,D,H,W,3)."""
    return F.grid_sample(volume, places, align_corners=False)


class Hourglass(nn.Module):
    """A U-Net over volumes that halves height and width."""

    def __init__(self, channels_in: int, width: int, halvings: int, most: int) -> None:
        super().__init__()
        widths = [channels_in, *(min(most, width * 2 ** (i + 1)) for i in range(halvings))]
        self.encoder: Any = nn.Module()
        self.decoder: Any = nn.Module()
        self.encoder.down_blocks = nn.ModuleList(
            ConvNorm(nn.Conv3d, before, after, pool=True) for before, after in itertools.pairwise(widths)
        )
        self.decoder.up_blocks = nn.ModuleList(
            ConvNorm(
                nn.Conv3d,
                widths[level + 1] * (1 if level == halvings - 1 else 2),
                min(most, width * 2**level),
                double=True,
            )
            for level in range(halvings - 1, -1, -1)
        )
        self.channels_out = width + channels_in
        self.decoder.conv = nn.Conv3d(self.channels_out, self.channels_out, 3, padding=1)
        self.decoder.norm = nn.BatchNorm3d(self.channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels_in, D, H, W) -> (N, channels_out, D, H, W)."""
        seen = [x]
        for block in self.encoder.down_blocks:
            seen.append(block(seen[-1]))
        x = seen.pop()
        for block in self.decoder.up_blocks:
            x = torch.cat((block(x), seen.pop()), 1)
        return F.relu(self.decoder.norm(self.decoder.conv(x)))


class DenseMotion(nn.Module):
    """Where every place of the moved volume comes from, out of a motion for each key point."""

    def __init__(self, points: int, channels: int, depth: int, compressed: int, hourglass: Hourglass) -> None:
        super().__init__()
        self.hourglass = hourglass
        self.mask = nn.Conv3d(hourglass.channels_out, points + 1, 7, padding=3)
        self.compress = nn.Conv3d(channels, compressed, 1)
        self.norm = nn.BatchNorm3d(compressed)
        self.occlusion = nn.Conv2d(hourglass.channels_out * depth, 1, 7, padding=3)

    def forward(self, volume: Tensor, source: Tensor, driving: Tensor) -> tuple[Tensor, Tensor]:
        """(N,C,D,H,W) and key points (N,K,3) -> places (N,D,H,W,3) to sample at, what is visible (N,1,H,W)."""
        n, _, *sides = volume.shape
        small = F.relu(self.norm(self.compress(volume)))
        places = grid(*sides, small)  # (D, H, W, 3)
        # The background stays; the surroundings of key point k move from where it is now to where it was.
        moved = places + (source - driving)[:, :, None, None, None]  # (N, K, D, H, W, 3)
        motions = torch.cat((places.expand(n, 1, *places.shape), moved), 1)  # (N, K + 1, D, H, W, 3)
        count = motions.shape[1]
        candidates = sampled(small.repeat_interleave(count, 0), motions.flatten(0, 1)).unflatten(0, (n, count))
        heat = around(places, driving) - around(places, source)  # (N, K, D, H, W)
        heat = F.pad(heat, (0, 0, 0, 0, 0, 0, 1, 0))[:, :, None]  # (N, K + 1, 1, D, H, W)
        read = self.hourglass(torch.cat((heat, candidates), 2).flatten(1, 2))
        share = self.mask(read).softmax(1)  # (N, K + 1, D, H, W)
        deformation = (motions * share[..., None]).sum(1)
        return deformation, torch.sigmoid(self.occlusion(read.flatten(1, 2)))


def around(places: Tensor, points: Tensor) -> Tensor:
    """A Gaussian around each key point: places (D,H,W,3), points (N,K,3) -> (N,K,D,H,W)."""
    off = places - points[:, :, None, None, None]
    return torch.exp(-0.5 * off.square().sum(-1) / VARIANCE)


@dataclass
class Warped:
    """A moved volume.

    Attributes:
        features: (N, C, H, W), flat, and faded where something came to light that the still does not show.
        deformation: (N, D, H, W, 3), where each place was sampled, (x, y, z) from -1 to 1.
        visible: (N, 1, H, W) in [0,1].
    """

    features: Tensor
    deformation: Tensor
    visible: Tensor


class LivePortraitWarping(StrictModel):
    """A volume of features, moved from one set of key points to another.

    Args:
        points: how many key points.
        channels: of the volume.
        depth: of the volume.
        width: channels of the flat result are this times 2^halvings.
        halvings: of the networks around it.
        most: channels at most.
        motion_width: channels of the motion's U-Net.
        motion_halvings: of that U-Net.
        motion_most: its channels at most.
        compressed: channels of the volume that it looks at.
    """

    @register_to_config
    def __init__(
        self,
        points: int = 21,
        channels: int = 32,
        depth: int = 16,
        width: int = 64,
        halvings: int = 2,
        most: int = 512,
        motion_width: int = 32,
        motion_halvings: int = 5,
        motion_most: int = 1024,
        compressed: int = 4,
    ) -> None:
        super().__init__()
        flat = min(most, width * 2**halvings)
        hourglass = Hourglass((points + 1) * (compressed + 1), motion_width, motion_halvings, motion_most)
        self.dense_motion_network = DenseMotion(points, channels, depth, compressed, hourglass)
        self.third = ConvNorm(nn.Conv2d, channels * depth, flat, slope=0.01)
        self.fourth = nn.Conv2d(flat, flat, 1)

    def forward(self, volume: Tensor, source: Tensor, driving: Tensor) -> Warped:
        """(N, C, D, H, W), key points (N,K,3) of the still and as they shall be -> the moved volume."""
        deformation, visible = self.dense_motion_network(volume, source, driving)
        flat = sampled(volume, deformation).flatten(1, 2)
        return Warped(self.fourth(self.third(flat)) * visible, deformation, visible)


class Spade(nn.Module):
    """Normalizes a map and gives it a scale and shift that the features say, place by place (arXiv 1903.07291)."""

    def __init__(self, channels: int, guide: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.mlp_shared = nn.Sequential(nn.Conv2d(guide, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma, self.mlp_beta = (nn.Conv2d(hidden, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """(N, C, H, W) and (N, guide, h, w) -> (N, C, H, W)."""
        said = self.mlp_shared(F.interpolate(guide, size=x.shape[2:], mode="nearest"))
        return self.norm(x) * (1 + self.mlp_gamma(said)) + self.mlp_beta(said)


class SpadeBlock(nn.Module):
    """Two convolutions behind `Spade`, and a skip."""

    def __init__(self, channels_in: int, channels_out: int, guide: int, hidden: int) -> None:
        super().__init__()
        middle = min(channels_in, channels_out)
        self.conv_0 = nn.Conv2d(channels_in, middle, 3, padding=1)
        self.conv_1 = nn.Conv2d(middle, channels_out, 3, padding=1)
        self.norm_0, self.norm_1 = Spade(channels_in, guide, hidden), Spade(middle, guide, hidden)
        self.learned = channels_in != channels_out
        if self.learned:
            self.conv_s = nn.Conv2d(channels_in, channels_out, 1, bias=False)
            self.norm_s = Spade(channels_in, guide, hidden)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """(N, channels_in, H, W) and (N, guide, h, w) -> (N, channels_out, H, W)."""
        y = self.conv_0(F.leaky_relu(self.norm_0(x, guide), SLOPE))
        y = self.conv_1(F.leaky_relu(self.norm_1(y, guide), SLOPE))
        return y + (self.conv_s(self.norm_s(x, guide)) if self.learned else x)


class LivePortraitGenerator(StrictModel):
    """Moved features -> picture.

    Args:
        width: channels before the picture.
        halvings: that led to the features; each is undone.
        most: channels in the middle.
        hidden: channels between the features and their scales and shifts.
        enlarged: how many times as large the picture is beyond that.
    """

    @register_to_config
    def __init__(
        self, width: int = 64, halvings: int = 2, most: int = 512, hidden: int = 128, enlarged: int = 2
    ) -> None:
        super().__init__()
        guide = min(most, width * 2**halvings)
        self.fc = nn.Conv2d(guide, 2 * guide, 3, padding=1)
        for i in range(6):
            self.add_module(f"G_middle_{i}", SpadeBlock(2 * guide, 2 * guide, guide, hidden))
        self.up_0 = SpadeBlock(2 * guide, guide, guide, hidden)
        self.up_1 = SpadeBlock(guide, width, guide, hidden)
        self.conv_img = nn.Sequential(nn.Conv2d(width, 3 * enlarged**2, 3, padding=1), nn.PixelShuffle(enlarged))

    def forward(self, features: Tensor) -> Tensor:
        """(N, guide, 64, 64) -> (N,3,512,512) RGB in [0,1]."""
        x = self.fc(features)
        for i in range(6):
            x = self.get_submodule(f"G_middle_{i}")(x, features)
        for block in (self.up_0, self.up_1):
            x = block(F.interpolate(x, scale_factor=2.0), features)
        return torch.sigmoid(self.conv_img(F.leaky_relu(x, SLOPE)))


class LivePortraitRetargeting(StrictModel):
    """Key points and what they shall do -> by how much each moves.

    Args:
        inputs: how many numbers are given.
        hidden: widths of the layers.
        outputs: how many numbers come out.
    """

    @register_to_config
    def __init__(self, inputs: int = 126, hidden: tuple[int, ...] = (128, 128, 64), outputs: int = 65) -> None:
        super().__init__()
        sizes = [inputs, *hidden, outputs]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.mlp = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) -> (N, outputs)."""
        return self.mlp(x)


RETARGETING = {
    "stitching": {"inputs": 126, "hidden": (128, 128, 64), "outputs": 65},
    "lip": {"inputs": 65, "hidden": (128, 128, 64), "outputs": 63},
    "eye": {"inputs": 66, "hidden": (256, 256, 128, 128, 64), "outputs": 63},
}
"""What the three networks of the published `stitching_retargeting_module.pth` are."""
