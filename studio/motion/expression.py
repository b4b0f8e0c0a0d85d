"""Expressions: what a face does when it smiles, speaks or blinks, as offsets in the head frame; and reading them.

The offsets are those of generated people, completed by anatomy where the prior does not go (`studio train
expression`). Amount 1 is a whole expression: a broad smile, a mouth well open, lips pursed, eyes shut, brows raised.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
from safetensors.numpy import load_file

from studio import weights
from studio.errors import InputError
from studio.faces.attributes import LIDS, LIPS_INSIDE
from studio.faces.templates import LEFT_EYE_CORNERS, MOUTH_CORNERS, POINTS, RIGHT_EYE_CORNERS
from studio.motion.head import HEAD

NAMES = ("smile", "mouth", "pucker", "eyes", "brow", "wink")
FILE = "expression/basis.safetensors"  # in the folder of the committed weights


@cache
def basis() -> np.ndarray:
    """Offsets (6,468,3) float32 in the head frame, one for each of `NAMES`.

    smile: the corners of the mouth out and up, lips as far apart as they were; mouth: the jaw opens; pucker: the lips
    go forward and together; eyes: both shut (of the mean face); brow: both go up; wink: the eye left in the picture
    shuts.
    """
    return load_file(weights.COMMITTED / FILE)["basis"]


@cache
def neutral() -> np.ndarray:
    """The mean face with its lips together, (468,3) float32 in the head frame; of itself it smiles, lips apart."""
    lips = basis()[NAMES.index("mouth"), :, 1]
    upper, lower = LIPS_INSIDE
    parted = HEAD[lower, 1] - HEAD[upper, 1]
    shut = parted / (lips[lower] - lips[upper])
    return HEAD - shut * basis()[NAMES.index("mouth")]


def expressed(amounts: Mapping[str, float | np.ndarray], face: np.ndarray | None = None) -> np.ndarray:
    """A face with expressions.

    Args:
        amounts: of each expression by name; a number, or (T,).
        face: (468,3) in the head frame; None is `neutral`.

    Returns:
        (T,468,3) float32 in the head frame; T is 1 for numbers.

    Raises:
        InputError: an expression has another name.
    """
    if unknown := set(amounts) - set(NAMES):
        raise InputError(f"an expression must be one of {', '.join(NAMES)}, got {sorted(unknown)[0]!r}")
    shares = np.broadcast_arrays(*(np.atleast_1d(np.float32(amounts.get(name, 0))) for name in NAMES))
    start = neutral() if face is None else face
    return (start + np.einsum("kt,kpc->tpc", np.stack(shares), basis())).astype(np.float32)


def opening(mesh: np.ndarray) -> np.ndarray:
    """How far mouths are open, (T,) float32: the gap of the lips over the distance from the eyes to the mouth.

    Args:
        mesh: (T,468,3) in any frame, so long as its axes have one unit.
    """
    points = _points(mesh)
    mouth = points[:, list(MOUTH_CORNERS)].mean(1)
    return _share(_between(points, *LIPS_INSIDE), np.linalg.norm(_eyes(points).mean(1) - mouth, axis=1))


def smile(mesh: np.ndarray) -> np.ndarray:
    """How wide mouths are, (T,) float32: over the distance of the eyes. Arguments as `opening`."""
    points = _points(mesh)
    centres = _eyes(points)
    return _share(_between(points, *MOUTH_CORNERS), np.linalg.norm(centres[:, 0] - centres[:, 1], axis=1))


def eyes(mesh: np.ndarray) -> np.ndarray:
    """How far eyes are open, (T,) float32: the gap of the lids over the eye's width, mean of both. As `opening`."""
    points = _points(mesh)
    shares = [
        _share(_between(points, *lids), _between(points, *corners))
        for lids, corners in zip(LIDS, (RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS), strict=True)
    ]
    return np.mean(shares, 0).astype(np.float32)


def _eyes(points: np.ndarray) -> np.ndarray:
    """Centres (T,2,3) of the eyes."""
    return np.stack([points[:, list(corners)].mean(1) for corners in (RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS)], 1)


def _between(points: np.ndarray, a: int, b: int) -> np.ndarray:
    return np.linalg.norm(points[:, a] - points[:, b], axis=1)


def _share(length: np.ndarray, of: np.ndarray) -> np.ndarray:
    return (length / np.maximum(of, 1e-9)).astype(np.float32)


def _points(mesh: np.ndarray) -> np.ndarray:
    points = np.asarray(mesh, np.float64)
    if points.ndim != 3 or points.shape[1:] != (POINTS, 3):
        raise InputError(f"the mesh must be (T,{POINTS},3), got {points.shape}")
    return points
