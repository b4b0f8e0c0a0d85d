"""Examples for `Reenactor`: a still, the flow of a dense motion, and what the frame must show.

Two kinds. *Acted*: two pictures of one generated person; the second is the target, with all that the prior changed
besides pose and expression. *Returned*: a face, real or generated, is moved by geometry to another pose and expression,
and the network learns to come back: every pixel of its target is real, teeth and hair included, and the still has its
mouth closed where the target's is open.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from studio.errors import InputError
from studio.faces.templates import FACE_OVAL
from studio.find import FaceFinder
from studio.latents.measure import MIN_PRESENCE, place_aligned
from studio.motion.dense import GRID, Flow, Still, near_outline, warp
from studio.motion.head import HeadPoses, head_poses, rotations
from studio.motion.retarget import LOWER_LIP, UPPER_LIP
from studio.networks.depth import DepthNet
from studio.photosets import held_out
from studio.training.acted import SIZE, ActedFaces, load_acted
from studio.training.data import load_real_faces
from studio.training.turned import write

SHARD = 64
FIRST_SEED = 15_000_000
RETURNED = 0.6  # share of the examples that are
REAL = 0.5  # of the returned, with real faces
TURN = (14.0, 8.0, 5.0)  # degrees, standard deviations of yaw, pitch and roll of a returned still
SHIFT, ZOOM = 0.02, 0.05  # standard deviations, sides of the crop and share
NEAR = 0.08  # sides of the crop around the face
UPPER, LOWER = 13, 14  # middle of the inner lips


@dataclass(frozen=True)
class RealFaces:
    """Aligned photographs (N,3,SIZE,SIZE) uint8 with their meshes (N,468,3) in sides of the picture."""

    faces: Tensor
    mesh: np.ndarray


def read_faces(folder: Path, finder: FaceFinder) -> RealFaces:
    """The aligned photographs of a folder that are not kept for measuring.

    Raises:
        InputError: there are none.
    """
    pictures = torch.cat(
        [load_real_faces(folder / "aligned_clean", held_out(folder)), load_real_faces(folder / "aligned_studio")]
    )
    faces, meshes = [], []
    for face in pictures:
        found = place_aligned(finder, face[None].float() / 255)
        if found.presence[0] >= MIN_PRESENCE:
            faces.append(face)
            meshes.append(found.mesh[0] / SIZE)
    if not faces:
        raise InputError(f"{folder} must hold aligned faces in which the mesh sees a face, and holds none")
    return RealFaces(torch.stack(faces), np.stack(meshes))


class ExampleMaker:
    """Makes examples.

    Args:
        acted: generated people.
        real: photographs, or None.
        depth: the depth network, or None for the mesh's own depth.
    """

    def __init__(self, acted: ActedFaces, real: RealFaces | None, depth: DepthNet | None) -> None:
        self.acted, self.real, self.depth = acted, real, depth
        shape = acted.mesh.shape[:2]
        mesh = acted.mesh.flatten(0, 1).float().numpy()
        self.local = head_poses(mesh).remove(mesh).reshape(*shape, *mesh.shape[1:])  # (P, V, 468, 3)
        self.pairs = [
            (person, a, b)
            for person, good in enumerate(acted.usable.tolist())
            for a in range(shape[1])
            for b in range(shape[1])
            if a != b and good[a] and good[b]
        ]

    def example(self, rng: torch.Generator) -> dict[str, Tensor]:
        """One example, see `made`; and `weight`, (1,GRID,GRID), how much its pixels are asked."""
        kind = torch.rand(2, generator=rng)
        person, a, b = self.pairs[int(torch.randint(len(self.pairs), (1,), generator=rng))]
        if kind[0] >= RETURNED:
            faces, mesh = self.acted.faces[person], self.acted.mesh[person].float().numpy()
            shown = near_face(mesh[b])
            return self.made(faces[a].float() / 255, mesh[a], faces[b].float() / 255, mesh[b]) | {"weight": shown}
        if self.real is not None and kind[1] < REAL:
            chosen = int(torch.randint(len(self.real.faces), (1,), generator=rng))
            face, mesh = self.real.faces[chosen].float() / 255, self.real.mesh[chosen]
        else:
            other = self.pairs[int(torch.randint(len(self.pairs), (1,), generator=rng))]
            face, mesh = (
                self.acted.faces[other[0], other[1]].float() / 255,
                self.acted.mesh[other[0], other[1]].float().numpy(),
            )
        elsewhere = self.elsewhere(mesh, self.local[person, b] - self.local[person, a], rng)
        still, _ = self.moved(face, mesh, elsewhere)
        return self.made(still, elsewhere, face, mesh) | {"weight": torch.ones(1, GRID, GRID).half()}

    def elsewhere(self, mesh: np.ndarray, change: np.ndarray, rng: torch.Generator) -> np.ndarray:
        """A mesh (468,3) with another's change of expression, turned, shifted and zoomed at random."""
        poses = head_poses(mesh[None])
        local = poses.remove(mesh[None])
        if opening(local[0]) + opening(change) < 0 or bool(torch.rand((), generator=rng) < 0.3):
            change = change - change[[LOWER]] + change[[UPPER]] if opening(change) > 0 else change
        local = closed(local + change)
        turn = rotations((torch.randn(1, 3, generator=rng) * torch.tensor(TURN)).numpy())
        shift = SHIFT * torch.randn(1, 3, generator=rng).numpy()
        zoom = float(1 + ZOOM * torch.randn((), generator=rng))
        moved = HeadPoses(poses.scale * np.float32(zoom), turn @ poses.rotation, poses.translation + shift)
        return moved.place(local)[0]

    def moved(self, face: Tensor, mesh: np.ndarray, wanted: np.ndarray) -> tuple[Tensor, Flow]:
        """A face (3,S,S) moved by geometry to another mesh, and the flow."""
        flow = Still(mesh, *self.depth_of(face, mesh)).flow(wanted[None])
        return warp(face[None], flow.source)[0].clamp(0, 1), flow

    @torch.no_grad()
    def depth_of(self, face: Tensor, mesh: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """Depth and head (1,1,h,w) of a face (3,S,S)."""
        rough = Still(mesh).depth()
        return (rough, None) if self.depth is None else self.depth(face[None], rough)

    def made(self, still: Tensor, mesh: np.ndarray, target: Tensor, wanted: np.ndarray) -> dict[str, Tensor]:
        """An example: still and target (3,S,S) uint8, depth, source and geometry in half precision."""
        depth, head = self.depth_of(still, mesh)
        flow = Still(mesh, depth, head).flow(wanted[None])
        return {
            "still": (still * 255).round().byte(),
            "target": (target * 255).round().byte(),
            "depth": depth[0].half(),
            "source": flow.source[0].half(),
            "geometry": flow.geometry[0].half(),
        }


def near_face(mesh: np.ndarray) -> Tensor:
    """(1,GRID,GRID) float16 in [0,1]: 1 on the face, 0 where the prior draws another background for each view."""
    distance, _ = near_outline(torch.from_numpy(mesh)[list(FACE_OVAL)])
    return torch.exp(-((distance / NEAR) ** 2)).view(1, GRID, GRID).half()


def opening(local: np.ndarray) -> float:
    """How far the inner lips (468,3) are apart, head frame."""
    return float(local[LOWER, 1] - local[UPPER, 1])


def closed(local: np.ndarray) -> np.ndarray:
    """Meshes (1,468,3) whose lips do not cross: where they would, the lower one is lifted no further than the upper."""
    local = local.copy()
    crossed = np.minimum(local[:, LOWER_LIP, 1] - local[:, UPPER_LIP, 1], 0)
    local[:, LOWER_LIP, 1] -= crossed / 2
    local[:, UPPER_LIP, 1] += crossed / 2
    return local


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` lies in a cache folder."""
    return folder / f"moved-{number:05d}.safetensors"


def make_moved(
    folder: Path,
    count: int,
    acted: Path,
    photos: Path | None,
    depth: Path | None,
    report: Callable[[str], None] = print,
) -> None:
    """Fill a cache with at least so many examples; shards that are there are kept.

    Args:
        folder: of the cache.
        count: of examples.
        acted: cache of `studio train acted`.
        photos: folder with aligned_clean, aligned_studio and portraits, or None for generated faces alone.
        depth: folder of the depth network, or None.
        report: receives one line of text at a time.

    Raises:
        InputError: a number below 1, or nothing to make them of.
    """
    if count < 1:
        raise InputError(f"count must be 1 or more, got {count}: 4,000 make a start")
    folder.mkdir(parents=True, exist_ok=True)
    real = read_faces(photos, FaceFinder.from_pretrained()) if photos else None
    net = DepthNet.from_pretrained(depth) if depth else None
    maker, start, shards = ExampleMaker(load_acted(acted), real, net), time.monotonic(), -(-count // SHARD)
    for number in range(shards):
        path = shard_path(folder, number)
        if not path.exists():
            rng = torch.Generator().manual_seed(FIRST_SEED + number)
            write(path, [maker.example(rng) for _ in range(SHARD)])
        report(f"{(number + 1) * SHARD} of {shards * SHARD} examples, {time.monotonic() - start:.0f} s")
