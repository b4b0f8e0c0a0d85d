"""Putting aligned crops back into the photo without a seam."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from studio.errors import InputError
from studio.faces.align import Mode, Outside, invert, resample, transform_points
from studio.faces.templates import CHIN, FOREHEAD

# Widths as shares: of the crop's side for the feather, of the face's size for the growth beyond the mesh. The fade
# towards the crop's border is narrower: in FFHQ crops chins lie at 0.87 to 0.94 of the side, and should not be faded.
FEATHER, BORDER = 0.1, 0.06
# What is around a head is taken from the crop, too, where the photo is damaged: fading over this share of the crop's
# side, and a little less than a face, so that each face stays its own crop's where crops overlap.
AROUND_BORDER, AROUND = 0.12, 0.97
GROW_CHIN, GROW_TOP = 0.02, 0.3
# Hair counts from this probability on, and up to this far beyond the shape, as a share of the crop's side.
HAIR, REACH = (0.15, 0.6), 0.3
HEAD_REACH = 0.6  # the same of a whole head: ears, neck, and hair to its ends
# The mask is smooth, so it is computed on a grid this fine at most, then enlarged.
GRID = 128
DIRECTIONS = 64


def soft_mask(
    mesh: np.ndarray, crop_to_image: np.ndarray, size: int, hair: Tensor | None = None, reach: float = REACH
) -> Tensor:
    """Where a crop replaces the photo: the face with its hair line, feathered, and the hair where it is known.

    The shape is the smallest convex one around the mesh (the face oval, and in profiles the nose), grown a little at
    the chin, more at the sides and most above the forehead, so that the edge falls into the hair or the background and
    not along the hair line. From its edge the mask falls smoothly to zero over a tenth of the crop. Hair that reaches
    further is taken in as far as it lies near, so that no edge cuts it in two.

    Args:
        mesh: (N,468,3) face meshes in pixels of the photo.
        crop_to_image: (N,2,3), crop pixels to photo pixels.
        size: side of the crops in pixels.
        hair: (N,1,h,w) probability that a crop's cell is hair (or skin, where a whole head is meant), or None.
        reach: how far beyond the shape, as a share of the crop's side.

    Returns:
        (N,1,size,size) float32 in [0,1]; exactly 0 in the outermost pixels.

    Raises:
        InputError: as many meshes as affines are needed, and as many maps of hair.
    """
    if len(mesh) != len(crop_to_image):
        raise InputError(f"there must be one affine per mesh, got {len(mesh)} meshes, {len(crop_to_image)} affines")
    if hair is not None and len(hair) != len(mesh):
        raise InputError(f"there must be one map of hair per mesh, got {len(mesh)} meshes, {len(hair)} maps")
    if not len(mesh):
        return torch.zeros(0, 1, size, size)
    xy = transform_points(np.asarray(mesh)[..., :2], invert(crop_to_image)) / size  # the crop is the unit square
    points = torch.from_numpy(xy).float()
    grid = min(size, GRID)
    distance = _enlarge(_distance(points, grid)[:, None], size)
    inside = _smoothstep(1 - distance / FEATHER)
    if hair is not None:
        low, high = HAIR
        sure = _smoothstep((_enlarge(hair.float(), size) - low) / (high - low))
        inside = 1 - (1 - inside) * (1 - sure * _smoothstep(1 - distance / reach))
    return inside * _border(size, BORDER)


def with_surroundings(masks: Tensor, meshes: np.ndarray, own: Sequence[int], crop_to_image: np.ndarray) -> Tensor:
    """Masks that reach to the borders of their crops, but for the other faces there: no crop draws another's face.

    Args:
        masks: (N,1,S,S) in [0,1], see `soft_mask`.
        meshes: (M,468,3), of all faces of the photo, in its pixels.
        own: (N,) numbers of the crops' faces among them.
        crop_to_image: (N,2,3), crop pixels to photo pixels.

    Returns:
        (N,1,S,S) in [0,1], nowhere less than `masks`.
    """
    size = masks.shape[-1]
    reaching = []
    for mask, face, affine in zip(masks, own, crop_to_image, strict=True):
        free = AROUND * _border(size, AROUND_BORDER)
        xy = transform_points(meshes[..., :2], np.repeat(invert(affine[None]), len(meshes), 0))
        near = ((xy.max(1) > 0) & (xy.min(1) < size)).all(1)
        for other in np.flatnonzero(near & (np.arange(len(meshes)) != face)):
            free = free * (1 - soft_mask(meshes[[other]], affine[None], size)[0, 0])
        reaching.append(torch.maximum(mask, free))
    return torch.stack(reaching) if reaching else masks


def blend(
    image: Tensor,
    crops: Tensor,
    masks: Tensor,
    crop_to_image: np.ndarray,
    originals: Tensor | None = None,
    kept: Tensor | None = None,
) -> Tensor:
    """Blend crops into a photo, working only on the pixels under each crop.

    Where masks overlap, the faces share the pixels by the odds m / (1 - m) of their masks m: the core of a face is its
    own, whatever order the faces come in.

    Args:
        image: (3,H,W) float RGB.
        crops: (N,3,S,S) RGB of the same range.
        masks: (N,1,S,S) in [0,1].
        crop_to_image: (N,2,3), crop pixels to photo pixels.
        originals: (N,3,S,S), the crops as they were cut from the photo. With `kept`, the photo's detail that is too
            fine for a crop is added to the crop again. None leaves it out.
        kept: (N,1,S,S) in [0,1], how much of that detail.

    Returns:
        (3,H,W), a new tensor; bit for bit the image where no mask reaches.

    Raises:
        InputError: shapes or numbers do not fit.
    """
    count, channels, side = len(crop_to_image), image.shape[0], crops.shape[-1]
    if image.ndim != 3 or crops.shape != (count, channels, side, side) or masks.shape != (count, 1, side, side):
        raise InputError(
            f"crops must be (N,3,S,S), masks (N,1,S,S) for N={count} affines and an image (3,H,W), got "
            f"{tuple(crops.shape)}, {tuple(masks.shape)}, {tuple(image.shape)}"
        )
    result = image.clone()
    image_to_crop = invert(crop_to_image).astype(np.float64)
    boxes = [_box(affine, side, *image.shape[1:]) for affine in np.asarray(crop_to_image, dtype=np.float64)]
    shown = [i for i, (x0, y0, x1, y1) in enumerate(boxes) if x0 < x1 and y0 < y1]
    local = {i: _region(masks[i].to(image), image_to_crop[i], boxes[i], "bilinear", "zeros") for i in shown}
    for i in shown:
        x0, y0, x1, y1 = boxes[i]
        here = image[:, y0:y1, x0:x1]
        crop = _region(crops[i].to(image), image_to_crop[i], boxes[i], "bicubic", "reflection")
        if originals is not None and kept is not None:
            seen = _region(originals[i].to(image), image_to_crop[i], boxes[i], "bicubic", "reflection")
            crop = crop + _region(kept[i].to(image), image_to_crop[i], boxes[i], "bilinear", "zeros") * (here - seen)
        share = _share(i, boxes, local)
        # A difference times zero is zero: what no mask reaches keeps its bits.
        result[:, y0:y1, x0:x1] += share * (crop - here)
    return result


def _share(i: int, boxes: list[tuple[int, int, int, int]], local: dict[int, Tensor]) -> Tensor:
    """Weight (1,h,w) of face i in its box, given the masks of all faces in theirs."""
    x0, y0, x1, y1 = boxes[i]
    own = local[i]
    kept, odds = 1 - own, own / (1 - own + 1e-3)
    total = odds.clone()
    for j, other in local.items():
        left, top = max(x0, boxes[j][0]), max(y0, boxes[j][1])
        right, bottom = min(x1, boxes[j][2]), min(y1, boxes[j][3])
        if j == i or left >= right or top >= bottom:
            continue
        mask = other[:, top - boxes[j][1] : bottom - boxes[j][1], left - boxes[j][0] : right - boxes[j][0]]
        here = (slice(None), slice(top - y0, bottom - y0), slice(left - x0, right - x0))
        kept[here] *= 1 - mask
        total[here] += mask / (1 - mask + 1e-3)
    return (1 - kept) * (odds / total.clamp(min=1e-12))


def _region(
    crop: Tensor, image_to_crop: np.ndarray, box: tuple[int, int, int, int], mode: Mode, outside: Outside
) -> Tensor:
    """A crop as it looks in the pixels `box` of the photo."""
    x0, y0, x1, y1 = box
    shifted = image_to_crop.copy()
    shifted[:, 2] += image_to_crop[:, :2] @ (x0, y0)
    return resample(crop, shifted, y1 - y0, x1 - x0, mode=mode, outside=outside)


def _box(affine: np.ndarray, side: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Pixels of the photo (x0, y0, x1, y1) under a crop; empty when it lies outside."""
    corners = affine @ np.array([[0, side, 0, side], [0, 0, side, side], [1, 1, 1, 1]])
    (x0, y0), (x1, y1) = np.floor(corners.min(1)), np.ceil(corners.max(1))
    return max(int(x0), 0), max(int(y0), 0), min(int(x1), width), min(int(y1), height)


def _border(size: int, width: float) -> Tensor:
    """(S,S) in [0,1]: 1 inside, falling to 0 in the outermost pixels over `width` of the side."""
    middle = (torch.arange(size) + 0.5) / size
    from_edge = torch.minimum(middle, 1 - middle) - 0.5 / size
    border = _smoothstep(from_edge / width)
    return border[:, None] * border


def _distance(points: Tensor, grid: int) -> Tensor:
    """Distance to the grown shape, (N,K,2) in the unit square -> (N,grid,grid), negative inside.

    A convex shape is the intersection of half planes n · p <= support(n); growing it adds to the support.
    """
    angle = torch.arange(DIRECTIONS) * (2 * math.pi / DIRECTIONS)
    normals = torch.stack([angle.cos(), angle.sin()], 1)  # (D, 2)
    support = (points @ normals.T).amax(1)  # (N, D)
    up = F.normalize(points[:, FOREHEAD] - points[:, CHIN], dim=1)
    face = (support + support.roll(DIRECTIONS // 2, 1)).amax(1, keepdim=True)  # the longest diameter
    upward = (1 + up @ normals.T) / 2  # 0 at the chin, 1 at the top
    support = support + face * (GROW_CHIN + (GROW_TOP - GROW_CHIN) * upward**2)
    middle = (torch.arange(grid) + 0.5) / grid
    x, y = middle[None, :, None] * normals[:, 0], middle[:, None, None] * normals[:, 1]
    return torch.stack([(x + y - one).amax(-1) for one in support])


def _enlarge(x: Tensor, size: int) -> Tensor:
    """(N,1,h,w) to (N,1,size,size)."""
    return F.interpolate(x, (size, size), mode="bicubic", align_corners=False)


def _smoothstep(x: Tensor) -> Tensor:
    """0 below 0, 1 above 1, and no kink between."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)
