"""Dense motion: where every pixel of a moved face comes from, by geometry alone.

A still is lifted to points: the face by its mesh, what is around it (hair, ears, neck, background) by a depth map. The
face goes where the mesh of the wanted frame says. What is around it turns with the head, less and less towards the
shoulders and the border, and follows the nearest expression. All points are projected and splatted onto the new frame,
near ones over far ones (softmax splatting, Niklaus and Liu, arXiv 2003.05534, eq. 14), which gives for each pixel its
place in the still. Where nothing lands, something was uncovered.

The frame is that of an aligned crop: x, y and z in shares of its side, z away from the camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from studio.faces.templates import CHIN, FACE_OVAL, FOREHEAD, LEFT_EYE_CORNERS, RIGHT_EYE_CORNERS
from studio.motion import surface
from studio.motion.head import head_poses

EYE_CORNERS = (*RIGHT_EYE_CORNERS, *LEFT_EYE_CORNERS)
GRID = 128  # points along the side of the crop, of what is around the face
COARSE = 4  # what changes slowly is computed for every such point
CELLS = 128  # of the frame onto which they are splatted
SHARPNESS = 40.0  # of the softmax over depth, per side of the crop
REACH = 0.12  # sides of the crop over which what is around the face follows its expression
SLOPE, DEEPEST = 0.55, 0.5  # without a depth map: how fast depth grows away from the face, and its end
ROUND = 0.12  # sides of the crop that hair may lie behind the outline of the face; what is further back is not seen
STILL_BORDER = 0.07  # share of the side, along the border, where nothing moves
BEHIND = 0.25  # sides of the crop, how far the eyeballs are taken to lie behind the lids
SURELY = (0.25, 0.65)  # how surely something is head where it begins to follow it, and where it wholly does
BESIDE = 0.02  # sides of the crop around the face that follow it whatever they are
UNSEEN = 0.08  # cosine of the angle to the camera from which on the still shows a place of the face
HOLE = 0.2  # of the mean weight of a cell: below it something was uncovered

Box = tuple[float, float]


@dataclass(frozen=True)
class Flow:
    """Where the pixels of N frames come from.

    Attributes:
        source: (N,2,CELLS,CELLS) float32, (x, y) in the still, in shares of its side.
        covered: (N,1,CELLS,CELLS) float32 in [0,1], 0 where the still shows nothing of it.
        depth: (N,1,CELLS,CELLS) float32, z of what lies there.
        inside: (N,2,CELLS,CELLS) float32 in [0,1], what is inside the lips, and inside the lids.
    """

    source: Tensor
    covered: Tensor
    depth: Tensor
    inside: Tensor

    @property
    def geometry(self) -> Tensor:
        """(N,4,CELLS,CELLS): covered, depth and inside, as `Reenactor` takes them."""
        return torch.cat([self.covered, self.depth, self.inside], 1)


class Still:
    """A face that is to be moved.

    Args:
        mesh: (468,3) of the still, in shares of the crop's side.
        depth: (1,1,h,w) map of the crop in the same unit, or None for one that falls away from the face.
        head: (1,1,h,w) in [0,1], what is head; the rest stays. None: all that lies near the face.
    """

    def __init__(self, mesh: np.ndarray, depth: Tensor | None = None, head: Tensor | None = None) -> None:
        self.mesh = torch.from_numpy(np.asarray(mesh, np.float32))
        self.poses = head_poses(self.mesh[None].numpy())
        places = (torch.arange(GRID) + 0.5) / GRID
        grid = torch.stack([places.repeat(GRID), places.repeat_interleave(GRID)], -1)  # (G², 2)
        oval = self.mesh[list(FACE_OVAL)]
        distance, share = near_outline(oval)
        outside = distance > 0
        grid, distance, share = grid[outside], distance[outside], share[outside]
        z = share @ oval[:, 2] + (SLOPE * distance).clamp_max(DEEPEST)
        if depth is not None:
            sampled = sample(depth, grid)[:, 0]
            z = sampled + share @ (oval[:, 2] - sample(depth, oval[:, :2])[:, 0]) * torch.exp(-distance / REACH)
            z = torch.minimum(z, share @ oval[:, 2] + ROUND)
        self.around = torch.cat([grid, z[:, None]], 1)  # (P, 3)
        self.share, self.near = share, torch.exp(-((distance / REACH) ** 2))[:, None]
        self.moves = self.follows(grid, distance)[:, None]
        if head is not None:
            surely = smooth((sample(head, grid)[:, :1] - SURELY[0]) / (SURELY[1] - SURELY[0]))
            self.moves = self.moves * torch.maximum(surely, torch.exp(-((distance[:, None] / BESIDE) ** 2)))
        self.face = surface.spread(self.mesh)  # (K, 3)
        self.shown = (surface.facing(self.mesh) / UNSEEN - 1).clamp(0, 1)
        turning = oval, self.around, self.mesh[list(EYE_CORNERS)], self.face[sum(surface.counts()[:2]) :]
        self.turning = self.poses.remove(torch.cat(turning)[None].numpy())  # (1, 36 + P + 4 + places in the lids, 3)

    def follows(self, grid: Tensor, distance: Tensor) -> Tensor:
        """How much places (P,2) turn with the head, (P,) in [0,1]: hair wholly, shoulders and the border not."""
        forehead, chin = self.mesh[FOREHEAD], self.mesh[CHIN]
        height = float((chin - forehead).norm())
        hair = smooth((0.8 * height - distance) / (0.5 * height))
        neck = smooth(1 - (grid[:, 1] - (float(chin[1]) - 0.05 * height)) / (0.42 * height))
        border = torch.minimum(grid, 1 - grid).amin(1)
        return hair * neck * smooth(border / STILL_BORDER)

    def depth(self) -> Tensor:
        """(1,1,CELLS,CELLS) z of the still itself: the mesh's, and around the face what `around` has."""
        points = torch.cat([self.face, self.around])
        weight = torch.cat([self.shown, torch.ones(len(self.around))])
        return splat(points[None], points[:, :2], weight[None]).depth

    def flow(self, meshes: np.ndarray, gaze: np.ndarray | None = None) -> Flow:
        """Where the pixels come from when the face's mesh is another.

        Args:
            meshes: (N,468,3) float32, in shares of the crop's side.
            gaze: (N,2) float32, how far the eyes turn from where they look in the still, right and down, in half widths
                of an eye; None leaves them.
        """
        wanted = torch.from_numpy(np.asarray(meshes, np.float32))
        turned = torch.from_numpy(head_poses(wanted.numpy()).place(self.turning))
        count, places = len(FACE_OVAL), len(self.around)
        oval, there, corners, balls = turned.split([count, places, len(EYE_CORNERS), sum(surface.counts()[2:])], 1)
        left = wanted[:, list(FACE_OVAL)] - oval  # (N, 36, 3), what the turn of the head leaves
        there = there + (self.share @ left) * self.near
        there = self.around + self.moves * (there - self.around)  # (N, P, 3)
        drift = (wanted[:, list(EYE_CORNERS)] - corners).unflatten(1, (2, 2)).mean(2)  # (N, 2, 3)
        balls = balls + self.eyes_moved(drift, gaze)
        face = surface.spread(wanted)[:, : -balls.shape[1]]
        weight = torch.cat([self.shown * seen(wanted), torch.ones(there.shape[:2])], 1)
        return splat(torch.cat([face, balls, there], 1), torch.cat([self.face, self.around])[:, :2], weight)

    def eyes_moved(self, drift: Tensor, gaze: np.ndarray | None) -> Tensor:
        """How far eyeballs move beside the turn of the head, (N,K,3) for the K places inside the lids.

        They go with the drift of their corners (N,2,3) and by the gaze, and lie behind the lids, which close over them.
        """
        ends = self.mesh[list(EYE_CORNERS), :2].unflatten(0, (2, 2))
        moved = drift + drift.new_tensor([0, 0, BEHIND])
        if gaze is not None:
            half = (ends[:, 1] - ends[:, 0]).norm(dim=1) / 2
            moved[..., :2] += half[:, None] * torch.from_numpy(np.asarray(gaze, np.float32))[:, None]
        return moved.repeat_interleave(torch.tensor(surface.counts()[2:]), 1)


def seen(mesh: Tensor) -> Tensor:
    """(N,K) in [0,1]: what of the faces (N,468,3) looks to the camera; the rest lies behind, and is not splatted."""
    return (surface.facing(mesh) * 20 + 1).clamp(0, 1)


def smooth(x: Tensor) -> Tensor:
    """0 below 0, 1 above 1, and a cubic without a corner in between."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def around(points: Tensor, outline: Tensor) -> tuple[Tensor, Tensor]:
    """How far places (P,2) lie outside an outline (K,2 or 3), 0 inside; and how near each of its corners is, (P,K).

    The shares sum to 1 and fall with the fourth power of the distance.
    """
    a = outline[:, :2]
    b = a.roll(-1, 0)
    along = (b - a) / (b - a).square().sum(1, keepdim=True).clamp_min(1e-12)
    t = ((points[:, None] - a) * along).sum(-1, keepdim=True).clamp(0, 1)
    distance = (points[:, None] - a - t * (b - a)).norm(dim=-1).amin(1)
    above = (a[:, 1] > points[:, None, 1]) != (b[:, 1] > points[:, None, 1])
    rise = (b - a)[:, 1]
    across = (
        a[:, 0] + (points[:, None, 1] - a[:, 1]) / torch.where(rise == 0, torch.ones_like(rise), rise) * (b - a)[:, 0]
    )
    inside = (above & (points[:, None, 0] < across)).sum(1) % 2 == 1
    share = (points[:, None] - a).norm(dim=-1).clamp_min(1e-4) ** -4
    return torch.where(inside, torch.zeros_like(distance), distance), share / share.sum(1, keepdim=True)


def near_outline(outline: Tensor) -> tuple[Tensor, Tensor]:
    """`around` for all places of the grid, (G²,) and (G²,K): computed for every `COARSE`th, and interpolated."""
    side = GRID // COARSE
    places = (torch.arange(side) + 0.5) / side
    distance, share = around(torch.stack([places.repeat(side), places.repeat_interleave(side)], -1), outline)
    maps = torch.cat([distance[:, None], share], 1).T.reshape(1, -1, side, side)
    maps = F.interpolate(maps, (GRID, GRID), mode="bilinear", align_corners=False)[0].flatten(1).T
    return maps[:, 0], maps[:, 1:]


def sample(values: Tensor, places: Tensor) -> Tensor:
    """Values (1,C,h,w) at places (P,2) in shares of the side, (P,C)."""
    return F.grid_sample(values, places[None, None] * 2 - 1, padding_mode="border", align_corners=False)[0, :, 0].T


def splat(points: Tensor, origins: Tensor, weight: Tensor) -> Flow:
    """Project points (N,K,3) and say for every cell where what it shows comes from.

    Args:
        points: in shares of the side; the first `surface.counts()` are those of the face.
        origins: (K,2), their places in the still.
        weight: (N,K) in [0,1].
    """
    skin, mouth, *lids = surface.counts()
    near = weight * torch.exp(-SHARPNESS * points[..., 2])
    across, down = points[..., :2].mul(CELLS).sub_(0.5).clamp_(-1, CELLS).unbind(-1)
    left, top = across.floor(), down.floor()
    right, below = across - left, down - top
    shares = torch.stack(
        [(1 - right) * (1 - below), right * (1 - below), (1 - right) * below, right * below]
    )  # (4, N, K)
    wide = CELLS + 3  # a border, where what lies outside is dropped
    first = ((top + 1) * wide + left + 1).long() + torch.arange(len(points))[:, None] * wide * wide
    cells = first + torch.tensor([0, 1, wide, wide + 1])[:, None, None]  # (4, N, K)
    nearer = shares * near

    def total(values: Tensor, part: slice = slice(None)) -> Tensor:  # column by column: far quicker than in rows
        sums = values.new_zeros(len(points) * wide * wide)
        sums.scatter_add_(0, cells[..., part].flatten(), values.flatten())
        return sums.view(-1, 1, wide, wide)[..., 1 : CELLS + 1, 1 : CELLS + 1]

    sums = [total(nearer * column) for column in (origins[:, 0], origins[:, 1], points[..., 2])]
    sums += [
        total(nearer[..., part], part)
        for part in (slice(skin, skin + mouth), slice(skin + mouth, skin + mouth + sum(lids)))
    ]
    covered = (total(shares * weight) / (HOLE * (GRID / CELLS) ** 2)).clamp(0, 1)
    mean = torch.cat(sums, 1) / total(nearer).clamp_min(1e-20)  # (N, 5, CELLS, CELLS)
    filled = fill(mean, (covered > 0.5).float())
    return Flow(filled[:, :2], covered, filled[:, 2:3], filled[:, 3:].clamp(0, 1))


def fill(values: Tensor, known: Tensor) -> Tensor:
    """Values (N,C,h,w) where they are known (N,1,h,w), and elsewhere the mean of what is known near by."""
    if known.shape[-1] <= 2 or bool((known == 1).all()):
        return values
    share = F.avg_pool2d(known, 2)
    small = F.avg_pool2d(values * known, 2) / share.clamp_min(1e-6)
    coarse = fill(small, (share > 0).float())
    larger = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    return torch.lerp(larger, values, known)


def warp(picture: Tensor, source: Tensor) -> Tensor:
    """Pictures or maps (N,C,S,S) where a flow's `source` (N,2,c,c) says that their pixels come from; (N,C,S,S)."""
    size = picture.shape[-1]
    places = F.interpolate(source, (size, size), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    return F.grid_sample(picture, places * 2 - 1, mode="bicubic", padding_mode="border", align_corners=False)
