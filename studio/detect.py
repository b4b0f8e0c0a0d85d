"""Detection: where in a photo faces may be, before the mesh looks at them.

Two detectors, one answer (`Detected`): `Pyramid` runs the finder's own network on the photo, shrunk to a third again
and again until the largest faces are small; `BlazePair` runs two published networks on squares of the photo. The first
sees what damage has left little of, the second more of what is sharp: the studio asks both (`Together`), and
`studio bench find` compares them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.errors import InputError
from studio.faces.given import mean_mesh_on
from studio.faces.templates import five_points
from studio.networks import detector as blaze
from studio.networks.detector import FaceDetector
from studio.networks.finder import MULTIPLE, FinderNet, cell_middles
from studio.networks.finder import decode as decode_cells

# The photo's longer side as the network sees it first: larger ones shrink to the most, smaller ones grow to the least,
# up to twice their size.
MOST, LEAST, GROWTH = 1600, 448, 2.0
STEP = 3.0  # from one size to the next; the network sees faces in a range of twenty sizes
LAST = 96  # px, the longer side at which a face that fills the photo is well seen
# The network knows faces that are turned by up to 45 degrees. For the others the photo is turned itself, and shrunk to
# this longer side: people who lie are seldom small.
TURNED = 640
# What is found at several sizes, or twice at one, is one face: see `nms`. Two faces that touch are two.
OVERLAP, INSIDE = 0.4, 0.75
ALONE = 0.93  # what ours sees alone counts so much less
TRUSTED = 0.5  # score of ours from which on its word counts for a face that the published pair sees, too
# For the published pair: a tile side of 12.5 faces shows a face about 20 px wide to the 256 px network.
FACES_PER_TILE = 12.5
SMALLEST_FACE, SMALLEST_FACE_SHARE = 28.0, 1 / 80
TILE_OVERLAP = 0.25
BATCH = 2  # squares at once; with more, their features leave the processor's cache and it gets slower


@dataclass(frozen=True)
class Detected:
    """Faces that may be, best first; lengths are pixels of the photo.

    Attributes:
        boxes: (N,4) xyxy.
        scores: (N,) in [0,1].
        points: (N,5,2), right eye, left eye, tip of the nose, right and left corner of the mouth, of the person.
        pose: (N,3) degrees, as `pose_from_mesh`; zeros from a detector that does not know it.
        quality: (N,) in [0,1], how much of the face is to be seen and how well; ones likewise.
    """

    boxes: Tensor
    scores: Tensor
    points: Tensor
    pose: Tensor
    quality: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, key: Tensor | list[int] | slice) -> Detected:
        return Detected(**{field.name: getattr(self, field.name)[key] for field in fields(self)})

    def shifted(self, corner: Tensor) -> Detected:
        """The same in a photo in which this one begins at `corner` (2,)."""
        return Detected(self.boxes + corner.repeat(2), self.scores, self.points + corner, self.pose, self.quality)

    def enlarged(self, times: Tensor) -> Detected:
        """The same in a photo `times` (2,) as large, across and down."""
        return replace(self, boxes=self.boxes * times.repeat(2), points=self.points * times)

    def turned_back(self, quarters: int, height: int, width: int) -> Detected:
        """What was found in a photo (H,W) after `torch.rot90(photo, quarters, (1, 2))`, in the photo as it was."""
        corners, points = self.boxes.view(-1, 2, 2), self.points
        for k in range(quarters, 0, -1):  # each quarter made the width before it the height after it
            before = width if k % 2 else height
            corners, points = (torch.stack([before - p[..., 1], p[..., 0]], -1) for p in (corners, points))
        boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
        roll = (self.pose[:, 2] + 90 * quarters + 180) % 360 - 180
        pose = torch.cat([self.pose[:, :2], roll[:, None]], 1)
        return Detected(boxes, self.scores, points, pose, self.quality)


class Detector(Protocol):
    """What `FaceFinder` asks first."""

    def __call__(self, image: Tensor, min_score: float) -> Detected:
        """Faces of a photo (3,H,W) float32 RGB in [0,1] whose score is at least that."""

    def to(self, device: torch.device | str) -> Detector:
        """Moves the networks; returns self."""


class Pyramid:
    """The finder's network on a photo of several sizes, upright and turned by 90, 180 and 270 degrees.

    A face that is seen in several of them counts as it is seen best: the right way up.

    Args:
        net: folded or not.
    """

    def __init__(self, net: FinderNet) -> None:
        self.net = net.eval()

    def to(self, device: torch.device | str) -> Pyramid:
        """As `Detector.to`."""
        self.net.to(device)
        return self

    @torch.no_grad()
    def __call__(self, image: Tensor, min_score: float) -> Detected:
        """As `Detector.__call__`."""
        found = [self.look(view, scale, min_score) for view, scale in shrunk(image)]
        small = sized(image, min(max(image.shape[-2:]), TURNED))  # once, and not for every turn
        height, width = small.shape[-2:]
        larger = image.new_tensor([image.shape[-1] / width, image.shape[-2] / height])
        for quarters in (1, 2, 3):
            found += [
                self.look(view, scale, min_score).turned_back(quarters, height, width).enlarged(larger)
                for view, scale in shrunk(torch.rot90(small, quarters, (1, 2)), TURNED)
            ]
        return best(found)

    def look(self, view: Tensor, scale: Tensor, min_score: float) -> Detected:
        """One size of the photo.

        Args:
            view: (3,h,w), padded.
            scale: (2,) its pixels for one of the photo, across and down.
            min_score: least score.
        """
        x = view[None].to(self.net.device, self.net.dtype).contiguous(memory_format=torch.channels_last)
        raw = self.net(x)[0].movedim(0, -1).float()  # (h/8, w/8, 35)
        logits = raw[..., 0]
        peak = F.max_pool2d(logits[None], 3, 1, 1)[0]
        row, column = torch.nonzero((logits == peak) & (logits.sigmoid() >= min_score), as_tuple=True)
        said = decode_cells(raw[row, column], cell_middles(*view.shape[1:]).to(raw)[row, column])
        seen = said.shown.sigmoid() * (1 - said.spread / WORST).clamp(0, 1)
        return Detected(said.boxes / scale.repeat(2), said.logits.sigmoid(), said.points / scale, said.pose, seen)


WORST = 0.2  # expected distance of the points, in sides of the face, at which the quality is 0


def shrunk(image: Tensor, most: float = MOST) -> list[tuple[Tensor, Tensor]]:
    """A photo as the network looks at it, largest first.

    Args:
        image: (3,H,W).
        most: px of the longer side of the largest.

    Returns:
        Pictures (3,h,w) with sides that 64 divides, grey where the photo has ended, and the pixels of each for one of
        the photo, (2,) across and down.
    """
    height, width = image.shape[-2:]
    longest = max(height, width)
    side = float(min(max(longest, min(LEAST, GROWTH * longest)), most))
    views = []
    while True:
        size = [max(1, round(n * side / longest)) for n in (height, width)]
        image = resized(image, size)  # shrinking what is shrunk costs next to nothing
        padding = [-n % MULTIPLE for n in size]
        padded = F.pad(image, (0, padding[1], 0, padding[0]), value=0.5)
        views.append((padded, image.new_tensor([size[1] / width, size[0] / height])))
        if side <= LAST:
            return views
        side = max(side / STEP, LAST)


def sized(image: Tensor, longest: float) -> Tensor:
    """A picture (3,H,W) whose longer side is that."""
    share = longest / max(image.shape[-2:])
    return resized(image, [max(1, round(n * share)) for n in image.shape[-2:]])


def resized(image: Tensor, size: list[int]) -> Tensor:
    """A picture (3,H,W) of another size, antialiased."""
    if size == list(image.shape[-2:]):
        return image
    return F.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)[0]


def best(found: Sequence[Detected]) -> Detected:
    """What was found in several looks at a photo, every face once."""
    together = Detected(*(torch.cat([getattr(part, field.name) for part in found]) for field in fields(Detected)))
    return together[nms(together.boxes, together.scores)]


def nms(boxes: Tensor, scores: Tensor) -> list[int]:
    """Indices of the boxes that are faces of their own, best first; see `blaze.nms`."""
    return blaze.nms(boxes, scores, OVERLAP, INSIDE)


class BlazePair:
    """BlazeFace, in two variants that miss different faces: both on the whole photo, the second one on tiles too.

    Args:
        full_range: variant "full_range".
        back: variant "back".

    Raises:
        InputError: they are of other variants.
    """

    def __init__(self, full_range: FaceDetector, back: FaceDetector) -> None:
        for net, variant in ((full_range, "full_range"), (back, "back")):
            if net.config.variant != variant:
                raise InputError(f"this place takes the {variant} detector, got {net.config.variant}: swap them")
        self.detectors = [net.eval() for net in (full_range, back)]

    def to(self, device: torch.device | str) -> BlazePair:
        """As `Detector.to`."""
        for net in self.detectors:
            net.to(device)
        return self

    @torch.no_grad()
    def __call__(self, image: Tensor, min_score: float) -> Detected:
        """As `Detector.__call__`."""
        found = []
        for side, corners in tiles(*image.shape[-2:]):
            # On tiles the second one is enough: it sees smaller faces, and they would be most of the time.
            for net in self.detectors if len(corners) == 1 else self.detectors[1:]:
                found.append(self.look(net, image, side, corners, min_score))
        boxes, scores, points = (torch.cat(parts) for parts in zip(*found, strict=True))
        kept = blaze.nms(boxes, scores)
        boxes, scores = boxes[kept], scores[kept]
        # It knows no corners of the mouth: those of the mean face, laid on the eyes and the nose.
        laid = five_points(mean_mesh_on(points[kept, :3].cpu().numpy(), range(3)))
        points = torch.from_numpy(laid).to(boxes)
        return Detected(boxes, scores, points, boxes.new_zeros(len(boxes), 3), torch.ones_like(scores))

    def look(
        self, net: FaceDetector, image: Tensor, side: float, corners: Tensor, min_score: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One network on the squares of one size: boxes, scores and points, not yet suppressed."""
        height, width = image.shape[-2:]
        corners = corners.to(image)
        squares = cut(image, side, corners, net.size) * 2 - 1
        parts = [net(part.to(net.dtype)) for part in squares.split(BATCH)]
        raw, logits = (torch.cat(p).float() for p in zip(*parts, strict=True))
        boxes, scores, points = blaze.decode(raw, logits, net.config.variant)
        view, anchor = torch.nonzero(scores >= min_score, as_tuple=True)
        boxes, scores, points = boxes[view, anchor], scores[view, anchor], points[view, anchor]
        # A face cut by a tile's edge is whole in the next tile; at the photo's edge there is no next tile.
        edge = 0.01
        least, most = corners[view] > 0, corners[view] + side < torch.tensor([width, height]).to(image)
        cut_off = (least & (boxes[:, :2] < edge)) | (most & (boxes[:, 2:] > 1 - edge))
        whole = ~cut_off.any(1)
        shift = corners[view][whole]
        return boxes[whole] * side + shift.repeat(1, 2), scores[whole], points[whole] * side + shift[:, None]


class Together:
    """The finder's network and the published pair: what either of them sees.

    Where both see a face ours says which way up it is, because the pair doesn't know, and the surer one how sure.

    Args:
        net: see `Pyramid`.
        full_range: see `BlazePair`.
        back: see `BlazePair`.
    """

    def __init__(self, net: FinderNet, full_range: FaceDetector, back: FaceDetector) -> None:
        self.ours, self.published = Pyramid(net), BlazePair(full_range, back)

    def to(self, device: torch.device | str) -> Together:
        """As `Detector.to`."""
        self.ours.to(device)
        self.published.to(device)
        return self

    def __call__(self, image: Tensor, min_score: float) -> Detected:
        """As `Detector.__call__`."""
        return best([*together(self.ours(image, min_score), self.published(image, min_score))])


def together(ours: Detected, published: Detected) -> tuple[Detected, Detected]:
    """What ours sees, as sure as the surer of both, and of the published pair's what ours does not see."""
    if not len(ours):
        return ours, published
    if not len(published):
        return replace(ours, scores=ALONE * ours.scores), published
    shared = blaze.overlap(published.boxes, ours.boxes) * (ours.scores >= TRUSTED)
    most, mine = shared.max(1)
    same = most >= OVERLAP
    scores = (ALONE * ours.scores).scatter_reduce(0, mine[same], published.scores[same], "amax")
    return replace(ours, scores=scores), published[torch.nonzero(~same)[:, 0]]


def tiles(height: int, width: int) -> list[tuple[float, Tensor]]:
    """Squares that the published pair looks at.

    Args:
        height: of the photo, pixels.
        width: of the photo, pixels.

    Returns:
        Per level the side of its squares and their top left corners (K,2) as (x, y), in pixels of the photo. The first
        level is the whole photo in the middle of one square; then tiles, each level about half as large.
    """
    whole = float(max(height, width))
    corner = torch.tensor([[(width - whole) / 2, (height - whole) / 2]])
    levels = [(whole, corner)]
    times = whole / (FACES_PER_TILE * max(SMALLEST_FACE, SMALLEST_FACE_SHARE * whole))
    count = math.floor(math.log2(max(times, 1)) + 0.5)
    for k in range(1, count + 1):
        side = whole / times ** (k / count)
        x, y = (starts(length, side) for length in (width, height))
        levels.append((side, torch.cartesian_prod(x, y)))
    return levels


def starts(length: int, side: float) -> Tensor:
    """Where tiles begin along one edge, evenly, so that neighbours share at least `TILE_OVERLAP` of a tile."""
    if length <= side:
        return torch.tensor([(length - side) / 2])
    count = math.ceil((length - side) / (side * (1 - TILE_OVERLAP))) + 1
    return torch.linspace(0, length - side, count)


def cut(image: Tensor, side: float, corners: Tensor, size: int) -> Tensor:
    """Squares of the photo, shrunk with antialiasing, black where they leave it.

    Args:
        image: (3,H,W).
        side: of the squares, pixels of the photo.
        corners: (K,2) top left corners as (x, y), pixels of the photo.
        size: pixels of the result.

    Returns:
        (K,3,size,size), channels last.
    """
    scale = size / side
    height, width = (max(1, round(n * scale)) for n in image.shape[-2:])
    small = F.interpolate(image[None], (height, width), mode="bilinear", antialias=True, align_corners=False)
    small = F.pad(small, (size, size, size, size))[0]
    places = ((corners * scale).round().long() + size).tolist()
    squares = torch.stack([small[:, y : y + size, x : x + size] for x, y in places])
    return squares.contiguous(memory_format=torch.channels_last)
