"""The face as a dense surface: fixed places between the mesh points, the same on every face and in every expression."""

from __future__ import annotations

import itertools
from functools import cache, reduce

import numpy as np
import torch
from torch import Tensor

from studio.faces.mean_mesh import MEAN_MESH
from studio.motion.triangles import LEFT_LIDS, MOUTH, RIGHT_LIDS, SKIN, TRIANGLES

DENSITY = 96  # places along the side of an aligned crop


@cache
def places() -> tuple[Tensor, Tensor]:
    """Corners (K,3) int64 and their shares (K,3) float32 of the places; large triangles have many, small ones one."""
    corners, shares = [], []
    for triangle in TRIANGLES:
        a, b, c = MEAN_MESH[triangle]
        longest = max(np.linalg.norm(a - b), np.linalg.norm(b - c), np.linalg.norm(c - a))
        count = max(1, int(np.ceil(longest * DENSITY)))
        i, j = np.meshgrid(np.arange(count), np.arange(count), indexing="ij")
        first, second = (i + 1 / 3) / count, (j + 1 / 3) / count
        inside = first + second < 1
        some = np.stack([first, second, 1 - first - second], -1)[inside]
        corners.append(np.broadcast_to(triangle, some.shape))
        shares.append(some)
    return torch.from_numpy(np.concatenate(corners)).long(), torch.from_numpy(np.concatenate(shares)).float()


@cache
def numbers() -> Tensor:
    """In which of the triangles the places lie, (K,) int64."""
    order = {tuple(triangle): k for k, triangle in enumerate(TRIANGLES.tolist())}
    return torch.tensor([order[tuple(triangle)] for triangle in places()[0].tolist()])


@cache
def counts() -> tuple[int, ...]:
    """How many places are skin, inside the lips, inside the right lids and inside the left ones."""
    edges = np.cumsum([0, SKIN, MOUTH, RIGHT_LIDS, LEFT_LIDS])
    number = numbers().numpy()
    return tuple(int(((number >= low) & (number < high)).sum()) for low, high in itertools.pairwise(edges))


def spread(points: Tensor) -> Tensor:
    """Values (…,468,C) of the mesh points at every place, (…,K,C)."""
    corners, shares = places()
    corners, shares = corners.to(points.device), shares.to(points)
    values = (shares[:, k, None] * points.index_select(-2, corners[:, k]) for k in range(3))
    return reduce(torch.add, values)


def facing(mesh: Tensor) -> Tensor:
    """How much the surface at every place looks to the camera: the cosine, (…,K), of a mesh (…,468,3)."""
    a, b, c = (mesh[..., TRIANGLES[:, k], :] for k in range(3))
    normal = torch.linalg.cross(b - a, c - a)
    cosine = normal[..., 2] / normal.norm(dim=-1).clamp_min(1e-9)
    return cosine.index_select(-1, numbers().to(mesh.device))
