"""Face detection: BlazeFace in its "full range" (192 px) and "back camera" (256 px) variants (arXiv 1907.05047).

Both see the whole photo padded to a square. Per anchor they give a logit and 16 numbers in input pixels: centre x,
centre y, width, height, then (x, y) of the right eye, left eye, nose tip, mouth, right ear and left ear of the
person shown. All positions are relative to the anchor's centre. Faces narrower than about 20 input pixels are lost.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.errors import InputError
from studio.networks.blaze import SameConv, double, single
from studio.networks.loading import StrictModel

SIZES = {"full_range": 192, "back": 256}
# (cells per side, anchors per cell), in the order of the network's output.
GRIDS = {"full_range": ((48, 1),), "back": ((16, 2), (8, 6))}


class Merge(nn.Module):
    """One step of the feature pyramid: the coarse map, doubled, plus the fine one, then refining blocks."""

    def __init__(self, c_coarse: int, c_fine: int, c_out: int, blocks: int) -> None:
        super().__init__()
        self.coarse = SameConv(c_coarse, c_out)
        self.fine = SameConv(c_fine, c_out)
        self.refine = nn.Sequential(*(double(c_out, c_out // 2, c_out) for _ in range(blocks)))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(N,c_coarse,H,W) and (N,c_fine,2H,2W) -> (N,c_out,2H,2W)."""
        up = F.interpolate(self.coarse(coarse).relu(), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.refine(self.fine(fine).relu() + up)


class FullRange(nn.Module):
    """(N,3,192,192) -> one feature map (N,48,48,48)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(SameConv(3, 32, 3, 2), nn.ReLU())
        # Output channels of each stage's blocks; every stage after the first halves the size.
        stages, c_in = [], 32
        for i, channels in enumerate(((32, 32), (48, 48, 64), (96, 128, 128), (144, 192, 256), (384,) * 4)):
            blocks = []
            for j, c_out in enumerate(channels):
                blocks.append(double(c_in, c_out // 4, c_out, 2 if i and not j else 1))
                c_in = c_out
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.merges = nn.ModuleList([Merge(384, 256, 96, 2), Merge(96, 128, 64, 2), Merge(64, 64, 48, 1)])
        self.out_channels = (48,)

    def forward(self, x: Tensor) -> list[Tensor]:
        """As the class says."""
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        x = maps.pop()
        for merge in self.merges:
            x = merge(x, maps.pop())
        return [x]


class Back(nn.Module):
    """(N,3,256,256) -> feature maps (N,96,16,16) and (N,96,8,8)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(SameConv(3, 24, 5, 2), nn.ReLU())
        blocks, c_in = [], 24
        for i, (c_out, count) in enumerate(((24, 7), (24, 8), (48, 8), (96, 8))):
            for j in range(count):
                blocks.append(single(c_in, c_out, 2 if i and not j else 1, prelu=False))
                c_in = c_out
        self.body = nn.Sequential(*blocks)
        self.down = nn.Sequential(SameConv(96, 96, 3, 2, groups=96), SameConv(96, 96), nn.ReLU())
        self.out_channels = (96, 96)

    def forward(self, x: Tensor) -> list[Tensor]:
        """As the class says."""
        fine = self.body(self.stem(x))
        return [fine, self.down(fine)]


class FaceDetector(StrictModel):
    """BlazeFace.

    Args:
        variant: "full_range" (input 192 px, 2304 anchors) or "back" (input 256 px, 896 anchors).

    Raises:
        InputError: the variant is neither.
    """

    @register_to_config
    def __init__(self, variant: str = "full_range") -> None:
        super().__init__()
        check_variant(variant)
        self.size = SIZES[variant]
        self.trunk = FullRange() if variant == "full_range" else Back()
        per_cell = [count for _, count in GRIDS[variant]]
        self.logits = nn.ModuleList(SameConv(c, n) for c, n in zip(self.trunk.out_channels, per_cell, strict=True))
        self.boxes = nn.ModuleList(SameConv(c, 16 * n) for c, n in zip(self.trunk.out_channels, per_cell, strict=True))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Looks at a batch of square pictures.

        Args:
            x: (N,3,S,S) float32 RGB in [-1,1], S = 192 or 256 by variant.

        Returns:
            Raw boxes and key points (N,A,16) in input pixels relative to the anchors, and logits (N,A).

        Raises:
            InputError: the input has another shape.
        """
        if x.ndim != 4 or x.shape[1:] != (3, self.size, self.size):
            raise InputError(
                f"the {self.config.variant} detector takes (N,3,{self.size},{self.size}), "
                f"got {tuple(x.shape)}: pad the photo to a square and resize it"
            )
        maps = self.trunk(x)
        logits = [head(m).movedim(1, -1).flatten(1) for head, m in zip(self.logits, maps, strict=True)]
        boxes = [head(m).movedim(1, -1).reshape(len(x), -1, 16) for head, m in zip(self.boxes, maps, strict=True)]
        return torch.cat(boxes, 1), torch.cat(logits, 1)  # (N, A, 16), (N, A)


def check_variant(variant: str) -> None:
    """Raises InputError unless `variant` names a detector."""
    if variant not in SIZES:
        raise InputError(f"a detector variant is one of {', '.join(SIZES)}, got {variant!r}")


def anchors(variant: str) -> Tensor:
    """Anchor centres (A,2) float32 as (x, y) in [0,1] of the square input, in output order (row, column, anchor)."""
    check_variant(variant)
    centres = []
    for cells, count in GRIDS[variant]:
        line = (torch.arange(cells) + 0.5) / cells
        y, x = torch.meshgrid(line, line, indexing="ij")
        centres.append(torch.stack([x, y], -1).reshape(-1, 1, 2).expand(-1, count, -1).reshape(-1, 2))
    return torch.cat(centres)


def decode(raw: Tensor, logits: Tensor, variant: str) -> tuple[Tensor, Tensor, Tensor]:
    """Makes positions of a detector's output.

    Args:
        raw: (N,A,16), as the detector gives it.
        logits: (N,A).
        variant: the detector's variant.

    Returns:
        Boxes (N,A,4) xyxy and key points (N,A,6,2) (x, y), both in units of the square input's side, and scores (N,A)
        in [0,1].
    """
    points = raw.unflatten(-1, (8, 2)) / SIZES[variant]  # (N, A, 8, 2): centre, size, six key points
    centre = anchors(variant).to(raw)[:, None]  # (A, 1, 2)
    middle, half = points[..., :1, :] + centre, points[..., 1:2, :] / 2
    boxes = torch.cat([middle - half, middle + half], -1).squeeze(-2)  # (N, A, 4)
    return boxes, logits.sigmoid(), points[..., 2:, :] + centre


def nms(boxes: Tensor, scores: Tensor, max_overlap: float = 0.3, max_inside: float = 0.65) -> list[int]:
    """Non-maximum suppression.

    Args:
        boxes: (N,4) xyxy, any unit.
        scores: (N,).
        max_overlap: a box goes when its intersection over union with a better one is larger.
        max_inside: a box goes when the intersection is a larger share of the smaller of the two boxes: two detectors,
            or two scales, draw boxes of different size around one face.

    Returns:
        Indices of the boxes kept, best score first.
    """
    same = same_face(boxes, boxes, max_overlap, max_inside)
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if not same[i, kept].any():
            kept.append(i)
    return kept


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes (N,4) and others (M,4), xyxy: (N,M)."""
    shared, area, other_area = _shared(boxes, others)
    return shared / (area[:, None] + other_area - shared).clamp(min=1e-9)


def same_face(boxes: Tensor, others: Tensor, max_overlap: float = 0.3, max_inside: float = 0.65) -> Tensor:
    """Which of boxes (N,4) and others (M,4) are drawn around one face, see `nms`: (N,M) bool."""
    shared, area, other_area = _shared(boxes, others)
    union, smaller = area[:, None] + other_area - shared, torch.minimum(area[:, None], other_area)
    return (shared > max_overlap * union) | (shared > max_inside * smaller)


def _shared(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intersections (N,M), and the areas (N,) and (M,)."""
    low, high = torch.maximum(boxes[:, None, :2], others[:, :2]), torch.minimum(boxes[:, None, 2:], others[:, 2:])
    return (
        (high - low).clamp(0).prod(-1),
        (boxes[:, 2:] - boxes[:, :2]).prod(-1),
        (others[:, 2:] - others[:, :2]).prod(-1),
    )
