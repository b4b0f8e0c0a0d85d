"""The face finder: boxes, five points, head pose and quality of all faces of a picture in one pass (MOS, 2010.10921).

One map of an eighth of the picture's side, merged from four (a feature pyramid, arXiv 1612.03144), says of each cell
how surely a face's middle lies there (as in CenterNet, 1904.07850), and where that face is. Plain convolutions on a
picture folded into channels are faster on a CPU than depthwise ones. Faces are seen well from 10 to 200 px of the
input; larger ones in a smaller version of the picture, which costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.errors import InputError
from studio.networks.loading import StrictModel

STRIDE = 8  # px of the input per cell
MULTIPLE = 64  # px; sides of the input
POINTS = 5
TURNS = 8  # parts of the circle that the roll is told by first; what is left of it, then
# What a cell says: score, centre and size of the box, five points, yaw and pitch, which turn, what is left of the roll
# for each of them, spread, shown.
PARTS = (1, 4, 2 * POINTS, 2, TURNS, TURNS, 1, 1)
UNIT_DEGREES = 60.0  # of yaw and pitch


class Block(nn.Module):
    """Residual: 3x3 to half the channels and 3x3 back; (N,C,H,W) -> (N,C,H,W)."""

    def __init__(self, channels: int, folded: bool) -> None:
        super().__init__()
        self.squeeze = conv(channels, channels // 2, folded)
        self.expand = conv(channels // 2, channels, folded, active=False)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        return F.relu(x + self.expand(self.squeeze(x)))


class FinderNet(StrictModel):
    """The network.

    Args:
        widths: channels at a quarter, an eighth, ... of the input's side; each stage halves the size.
        blocks: residual blocks at an eighth, a sixteenth, ...; one number less.
        merged: channels of the merged map.
        folded: whether the batch norms are folded into the convolutions, as in the committed weights (see `fold`).
    """

    @register_to_config
    def __init__(
        self,
        widths: Sequence[int] = (24, 48, 96, 128, 128),
        blocks: Sequence[int] = (2, 3, 3, 1),
        merged: int = 48,
        folded: bool = True,
    ) -> None:
        super().__init__()
        if len(blocks) != len(widths) - 1:
            raise InputError(f"blocks must be {len(widths) - 1} numbers, one for each stage, got {len(blocks)}")
        self.stem = conv(12, widths[0], folded, stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(conv(c_in, c_out, folded, stride=2), *(Block(c_out, folded) for _ in range(count)))
            for (c_in, c_out), count in zip(pairwise(widths), blocks, strict=True)
        )
        self.laterals = nn.ModuleList(conv(c, merged, folded, kernel=1, active=False) for c in widths[1:])
        self.smooth = nn.ModuleList(conv(merged, merged, folded) for _ in widths[1:])
        last: Any = nn.Conv2d(merged, sum(PARTS), 1)
        self.head = nn.Sequential(conv(merged, merged, folded, kernel=1), last)
        nn.init.constant_(last.bias[:1], -4.6)  # a face in a hundred cells

    def forward(self, x: Tensor) -> Tensor:
        """Looks at pictures.

        Args:
            x: (N,3,H,W) RGB in [0,1], sides multiples of 64.

        Returns:
            (N,35,H/8,W/8), the parts of `PARTS`; see `decode`.

        Raises:
            InputError: the input has another shape.
        """
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] % MULTIPLE or x.shape[3] % MULTIPLE:
            raise InputError(
                f"the finder takes (N,3,H,W) with sides that {MULTIPLE} divides, got {tuple(x.shape)}: pad"
            )
        x = self.stem(F.pixel_unshuffle(x * 4 - 2, 2))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        merged = None
        for lateral, smooth, fine in zip(
            *(list(part)[::-1] for part in (self.laterals, self.smooth, maps)), strict=True
        ):
            here = lateral(fine)
            if merged is not None:
                here = here + F.interpolate(merged, size=here.shape[-2:], mode="nearest")
            merged = smooth(F.relu(here))
        return self.head(merged)

    def fold(self) -> FinderNet:
        """The same network with its batch norms folded into the convolutions before them."""
        if self.config.folded:
            return self
        folded = FinderNet(**{**self.config, "folded": True})
        known = self.state_dict()
        tensors = {name: known[name] for name in folded.state_dict() if name in known}
        for name, module in self.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                before = name.rsplit(".", 1)[0] + ".0"
                scale = module.weight * (module.running_var + module.eps).rsqrt()
                tensors[f"{before}.weight"] = known[f"{before}.weight"] * scale.view(-1, 1, 1, 1)
                tensors[f"{before}.bias"] = module.bias - module.running_mean * scale
        folded.load_state_dict(tensors)
        return folded.train(self.training)


def conv(
    c_in: int, c_out: int, folded: bool, *, kernel: int = 3, stride: int = 1, active: bool = True
) -> nn.Sequential:
    """Convolution, batch norm unless it is folded into that, and a ReLU where `active`."""
    parts: list[nn.Module] = [nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=folded)]
    if not folded:
        parts.append(nn.BatchNorm2d(c_out))
    if active:
        parts.append(nn.ReLU(inplace=True))
    return nn.Sequential(*parts)


@dataclass(frozen=True)
class Cells:
    """What the network says of cells, in any number of leading dimensions; lengths are pixels of its input.

    Attributes:
        logits: of a face's middle.
        boxes: (...,4) xyxy, the box that the mesh would span.
        points: (...,5,2) right eye, left eye, tip of the nose, right and left corner of the mouth, of the person.
        pose: (...,3) degrees, yaw, pitch and roll as `pose_from_mesh`.
        spread: mean distance of the points from the true ones, as a share of the box's mean side, as expected here.
        shown: logit of the share of the face that is in the picture and not covered.
        upright: (...,5,2) the points from the middle, in mean sides of the box, were the face not turned.
        turns: (...,8) logits of the turn, multiples of 45 degrees.
        rests: (...,8) for each turn, degrees of roll beyond it.
    """

    logits: Tensor
    boxes: Tensor
    points: Tensor
    pose: Tensor
    spread: Tensor
    shown: Tensor
    upright: Tensor
    turns: Tensor
    rests: Tensor


def decode(raw: Tensor, cells: Tensor) -> Cells:
    """Makes positions of the network's output.

    Args:
        raw: (...,35).
        cells: (...,2) middles of the cells, (x, y) in pixels of the input.
    """
    logits, box, points, angles, turns, rests, spread, shown = raw.float().split(PARTS, -1)
    side = STRIDE * 2 * box[..., 2:].clamp(-3, 5).exp()
    centre = cells + 2 * STRIDE * box[..., :2]
    upright, rests = points.unflatten(-1, (POINTS, 2)), rests * (360 / TURNS)
    best = turns.argmax(-1, keepdim=True)
    roll = (best * (360 / TURNS) + rests.gather(-1, best) + 180) % 360 - 180
    moved = upright @ rotation(roll[..., 0]).mT * side.mean(-1)[..., None, None]
    return Cells(
        logits=logits[..., 0],
        boxes=torch.cat([centre - side / 2, centre + side / 2], -1),
        points=centre[..., None, :] + moved,
        pose=torch.cat([angles * UNIT_DEGREES, roll], -1),
        spread=spread[..., 0].clamp(-7, 1).exp(),
        shown=shown[..., 0],
        upright=upright,
        turns=turns,
        rests=rests,
    )


def rotation(degrees: Tensor) -> Tensor:
    """Matrices (...,2,2) that turn clockwise, as seen with y downwards."""
    angle = torch.deg2rad(degrees)
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)


def cell_middles(height: int, width: int) -> Tensor:
    """Middles (h,w,2) of the cells of an input of height and width in pixels."""
    y, x = torch.meshgrid(*((torch.arange(n // STRIDE) + 0.5) * STRIDE for n in (height, width)), indexing="ij")
    return torch.stack([x, y], -1)
