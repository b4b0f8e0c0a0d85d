"""Faces that the caller points at: where an aligned picture's face lies, and points for a face that shows none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from studio.errors import InputError
from studio.faces.align import ffhq_transform, similarity, transform_points
from studio.faces.mean_mesh import MEAN_MESH
from studio.faces.pose import pose_from_mesh
from studio.faces.templates import five_points

SQUARE = 0.02  # share of the longer side by which an aligned picture may miss being square


def check_boxes(boxes: Sequence[Sequence[float]] | np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes as (N,4) float32, (x0, y0, x1, y1) in pixels of a photo.

    Raises:
        InputError: not four finite numbers each, no area, or outside the photo.
    """
    try:
        array = np.asarray(boxes, dtype=np.float32)
    except (TypeError, ValueError):
        array = np.asarray(np.nan, dtype=np.float32)
    if array.shape == (0,):
        return array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4 or not np.isfinite(array).all():
        raise InputError(f"boxes must be (x0, y0, x1, y1) in pixels of the photo, one for each face, got {boxes!r}")
    for x0, y0, x1, y1 in array.tolist():
        shown = f"{x0:g},{y0:g},{x1:g},{y1:g}"
        if not (x0 < x1 and y0 < y1):
            raise InputError(f"a box must have x0 < x1 and y0 < y1, got {shown}: give its corners, left top first")
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            raise InputError(f"a box must lie in the photo, which is {width}x{height}, got {shown}: give its pixels")
    return array


def check_aligned(height: int, width: int) -> None:
    """Refuse a picture that cannot be an aligned face.

    Raises:
        InputError: it is not square.
    """
    if abs(height - width) > SQUARE * max(height, width):
        raise InputError(
            f"an aligned face must be square, the photo is {width}x{height}: leave aligned out to have its faces "
            "found, or give their boxes"
        )


def mean_mesh_on(points: np.ndarray, chosen: Sequence[int] = range(5), pose: np.ndarray | None = None) -> np.ndarray:
    """The mean face, laid on points.

    Args:
        points: (N,K,2) in pixels of the photo.
        chosen: which of `five_points` they are.
        pose: (N,3) degrees, of which yaw and pitch turn the mean face before it is laid; None: it looks straight ahead.

    Returns:
        (N,468,3) in pixels of the photo.
    """
    points = np.asarray(points, np.float64)
    faces = np.broadcast_to(MEAN_MESH, (len(points), *MEAN_MESH.shape)).astype(np.float64)
    if pose is not None:
        middle = np.array([0.5, 0.5, 0.0])
        faces = (faces - middle) @ turned(pose[:, 0], pose[:, 1]).swapaxes(1, 2) + middle
    return _moved(faces, similarity(five_points(faces)[:, list(chosen)], points))


def turned(yaw: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """Rotations (N,3,3) of the mean face, which looks straight ahead, to angles as `pose_from_mesh` measures them."""
    own = pose_from_mesh(MEAN_MESH[None])[0]
    a, b = np.radians(-(np.asarray(pitch, np.float64) - own[1])), np.radians(np.asarray(yaw, np.float64))
    one, zero = np.ones_like(a), np.zeros_like(a)
    nod = [[one, zero, zero], [zero, np.cos(a), -np.sin(a)], [zero, np.sin(a), np.cos(a)]]
    shake = [[np.cos(b), zero, np.sin(b)], [zero, one, zero], [-np.sin(b), zero, np.cos(b)]]
    nod, shake = (np.moveaxis(np.array(part), -1, 0) for part in (nod, shake))
    return shake @ nod


def mean_mesh_in(boxes: np.ndarray) -> np.ndarray:
    """The mean face, upright in the middle of boxes (N,4), as high as they are, or as wide: (N,468,3)."""
    boxes = np.asarray(boxes, np.float64)
    low, high = MEAN_MESH[:, :2].min(0), MEAN_MESH[:, :2].max(0)
    scale = ((boxes[:, 2:] - boxes[:, :2]) / (high - low)).mean(1)
    shift = (boxes[:, :2] + boxes[:, 2:]) / 2 - scale[:, None] * (low + high) / 2
    affine = np.zeros((len(boxes), 2, 3))
    affine[:, 0, 0] = affine[:, 1, 1] = scale
    affine[:, :, 2] = shift
    return _moved(np.broadcast_to(MEAN_MESH, (len(boxes), *MEAN_MESH.shape)), affine)


def aligned_frame(mesh: np.ndarray | None, height: int, width: int) -> np.ndarray:
    """Where the face's FFHQ crop lies in a picture that is such a crop, or one as published restorers take it.

    A picture cut by the rule of FFHQ is the crop itself. One whose five points were fitted to the mean face is not
    quite: there the mean is where each face's own rule would not put it. Which of the two a picture is, the mesh tells;
    without one the picture is taken for the crop.

    Args:
        mesh: (468,3) in pixels of the picture, or None where it saw no face.
        height: of the picture.
        width: of the picture.

    Returns:
        (2,3) float32: the unit square to pixels of the picture, a similarity.
    """
    side = (height + width) / 2
    whole = np.array([[side, 0, (width - side) / 2], [0, side, (height - side) / 2]], np.float32)
    if mesh is None:
        return whole
    mean = five_points(MEAN_MESH[None])
    by_rule = ffhq_transform(mesh[None], 1)
    by_points = similarity(mean, five_points(mesh[None].astype(np.float64)))
    apart = [
        np.abs(transform_points(mean, frame) - transform_points(mean, whole[None])).sum()
        for frame in (by_rule, by_points)
    ]
    return whole if apart[0] <= apart[1] else by_rule[0]


def _moved(mesh: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Meshes (N,468,3) moved by similarities (N,2,3) of the plane."""
    scale = np.hypot(affine[:, 0, 0], affine[:, 1, 0])
    flat = transform_points(mesh[..., :2], affine)
    return np.concatenate([flat, mesh[..., 2:] * scale[:, None, None]], 2).astype(np.float32)
