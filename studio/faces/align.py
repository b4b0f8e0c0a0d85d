"""Affine crops: where an aligned face lies in the photo, and sampling it well.

Pixel coordinates are (x, y); pixel i covers [i, i+1), so its centre is at i + 0.5. An affine is a (2,3) matrix that
maps (x, y, 1) of one frame to (x, y) of another; `crop_to_image` maps the crop's pixels to the photo's.
"""

from __future__ import annotations

import math
from typing import Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from studio.errors import InputError
from studio.faces.templates import (
    ARCFACE_TEMPLATE,
    DLIB_PADDING,
    DLIB_POINTS,
    DLIB_TEMPLATE,
    FACEXLIB_TEMPLATE,
    LEFT_EYE_CORNERS,
    MOUTH_CORNERS,
    POINTS,
    RIGHT_EYE_CORNERS,
    five_points,
)

Mode = Literal["bicubic", "bilinear"]
Outside = Literal["reflection", "zeros"]
Array = TypeVar("Array", np.ndarray, Tensor)

# Source pixels per target pixel that bicubic sampling still takes without visible aliasing. What is denser is first
# shrunk to this, not to 1, because two resamplings at full density would blur.
DENSITY = 1.25


def ffhq_transform(mesh: np.ndarray, size: int) -> np.ndarray:
    """Crops aligned as the faces of FFHQ are (Karras et al., arXiv 1812.04948, appendix C).

    Args:
        mesh: (N,468,3) face meshes in pixels of the photo.
        size: side of the crop in pixels.

    Returns:
        (N,2,3) float32 crop_to_image, similarities.

    Raises:
        InputError: the mesh has another shape, or the eyes and mouth of a face coincide.
    """
    points = _xy(mesh)
    right, left, mouth = (points[:, list(i)].mean(1) for i in (RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS, MOUTH_CORNERS))
    eyes = (right + left) / 2
    eye_to_eye, eye_to_mouth = left - right, mouth - eyes
    x = eye_to_eye - _quarter_turn(eye_to_mouth)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    if (length < 1e-6).any():
        raise InputError("eyes and mouth of a face must lie apart, got a mesh where they coincide: drop that face")
    half = np.maximum(2 * np.linalg.norm(eye_to_eye, axis=1), 1.8 * np.linalg.norm(eye_to_mouth, axis=1))
    x = x / length * half[:, None]
    y = _quarter_turn(x)
    corner = eyes + 0.1 * eye_to_mouth - x - y
    return np.stack([2 * x / size, 2 * y / size, corner], -1).astype(np.float32)


def dlib_transform(mesh: np.ndarray, size: int = 150) -> np.ndarray:
    """Face chips of dlib's identity network: the similarity that fits five points best (least squares).

    Args:
        mesh: (N,468,3) face meshes in pixels of the photo.
        size: side of the chip in pixels.

    Returns:
        (N,2,3) float32 crop_to_image.

    Raises:
        InputError: the mesh has another shape.
    """
    points = _xy(mesh)[:, list(DLIB_POINTS)]
    template = (DLIB_TEMPLATE + DLIB_PADDING) / (1 + 2 * DLIB_PADDING) * size
    return similarity(np.broadcast_to(template, points.shape), points)


def facexlib_transform(mesh: np.ndarray, size: int) -> np.ndarray:
    """Crops as facexlib cuts them for GFPGAN and its descendants: the similarity that fits five points best.

    Args:
        mesh: (N,468,3) face meshes in pixels of the photo.
        size: side of the crop in pixels.

    Returns:
        (N,2,3) float32 crop_to_image.

    Raises:
        InputError: the mesh has another shape.
    """
    _xy(mesh)  # its shape
    points = five_points(np.asarray(mesh, np.float64))
    return similarity(np.broadcast_to(FACEXLIB_TEMPLATE * size, points.shape), points)


def arcface_transform(mesh: np.ndarray, size: int = 112) -> np.ndarray:
    """Crops as ArcFace learned from: the similarity that brings five points nearest to their places in the crop.

    Args:
        mesh: (N,468,3) face meshes in pixels of the photo.
        size: side of the crop in pixels.

    Returns:
        (N,2,3) float32 crop_to_image.

    Raises:
        InputError: the mesh has another shape.
    """
    _xy(mesh)  # its shape
    points = five_points(np.asarray(mesh, np.float64))
    # From the photo to the crop: the other way round, least squares would give a crop that is a little wider.
    return invert(similarity(points, np.broadcast_to(ARCFACE_TEMPLATE * size, points.shape)))


def similarity(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The turn, scale and shift that bring points nearest to others (least squares; Umeyama 1991, in the plane).

    Args:
        points: (N,K,2), K at least 2.
        others: (N,K,2), the place of each in the other frame.

    Returns:
        (N,2,3) float32, the frame of `points` to that of `others`.

    Raises:
        InputError: the points of a face coincide.
    """
    # As complex numbers, a similarity is q = turn * p + shift, and the best one is a quotient.
    p, q = (np.asarray(x, np.float64)[..., 0] + 1j * np.asarray(x, np.float64)[..., 1] for x in (points, others))
    centred = p - p.mean(1, keepdims=True)
    spread = (np.abs(centred) ** 2).sum(1)
    if (spread < 1e-12).any():
        raise InputError("the points of a face must lie apart, got some that coincide: drop that face")
    turn = (q * centred.conj()).sum(1) / spread
    shift = q.mean(1) - turn * p.mean(1)
    rows = [turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag]
    return np.stack(rows, -1).reshape(-1, 2, 3).astype(np.float32)


def into_crop(mesh: np.ndarray, crop_to_image: np.ndarray, size: int) -> np.ndarray:
    """Meshes in the frame of their crops.

    Args:
        mesh: (N,468,3) in pixels of the photo.
        crop_to_image: (N,2,3) similarities, see `ffhq_transform`.
        size: side of the crops in pixels.

    Returns:
        (N,468,3) float32, (x, y, z) in sides of the crop: 0 to 1 inside it, z about 0.
    """
    flat = transform_points(np.asarray(mesh)[..., :2], invert(crop_to_image)) / size
    deep = np.asarray(mesh)[..., 2:] / (scale_of(crop_to_image) * size)[:, None, None]
    return np.concatenate([flat, deep], 2).astype(np.float32)


def scale_of(affine: np.ndarray) -> np.ndarray:
    """Photo pixels for one crop pixel, (N,2,3) similarity transforms -> (N,)."""
    return np.hypot(affine[:, 0, 0], affine[:, 1, 0])


def invert(affine: np.ndarray) -> np.ndarray:
    """Inverse affines, (N,2,3) -> (N,2,3) float32.

    Raises:
        InputError: an affine flattens the plane, or the shape is another.
    """
    affine = _affines(affine)
    if (np.abs(np.linalg.det(affine[..., :2])) < 1e-12).any():
        raise InputError("an affine must be invertible, got one that flattens the plane: drop that face")
    linear = np.linalg.inv(affine[..., :2])
    return np.concatenate([linear, -linear @ affine[..., 2:]], -1).astype(np.float32)


def transform_points(points: Array, affine: Array) -> Array:
    """Map points of each face by its affine.

    Args:
        points: (N,K,2), (x, y) in the frame that the affine maps from; numpy or torch.
        affine: (N,2,3), of the same kind.

    Returns:
        (N,K,2) in the frame that the affine maps to; for tensors with gradients to both.
    """
    return points @ affine[..., :2].swapaxes(-1, -2) + affine[:, None, :, 2]


def warp(image: Tensor, crop_to_image: np.ndarray | Tensor, size: int) -> Tensor:
    """Cut aligned square crops, antialiased, mirrored where they leave the photo.

    Args:
        image: (3,H,W) float RGB, one photo for all crops, or (N,3,H,W), one for each.
        crop_to_image: (N,2,3), crop pixels to photo pixels; any mixture of scales.
        size: side of the crops in pixels.

    Returns:
        (N,3,size,size) of the image's dtype and device, with gradients to the image. Next to hard edges, bicubic
        sampling leaves the image's range a little.

    Raises:
        InputError: the image is not as said, has no pixels, or its number differs from that of the affines.
    """
    affines = _affines(crop_to_image)
    if image.ndim not in (3, 4) or (image.ndim == 4 and len(image) != len(affines)):
        raise InputError(f"the image must be (3,H,W) or ({len(affines)},3,H,W), got {tuple(image.shape)}")
    sources = [image] * len(affines) if image.ndim == 3 else list(image)
    crops = [resample(source, affine, size, size) for source, affine in zip(sources, affines, strict=True)]
    return torch.stack(crops) if crops else image.new_zeros(0, image.shape[-3], size, size)


def resample(
    image: Tensor,
    target_to_source: np.ndarray | Tensor,
    height: int,
    width: int,
    *,
    mode: Mode = "bicubic",
    outside: Outside = "reflection",
) -> Tensor:
    """Sample a picture on an affine grid; the cost depends on the target and the part of the source it shows.

    Args:
        image: (C,H,W) float.
        target_to_source: (2,3), pixels of the target to pixels of the source.
        height: of the target.
        width: of the target.
        mode: interpolation; bilinear never leaves the range of the image.
        outside: what lies around the source: its mirror image, or zeros.

    Returns:
        (C,height,width) of the image's dtype, with gradients to the image.

    Raises:
        InputError: the image is not as said or has no pixels, or the affine is not finite.
    """
    if image.ndim != 3 or not image.is_floating_point() or 0 in image.shape[1:]:
        raise InputError(f"the image must be (C,H,W) float with pixels, got {tuple(image.shape)} {image.dtype}")
    affine = _affines(target_to_source)
    density = math.sqrt(abs(np.linalg.det(affine[:, :2])))
    corners = affine @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])  # (2, 4)
    margin = 4 * max(density, 1)
    (x0, x1), (y0, y1) = (
        _span(low - margin, high + margin, length)
        for low, high, length in zip(corners.min(1), corners.max(1), image.shape[:0:-1], strict=True)
    )
    part = image[None, :, y0:y1, x0:x1]
    if part.dtype not in (torch.float32, torch.float64):
        part = part.float()  # positions would be too coarse in 16 bits
    if density > DENSITY:
        shape = [max(1, round(n * DENSITY / density)) for n in part.shape[-2:]]
        part = F.interpolate(part, shape, mode=mode, antialias=True, align_corners=False)
    # From pixels of the photo to [-1,1] over the part, from edge to edge.
    sides = np.array([x1 - x0, y1 - y0])
    affine = 2 / sides[:, None] * (affine - np.array([[0, 0, x0], [0, 0, y0]])) - np.array([[0, 0, 1], [0, 0, 1]])
    grid = _grid(affine, height, width).to(part)
    return F.grid_sample(part, grid[None], mode=mode, padding_mode=outside, align_corners=False)[0].to(image.dtype)


def _grid(affine: np.ndarray, height: int, width: int) -> Tensor:
    """Where the pixel centres of a target go, (height,width,2) float64."""
    m = torch.from_numpy(affine)
    u, v = torch.arange(width, dtype=m.dtype) + 0.5, torch.arange(height, dtype=m.dtype) + 0.5
    return u[None, :, None] * m[:, 0] + (v[:, None, None] * m[:, 1] + m[:, 2])


def _span(low: float, high: float, length: int) -> tuple[int, int]:
    """The part of an axis of `length` pixels that shows in [low, high), be it directly or as a mirror image."""
    if low < 0:
        high = max(high, -low)
    if high > length:
        low = min(low, 2 * length - high)
    start = min(max(math.floor(low), 0), length - 1)
    return start, max(min(math.ceil(high), length), start + 1)


def _quarter_turn(vectors: np.ndarray) -> np.ndarray:
    """(x, y) -> (-y, x): clockwise as seen, with y downwards."""
    return np.stack([-vectors[:, 1], vectors[:, 0]], 1)


def _xy(mesh: np.ndarray) -> np.ndarray:
    points = np.asarray(mesh, dtype=np.float64)
    if points.ndim != 3 or points.shape[1:] != (POINTS, 3):
        raise InputError(f"the mesh must be (N,{POINTS},3), got {points.shape}")
    return points[..., :2]


def _affines(affine: np.ndarray | Tensor) -> np.ndarray:
    """One or many affines as float64, checked; gradients end here."""
    array = affine.detach().cpu().double().numpy() if isinstance(affine, Tensor) else np.asarray(affine)
    if array.shape[-2:] != (2, 3):
        raise InputError(f"affines must be (…,2,3), got {array.shape}")
    if not np.isfinite(array).all():
        raise InputError("affines must be finite, got nan or infinity: drop that face")
    return array.astype(np.float64)
