"""Where the eyes look, from the iris network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from studio.faces.align import warp
from studio.faces.attributes import LIDS
from studio.motion.head import HeadPoses
from studio.networks.iris import SIZE, IrisNet

# Corners left and right in the picture. The network knows the eye left in the picture; the other one is mirrored.
CORNERS = ((33, 133), (362, 263))
MIRRORED = np.array([1.0, -1.0])
MARGIN = 2.3  # of an eye's crop, in distances of its corners
SHUT = 0.12  # opening over width, below which nobody sees where an eye looks
# What an eye that looks straight out of the head measures: the mean of generated faces that look into the camera.
STRAIGHT = np.array([0.0, -0.03])


def eye_crops(mesh: np.ndarray) -> np.ndarray:
    """The two eyes of a mesh (468,3) in pixels: crop_to_image (2,2,3), the second one mirrored."""
    ends = mesh[np.array(CORNERS), :2].astype(np.float64)  # (2, 2, 2)
    along = ends[:, 1] - ends[:, 0]
    x = along * MARGIN / SIZE
    y = np.stack([-x[:, 1], x[:, 0]], 1)
    linear = np.stack([x * MIRRORED[:, None], y], 2)
    return np.concatenate([linear, (ends.mean(1) - linear.sum(2) * SIZE / 2)[..., None]], 2)


@torch.inference_mode()
def irises(net: IrisNet, image: Tensor, mesh: np.ndarray) -> np.ndarray:
    """Centres (2,2) of the irises in pixels of a picture (3,H,W), the left one in the picture first.

    Args:
        net: on the picture's device.
        image: (3,H,W) RGB in [0,1].
        mesh: (468,3) of the face in pixels of the picture.
    """
    crop_to_image = eye_crops(mesh)
    _, iris = net(warp(image, crop_to_image, SIZE).to(net.dtype))
    centre = iris[:, 0, :2].float().cpu().numpy()
    return np.einsum("nij,nj->ni", crop_to_image[:, :, :2], centre) + crop_to_image[:, :, 2]


def gaze_of(centres: np.ndarray, poses: HeadPoses, local: np.ndarray) -> np.ndarray:
    """Where eyes look, in their head's frame.

    The iris is taken to lie as deep in the head as the lids, so that a head that turns about still eyes is told apart
    from eyes that turn.

    Args:
        centres: (T,2,2) of the irises, pixels of the picture.
        poses: of the head.
        local: (T,468,3) mesh in the head frame.

    Returns:
        (T,2) float32, see `Motion.gaze`; NaN where both eyes are shut.
    """
    lids = local[:, np.array(LIDS)].astype(np.float64)  # (T, eye, upper and lower, 3)
    ends = local[:, np.array(CORNERS)].astype(np.float64)
    half = np.linalg.norm(ends[:, :, 1] - ends[:, :, 0], axis=2) / 2  # (T, 2)
    depth = lids[..., 2].mean(2)
    at = (centres - poses.translation[:, None, :2]) / poses.scale[:, None, None]
    r = poses.rotation.astype(np.float64)
    behind = (depth - np.einsum("tnj,tj->tn", at, r[:, :2, 2])) / np.maximum(r[:, 2, 2], 0.2)[:, None]
    inside = np.concatenate([at, behind[..., None]], 2) @ r  # (T, 2, 3) in the head frame
    gaze = (inside - ends.mean(2))[..., :2] / half[..., None] - STRAIGHT
    seen = np.abs(np.einsum("tnj,tj->tn", ends[:, :, 1] - ends[:, :, 0], r[:, 0])) / (2 * half)
    open_enough = np.linalg.norm(lids[:, :, 0] - lids[:, :, 1], axis=2) > SHUT * 2 * half
    weight = np.where(open_enough, np.maximum(seen, 0.05) ** 2, 0)
    total = weight.sum(1, keepdims=True)
    mean = (gaze * weight[..., None]).sum(1) / np.maximum(total, 1e-9)
    return np.where(total > 0, mean, np.nan).astype(np.float32)


def bridged(gaze: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Gaze (T,2) float32 whose gaps (NaN) are bridged by lines over time; straight ahead where nothing is known."""
    known = np.isfinite(gaze).all(1)
    if not known.any():
        return np.zeros_like(gaze)
    return np.stack([np.interp(times, times[known], column[known]) for column in gaze.T], 1).astype(np.float32)
