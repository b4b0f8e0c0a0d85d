"""A mean face that is moved on purpose, and what dense motion should say of that."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from studio.faces.mean_mesh import MEAN_MESH
from studio.faces.templates import FACE_OVAL
from studio.motion.dense import CELLS, Flow, around
from studio.motion.head import HEAD, rotations
from studio.motion.motion import Motion
from studio.motion.retarget import LEFT_LIDS, RIGHT_LIDS

MESH = MEAN_MESH.astype(np.float32)
PIXELS = 256  # lengths are said in px of a crop of that side


def similar(zoom: float = 1.0, roll: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)) -> tuple[np.ndarray, Tensor]:
    """The mean face moved by a similarity, and where every cell of the frame (2,CELLS,CELLS) then comes from."""
    a, middle = np.radians(roll), MESH.mean(0)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    moved = zoom * (MESH - middle) @ turn.T + middle + (*shift, 0)
    cells = own_places().flatten(1).T.numpy()
    back = (cells - middle[:2] - shift) @ turn[:2, :2] / zoom + middle[:2]
    return moved.astype(np.float32), torch.from_numpy(back).float().T.reshape(2, CELLS, CELLS)


def own_places() -> Tensor:
    """The middle of every cell (2,CELLS,CELLS), in shares of the side."""
    places = (torch.arange(CELLS) + 0.5) / CELLS
    return torch.stack([places.expand(CELLS, CELLS), places[:, None].expand(CELLS, CELLS)])


def astray(flow: Flow, wanted: Tensor) -> Tensor:
    """How far a flow's source lies from what is wanted, (CELLS,CELLS) px."""
    return (flow.source[0] - wanted).norm(dim=0) * PIXELS


def skin_and_features(flow: Flow, mesh: np.ndarray) -> tuple[Tensor, Tensor]:
    """Cells (CELLS,CELLS) bool well inside a face: its skin, and what lies in or next to lids and lips."""
    outside, _ = around(own_places().flatten(1).T, torch.from_numpy(mesh)[list(FACE_OVAL)])
    near_edge = F.max_pool2d((outside > 0).float().view(1, 1, CELLS, CELLS), 9, 1, 4)[0, 0] > 0
    features = F.max_pool2d(flow.inside.amax(1, keepdim=True), 9, 1, 4)[0, 0] > 0.01
    return ~near_edge & ~features, ~near_edge & features


def lids_closed(mesh: np.ndarray) -> np.ndarray:
    """The mesh (468,3) with both upper lids on the lower ones."""
    mesh = mesh.copy()
    for upper, lower in (RIGHT_LIDS, LEFT_LIDS):
        mesh[upper] = mesh[lower]
    return mesh


def motion(count: int = 6, **parts: np.ndarray) -> Motion:
    """The mean face in front of a camera at 25 frames a second, unless `parts` say something else."""
    still = {
        "times": np.arange(count) / 25,
        "presence": np.ones(count, np.float32),
        "scale": np.full(count, 200, np.float32),
        "rotation": rotations(np.zeros((count, 3))),
        "translation": np.full((count, 3), 128, np.float32),
        "mesh": np.repeat(HEAD[None], count, 0),
        "gaze": np.zeros((count, 2), np.float32),
        "cuts": np.zeros(count, bool),
        "frame": np.array([256, 256]),
    }
    return Motion(**(still | parts))
