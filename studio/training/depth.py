"""Training `DepthNet`: the mesh's z inside the face, and turned people around it.

Of two pictures of one generated person, the depth of the first says where each of its pixels lies in the second, once
the head is turned as the meshes say. Where the colours there agree the depth was right (Zhou et al., arXiv 1704.07813,
eq. 1, with known poses). Only the head is asked: hair, ears, the upper neck. What is head says the restorer
(`studio.training.heads_of`); the network learns to say it, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from studio.motion.dense import CELLS, Still
from studio.motion.head import HeadPoses, angles, head_poses
from studio.training.acted import ActedFaces
from studio.training.steps import StepTrainer, channels_last, generator_of

TURNED = (6.0, 45.0)  # degrees between the two pictures
INSIDE, AROUND, SMOOTH, HEAD = 6.0, 3.0, 0.05, 0.5
FOLLOWS, SURELY = 0.2, 0.6  # of `Still.follows`, and how surely it is head, from which on a place is asked


@dataclass(frozen=True)
class Pair:
    """Two pictures of a person, in sides of the crop.

    Attributes:
        first, second: (3,256,256) uint8.
        rough: (1,CELLS,CELLS) depth of the first, by its mesh alone.
        inside: (1,CELLS,CELLS) 1 on the face.
        around: likewise, on what is near enough to turn with it.
        head: (1,32,32) in [0,1], how surely it is head.
        poses: of the two heads.
    """

    first: Tensor
    second: Tensor
    rough: Tensor
    inside: Tensor
    around: Tensor
    head: Tensor
    poses: HeadPoses


def turned_pairs(acted: ActedFaces) -> list[tuple[int, int, int]]:
    """Person and two views, of all usable pairs that are turned apart as far as `TURNED` says."""
    count, views = acted.usable.shape
    poses = head_poses(acted.mesh.flatten(0, 1).float().numpy())
    turn = poses.rotation.reshape(count, views, 3, 3)
    found = []
    for a in range(views):
        for b in range(views):
            between = angles(turn[:, b] @ turn[:, a].transpose(0, 2, 1))
            apart = np.abs(between[:, :2]).max(1)
            good = acted.usable[:, a] & acted.usable[:, b] & torch.from_numpy((apart > TURNED[0]) & (apart < TURNED[1]))
            found += [(person, a, b) for person in good.nonzero()[:, 0].tolist()]
    return sorted(found)


def rough_depth(mesh: np.ndarray) -> tuple[Tensor, Still]:
    """(1,1,CELLS,CELLS) depth by a mesh (468,3) alone, and the still that it comes from."""
    still = Still(mesh)
    return still.depth(), still


def follow(depth: Tensor, poses: list[HeadPoses]) -> Tensor:
    """Where the pixels of heads (N,1,h,h) lie in the second pictures, (N,h,h,2) in sides of the crop."""
    side = depth.shape[-1]
    places = (torch.arange(side) + 0.5) / side
    x, y = places.expand(side, side), places[:, None].expand(side, side)
    points = torch.stack([x.expand(len(depth), -1, -1), y.expand(len(depth), -1, -1), depth[:, 0]], -1).flatten(1, 2)
    scale, turn, shift = (
        torch.from_numpy(np.stack([getattr(p, name) for p in poses])) for name in ("scale", "rotation", "translation")
    )
    local = (points - shift[:, :1]) @ turn[:, 0] / scale[:, :1, None]
    there = scale[:, 1:, None] * local @ turn[:, 1].mT + shift[:, 1:]
    return there[..., :2].unflatten(1, (side, side))


@dataclass
class DepthTrainer(StepTrainer):
    """Trains `DepthNet`.

    Args:
        acted: pictures and meshes.
        heads: (P,V,1,32,32) of `load_heads`.
    """

    name: ClassVar[str] = "depth"
    acted: ActedFaces = field(kw_only=True)
    heads: Tensor = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pairs = turned_pairs(self.acted)
        self.known: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}

    def still(self, person: int, view: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rough depth, face and surroundings of a picture, (1,CELLS,CELLS) each; kept once made."""
        if (person, view) not in self.known:
            rough, still = rough_depth(self.acted.mesh[person, view].float().numpy())
            head = torch.zeros(CELLS, CELLS)
            x, y = (still.around[:, :2] * CELLS).long().clamp(0, CELLS - 1).T
            head[y, x] = still.moves[:, 0]
            inside = torch.ones(CELLS, CELLS)
            inside[y, x] = 0
            self.known[person, view] = rough[0].half(), inside[None].half(), (head[None] > FOLLOWS).half()
        return self.known[person, view]

    def examples(self, step: int) -> list[Pair]:
        """Pairs of a step."""
        rng = generator_of(step)
        chosen = torch.randint(len(self.pairs), (self.batch,), generator=rng).tolist()
        rows = []
        for person, a, b in (self.pairs[i] for i in chosen):
            rough, inside, around = (part.float() for part in self.still(person, a))
            poses = head_poses(self.acted.mesh[person, [a, b]].float().numpy())
            faces = self.acted.faces[person]
            rows.append(Pair(faces[a], faces[b], rough, inside, around, self.heads[person, a].float(), poses))
        return rows

    def losses(self, examples: Any) -> dict[str, Tensor]:
        """Depth of the face, colours around it, and no steps where the picture has none."""
        first, second = (
            torch.stack([getattr(pair, name) for pair in examples]).float() / 255 for name in ("first", "second")
        )
        rough, inside, around, head = (
            torch.stack([getattr(pair, name) for pair in examples]) for name in ("rough", "inside", "around", "head")
        )
        depth, sure = self.net(*channels_last([first, rough]))
        side = depth.shape[-1]
        head = F.interpolate(head, (side, side), mode="bilinear", align_corners=False)
        small, inside, around = (F.adaptive_avg_pool2d(x, side) for x in (rough, inside, around))
        seen, there = (F.interpolate(x, (2 * side, 2 * side), mode="area") for x in (first, second))
        larger = F.interpolate(depth, scale_factor=2, mode="bilinear", align_corners=False)
        places = follow(larger, [pair.poses for pair in examples])
        found = F.grid_sample(there, places * 2 - 1, padding_mode="border", align_corners=False)
        landed = ((places > 0) & (places < 1)).all(-1)[:, None]
        asked = F.interpolate(around * (head > SURELY), scale_factor=2) * landed
        terms = [
            ((F.avg_pool2d(found - seen, k).abs() + 1e-6).sqrt() * F.avg_pool2d(asked, k)).mean() for k in (1, 2, 4)
        ]
        shade = F.avg_pool2d(seen, 2).mean(1, keepdim=True)
        smooth = sum((depth.diff(dim=d).abs() * torch.exp(-20 * shade.diff(dim=d).abs())).mean() for d in (2, 3))
        return {
            "inside": INSIDE * ((depth - small).abs() * (inside > 0.99)).mean(),
            "around": AROUND * sum(terms) / 3,
            "smooth": SMOOTH * smooth * side / 8,
            "head": HEAD * F.binary_cross_entropy(sure, head),
        }
