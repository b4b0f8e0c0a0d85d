"""Head pose from the face mesh."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from studio.errors import InputError
from studio.faces.templates import CHIN, FOREHEAD, LEFT_EYE_CORNERS, POINTS, RIGHT_EYE_CORNERS


def pose_from_mesh(mesh: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll of heads, from the line of the eyes and the line from forehead to chin.

    A head that looks straight into an upright camera is near (0, 0, 0).

    - yaw > 0: the face looks to the left side of the picture (the person's own right); < 0: to the right side.
    - pitch > 0: the face looks up; < 0: down.
    - roll > 0: the head is turned clockwise in the picture's plane; the eye on the right side of the picture is lower.

    The head's rotation is R_z(roll) · R_y(yaw) · R_x(-pitch), so turning the photo changes the roll only.

    Args:
        mesh: (N,468,3), (x, y, z) in pixels; y downwards, a smaller z nearer to the camera.

    Returns:
        (N,3) float32 degrees: yaw in [-90,90], pitch and roll in [-180,180].

    Raises:
        InputError: the mesh has another shape.
    """
    points = np.asarray(mesh, dtype=np.float64)
    if points.ndim != 3 or points.shape[1:] != (POINTS, 3):
        raise InputError(f"the mesh must be (N,{POINTS},3), got {points.shape}")
    across = points[:, list(LEFT_EYE_CORNERS)].mean(1) - points[:, list(RIGHT_EYE_CORNERS)].mean(1)
    x = _unit(across)
    down = points[:, CHIN] - points[:, FOREHEAD]
    y = _unit(down - (down * x).sum(1, keepdims=True) * x)
    z = np.cross(x, y)  # points out of the back of the head
    yaw = np.arctan2(-x[:, 2], np.hypot(x[:, 0], x[:, 1]))
    pitch = -np.arctan2(y[:, 2], z[:, 2])
    roll = np.arctan2(x[:, 1], x[:, 0])
    return np.degrees(np.stack([yaw, pitch, roll], 1)).astype(np.float32)


def yaw_and_pitch(mesh: Tensor) -> Tensor:
    """The first two angles of `pose_from_mesh`, with gradients to the mesh.

    Args:
        mesh: (N,468,3).

    Returns:
        (N,2) degrees.
    """
    x = F.normalize(mesh[:, list(LEFT_EYE_CORNERS)].mean(1) - mesh[:, list(RIGHT_EYE_CORNERS)].mean(1), dim=1)
    down = mesh[:, CHIN] - mesh[:, FOREHEAD]
    y = F.normalize(down - (down * x).sum(1, keepdim=True) * x, dim=1)
    z = torch.linalg.cross(x, y)
    yaw = torch.atan2(-x[:, 2], x[:, :2].norm(dim=1))
    pitch = -torch.atan2(y[:, 2], z[:, 2])
    return torch.rad2deg(torch.stack([yaw, pitch], 1))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
