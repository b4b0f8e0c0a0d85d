"""How well the shape of a face was kept."""

from __future__ import annotations

import numpy as np

from studio.errors import InputError

LEFT_IN_IMAGE, RIGHT_IN_IMAGE = (33, 133), (263, 362)  # mesh points of the corners of each eye


def landmark_error(meshes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Mean distance of the mesh points in the image plane, over the eye distance of the target.

    Args:
        meshes: (N,468,2 or 3) float32, px of any one frame; z is not looked at.
        targets: (N,468,2 or 3), px of the same frame.

    Returns:
        (N,) float32 ≥ 0, a fraction: 0.05 is 5 % of the distance between the centres of the eyes.

    Raises:
        InputError: the shapes are not as above, or the eyes of a target fall together.
    """
    if meshes.shape[:2] != targets.shape[:2] or meshes.ndim != 3 or meshes.shape[1] != 468:
        raise InputError(f"meshes must be two (N,468,3) arrays, {meshes.shape} and {targets.shape} were given")
    distances = np.linalg.norm(meshes[..., :2] - targets[..., :2], axis=2).mean(1)  # (N,)
    centres = [targets[:, list(corners), :2].mean(1) for corners in (LEFT_IN_IMAGE, RIGHT_IN_IMAGE)]
    eyes = np.linalg.norm(centres[0] - centres[1], axis=1)
    if (eyes <= 0).any():
        raise InputError("the eyes of a target must be apart, they fall together: drop that face")
    return (distances / eyes).astype(np.float32)
