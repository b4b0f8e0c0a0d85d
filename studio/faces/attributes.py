"""What a face does, as numbers: pose, expression, the side the light comes from, and whether it wears glasses.

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

ATTRIBUTES = ("yaw", "pitch", "smile", "mouth", "eyes", "brow", "light", "glasses")
UNITS = (
    *("°",) * 2,
    "mouth width / eye distance",
    *("share of the face height",) * 3,
    "share of the mean",
    "logarithm of a share of the mean",
)

LIPS_INSIDE = (13, 14)  # upper, lower
LIDS = ((159, 145), (386, 374))  # upper, lower; right eye, left eye
BROWS = (105, 334)
CHEEKS = (50, 280)  # on the picture's left (the person's right), on its right
CHEEK_SIDE = 0.14  # of the patch on a cheek, share of the face height
BRIDGE = (168, 6)  # between the eyes, where glasses rest
BRIDGE_SIDE, BRIDGE_PIXELS = 0.12, 24  # of the patch there
FAINTEST = 1e-3  # share of the mean, added so that the logarithm is finite


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
    side = CHEEK_SIDE * check_meshes(images, mesh)
    if not len(mesh):
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    means = [luma(patches(images, mesh[:, cheek, :2], side, 8)).mean((1, 2)) for cheek in CHEEKS]
    return means[0].float().cpu().numpy(), means[1].float().cpu().numpy()


def bridge_edge(images: Tensor, mesh: np.ndarray) -> np.ndarray:
    """How sharply brightness changes from row to row across the bridge of the nose: the bar of a pair of glasses.

    Args:
        images: (N,3,H,W) RGB in [0,1], one face each.
        mesh: (N,468,3) in pixels of those images.

    Returns:
        (N,) float32: logarithm of the largest step between rows that are two 24ths of the patch apart, over the
        patch's mean luma. Generated faces without glasses lie near -3.5, with them near -1.5; the dark bar of a
        brow that runs across, or a hard shadow, counts as glasses.

    Raises:
        InputError: another shape, or not one mesh per image.
    """
    side = BRIDGE_SIDE * check_meshes(images, mesh)
    if not len(mesh):
        return np.zeros(0, np.float32)
    patch = luma(patches(images, mesh[:, list(BRIDGE), :2].mean(1), side, BRIDGE_PIXELS))
    third = BRIDGE_PIXELS // 3
    rows = patch[:, :, third : 2 * third].mean(2)  # (N, 24), the middle of the bridge
    step = (rows[:, 2:] - rows[:, :-2]).abs().amax(1) / patch.mean((1, 2)).clamp_min(0.05)
    return (step + FAINTEST).log().float().cpu().numpy()


def check_meshes(images: Tensor, mesh: np.ndarray) -> np.ndarray:
    """Heights (N,) of the faces in pixels, forehead to chin.

    Raises:
        InputError: not one mesh per image (N,3,H,W).
    """
    if images.ndim != 4 or len(images) != len(mesh):
        raise InputError(f"there must be one mesh per image (N,3,H,W), got {tuple(images.shape)}, {len(mesh)} meshes")
    return np.linalg.norm(mesh[:, FOREHEAD] - mesh[:, CHIN], axis=1)


def patches(images: Tensor, centres: np.ndarray, sides: np.ndarray, pixels: int) -> Tensor:
    """Upright squares (N,3,pixels,pixels) of images (N,3,H,W), around centres (N,2), with sides (N,) in pixels."""
    to_image = np.zeros((len(centres), 2, 3), np.float32)
    to_image[:, 0, 0] = to_image[:, 1, 1] = sides / pixels
    to_image[:, :, 2] = centres - sides[:, None] / 2
    return warp(images, to_image, pixels)


def luma(images: Tensor) -> Tensor:
    """BT.601 luma (N,H,W) of RGB (N,3,H,W)."""
    return torch.einsum("nchw,c->nhw", images.float(), torch.tensor([0.299, 0.587, 0.114], device=images.device))
