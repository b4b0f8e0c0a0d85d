"""The head frame: a face mesh without the head's place, size and turn.

A head looks straight out of the picture in it, x to the right of the picture, y down, z away from the camera, and the
unit is the side of its FFHQ-aligned crop. The origin lies where a head turns and nods, between the ears and the neck.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from studio.errors import InputError
from studio.faces.mean_mesh import MEAN_MESH
from studio.faces.templates import POINTS

PIVOT = np.array([0.5, 0.62, 0.26], np.float32)  # of the mean face, in shares of the crop's side
HEAD = MEAN_MESH - PIVOT  # (468, 3), the mean face in its own frame


def _rigid() -> np.ndarray:
    """Indices of the points that no expression moves: forehead, temples, sides of the head, bridge of the nose."""
    x, y = np.abs(MEAN_MESH[:, 0] - 0.5), MEAN_MESH[:, 1]
    forehead, sides, bridge = y < 0.35, (x > 0.2) & (y < 0.62), (x < 0.05) & (y > 0.44) & (y < 0.58)
    return np.flatnonzero(forehead | sides | bridge)


RIGID = _rigid()


@dataclass(frozen=True)
class HeadPoses:
    """Where heads are: point = scale · rotation @ head-frame point + translation. Row i is head i.

    Attributes:
        scale: (T,) float32, pixels of the picture per unit of the head frame.
        rotation: (T,3,3) float32.
        translation: (T,3) float32, the origin of the head frame in pixels of the picture.
    """

    scale: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray

    def __len__(self) -> int:
        return len(self.scale)

    def place(self, local: np.ndarray) -> np.ndarray:
        """Points of the head frame (T,K,3) in pixels of the picture, (T,K,3) float32."""
        return (
            self.scale[:, None, None] * local @ self.rotation.transpose(0, 2, 1) + self.translation[:, None]
        ).astype(np.float32)

    def remove(self, points: np.ndarray) -> np.ndarray:
        """Points in pixels of the picture (T,K,3) in the head frame, (T,K,3) float32; undoes `place`."""
        turned = (points - self.translation[:, None]) @ self.rotation
        return (turned / self.scale[:, None, None]).astype(np.float32)


def head_poses(mesh: np.ndarray) -> HeadPoses:
    """The pose of every head: what brings the mean face's rigid points nearest to its own.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991, eq. 40 to 42.

    Args:
        mesh: (T,468,3) face meshes in pixels of a picture.

    Raises:
        InputError: the mesh has another shape, or the points of a face coincide.
    """
    points = np.asarray(mesh, np.float64)
    if points.ndim != 3 or points.shape[1:] != (POINTS, 3):
        raise InputError(f"the mesh must be (T,{POINTS},3), got {points.shape}")
    model, seen = HEAD[RIGID].astype(np.float64), points[:, RIGID]
    model_mean, seen_mean = model.mean(0), seen.mean(1)
    centred = seen - seen_mean[:, None]
    if (np.abs(centred).max((1, 2), initial=0) < 1e-6).any():
        raise InputError("the points of a face must lie apart, got some that coincide: drop that frame")
    u, d, vt = np.linalg.svd(centred.transpose(0, 2, 1) @ (model - model_mean) / len(RIGID))  # (T, 3, 3)
    sign = np.ones_like(d)
    sign[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotation = u * sign[:, None] @ vt
    scale = (d * sign).sum(1) / (model - model_mean).var(0).sum()
    translation = seen_mean - scale[:, None] * (rotation @ model_mean)
    return HeadPoses(*(part.astype(np.float32) for part in (scale, rotation, translation)))


def angles(rotation: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll (T,3) float32 degrees of rotations (T,3,3), in the sense of `studio.faces.pose`."""
    r = np.asarray(rotation, np.float64)
    yaw = np.arctan2(-r[:, 2, 0], np.hypot(r[:, 0, 0], r[:, 1, 0]))
    pitch = -np.arctan2(r[:, 2, 1], r[:, 2, 2])
    roll = np.arctan2(r[:, 1, 0], r[:, 0, 0])
    return np.degrees(np.stack([yaw, pitch, roll], 1)).astype(np.float32)


def rotations(angles: np.ndarray) -> np.ndarray:
    """Rotations (T,3,3) float32 of yaw, pitch and roll (T,3) in degrees: R_z(roll) · R_y(yaw) · R_x(-pitch)."""
    yaw, pitch, roll = np.radians(np.asarray(angles, np.float64)).T
    one, nil = np.ones_like(yaw), np.zeros_like(yaw)

    def matrix(*rows: tuple[np.ndarray, ...]) -> np.ndarray:
        return np.stack([np.stack(row, -1) for row in rows], -2)

    about_x = matrix((one, nil, nil), (nil, np.cos(pitch), np.sin(pitch)), (nil, -np.sin(pitch), np.cos(pitch)))
    about_y = matrix((np.cos(yaw), nil, np.sin(yaw)), (nil, one, nil), (-np.sin(yaw), nil, np.cos(yaw)))
    about_z = matrix((np.cos(roll), -np.sin(roll), nil), (np.sin(roll), np.cos(roll), nil), (nil, nil, one))
    return (about_z @ about_y @ about_x).astype(np.float32)
