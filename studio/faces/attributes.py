"""What a face does, as numbers: pose, expression and the side the light comes from.

Lengths are taken in three dimensions and divided by the height of the face (forehead to chin), so that neither the
size of the picture nor a turned head changes them much. Left and right are the picture's.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from studio.errors import InputError
from studio.faces.align import warp
from studio.faces.pose import pose_from_mesh
from studio.faces.templates import CHIN, FOREHEAD, LEFT_EYE_CORNERS, MOUTH_CORNERS, RIGHT_EYE_CORNERS

ATTRIBUTES = ("yaw", "pitch", "smile", "mouth", "eyes", "brow", "light")
UNITS = ("°", "°", "mouth width / eye distance", *("share of the face height",) * 3, "share of the mean")

LIPS_INSIDE = (13, 14)  # upper, lower
LIDS = ((159, 145), (386, 374))  # upper, lower; right eye, left eye
BROWS = (105, 334)
CHEEKS = (50, 280)  # on the picture's left (the person's right), on its right
CHEEK_SIDE = 0.14  # of the patch on a cheek, share of the face height


def attributes_from_mesh(mesh: np.ndarray) -> np.ndarray:
    """Pose and expression of faces.

    Args:
        mesh: (N,468,3) in pixels, as everywhere.

    Returns:
        (N,6) float32, the first six of `ATTRIBUTES`: yaw and pitch in degrees (see `pose_from_mesh`); smile, the width
        of the mouth over the distance of the eyes; mouth, eyes (how far they are open) and brow (its height over the
        lid), as shares of the face height. Roll is not among them: faces are aligned by it before anybody looks.

    Raises:
        InputError: the mesh has another shape.
    """
    pose = pose_from_mesh(mesh)
    points = np.asarray(mesh, dtype=np.float64)
    right, left = (points[:, list(corners)].mean(1) for corners in (RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS))
    height = np.linalg.norm(points[:, FOREHEAD] - points[:, CHIN], axis=1)
    eyes_apart = np.linalg.norm(left - right, axis=1)

    def between(a: int, b: int) -> np.ndarray:
        return np.linalg.norm(points[:, a] - points[:, b], axis=1)

    smile = between(*MOUTH_CORNERS) / np.maximum(eyes_apart, 1e-9)
    mouth = between(*LIPS_INSIDE)
    eyes = (between(*LIDS[0]) + between(*LIDS[1])) / 2
    brow = (between(BROWS[0], LIDS[0][0]) + between(BROWS[1], LIDS[1][0])) / 2
    lengths = np.stack([mouth, eyes, brow], 1) / np.maximum(height, 1e-9)[:, None]
    return np.concatenate([pose[:, :2], smile[:, None], lengths], 1).astype(np.float32)


def side_light(images: Tensor, mesh: np.ndarray) -> np.ndarray:
    """How much brighter the cheek on the picture's right is than the one on its left.

    Args:
        images: (N,3,H,W) RGB in [0,1], one face each.
        mesh: (N,468,3) in pixels of those images.

    Returns:
        (N,) float32 in [-2,2]: difference of the cheeks' mean luma over their mean; above 0, the light comes from the
        right side of the picture.

    Raises:
        InputError: another shape, or not one mesh per image.
    """
    left, right = cheek_luma(images, mesh)
    return ((right - left) / np.maximum((right + left) / 2, 1e-3)).astype(np.float32)


def cheek_luma(images: Tensor, mesh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean luma (N,) in [0,1] of the cheek on the picture's left and on its right; else as `side_light`."""
    if images.ndim != 4 or len(images) != len(mesh):
        raise InputError(f"there must be one mesh per image (N,3,H,W), got {tuple(images.shape)}, {len(mesh)} meshes")
    if not len(mesh):
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    side = CHEEK_SIDE * np.linalg.norm(mesh[:, FOREHEAD] - mesh[:, CHIN], axis=1)
    means = []
    for cheek in CHEEKS:
        patch = np.zeros((len(mesh), 2, 3), np.float32)
        patch[:, 0, 0] = patch[:, 1, 1] = side / 8
        patch[:, :, 2] = mesh[:, cheek, :2] - side[:, None] / 2
        means.append(luma_mean(warp(images, patch, 8)).float().cpu().numpy())
    return means[0], means[1]


def luma_mean(images: Tensor) -> Tensor:
    """Mean BT.601 luma (N,) of RGB (N,3,H,W)."""
    return images.float().mean((2, 3)) @ torch.tensor([0.299, 0.587, 0.114], device=images.device)
