"""The expression basis: what generated people's faces do, in the head frame, completed by anatomy.

The prior smiles, opens its mouth a little and raises its brows: latents are moved along a direction both ways, and the
mean difference of the meshes in the head frame, mirrored and averaged, is the expression. Points that an expression
does not move are cut off, because moving latents changes the person too. The prior shuts no eyes, purses no lips and
opens no jaw wide: there lids, lips and jaw are moved as they are built.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from studio import weights
from studio.errors import InputError
from studio.faces.attributes import LIPS_INSIDE
from studio.faces.mean_mesh import MEAN_MESH
from studio.find import FaceFinder
from studio.latents.edit import move
from studio.latents.measure import place_aligned
from studio.latents.prior import render
from studio.motion.expression import FILE, NAMES
from studio.motion.head import head_poses
from studio.networks.generator import Generator
from studio.networks.image_head import ImageHead
from studio.networks.latent_space import LatentSpace

SIZE = 256
TRUNCATION = 0.7
FIRST_SEED = 31_000
BOTH_WAYS = {"smile": 2.0, "mouth": 2.0, "brow": 2.0}  # standard deviations that latents are moved along each direction
CORNER, BROW = 61, 105
# What amount 1 is, in sides of the crop: how far a corner of the mouth goes in a smile, the gap of the lips that the
# prior's mouth reaches and the one that the jaw reaches, and how far brows go up.
SMILE, PRIOR_GAP, GAP, BROWS_UP = 0.04, 0.025, 0.075, 0.03
NARROWS = 0.1  # how far each corner goes in when the mouth opens, in shares of the gap
JAW = np.array([0.56, 0.25])  # (y, z) of the axis through the joints of the jaw, in the crop of the mean face
LIFT = 0.8  # how far the upper lid goes to meet the lower one, which goes the rest

# Rows of the lips from corner to corner, without the corners: the outer edge, two between, the inner edge.
UPPER_LIP = (
    (185, 40, 39, 37, 0, 267, 269, 270, 409),
    (184, 74, 73, 72, 11, 302, 303, 304, 408),
    (183, 42, 41, 38, 12, 268, 271, 272, 407),
    (191, 80, 81, 82, 13, 312, 311, 310, 415),
)
LOWER_LIP = (
    (146, 91, 181, 84, 17, 314, 405, 321, 375),
    (77, 90, 180, 85, 16, 315, 404, 320, 307),
    (96, 89, 179, 86, 15, 316, 403, 319, 325),
    (95, 88, 178, 87, 14, 317, 402, 318, 324),
)
CORNERS_OF_LIPS = (61, 76, 62, 78, 291, 306, 292, 308)
# The eye left in the picture, outer corner to inner: lids, and the rows above the upper and below the lower one.
UPPER_LID, LOWER_LID = (246, 161, 160, 159, 158, 157, 173), (7, 163, 144, 145, 153, 154, 155)
ABOVE_LID = ((247, 30, 29, 27, 28, 56, 190), (113, 225, 224, 223, 222, 221, 189))
BELOW_LID = (25, 110, 24, 23, 22, 26, 112)
FOLLOWS = (0.45, 0.15)  # of the rows above the upper lid, and of the first of them below the lower one

MIRROR = np.linalg.norm(MEAN_MESH[:, None] - (MEAN_MESH * [-1, 1, 1] + [1, 0, 0]), axis=2).argmin(1)


def make_basis(folder: Path, people: int = 48, report: Callable[[str], None] = print) -> dict[str, float]:
    """Make the basis and write it as `basis.safetensors`.

    Args:
        folder: where it goes.
        people: generated, whose mean is taken.
        report: told of the progress.

    Returns:
        What is told of it: people seen, and for each direction how large its largest error is (standard error of the
        mean over its size).

    Raises:
        InputError: fewer than two people.
        MissingWeightsError: weights are not here and could not be fetched.
    """
    if people < 2:
        raise InputError(f"people must be 2 or more, got {people}: a mean needs several")
    seen = differences(people, report)
    means = {name: offsets.mean(0) for name, offsets in seen.items()}
    told = {f"{name}_error": relative_error(offsets) for name, offsets in seen.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"basis": completed(means)}, folder / Path(FILE).name)
    return {"people": people, **told}


def differences(people: int, report: Callable[[str], None]) -> dict[str, np.ndarray]:
    """What moving latents does to faces: (people,468,3) for one spread of each direction, symmetrical, head frame."""
    generator = Generator.from_pretrained(weights.path("generator")).eval()
    head = ImageHead.from_pretrained(weights.path("head_256")).eval()
    space, finder = LatentSpace.from_pretrained(weights.path("directions")), FaceFinder.from_pretrained()
    found: dict[str, list[np.ndarray]] = {name: [] for name in BOTH_WAYS}
    for person in range(people):
        z = torch.randn(1, generator.config.style_dim, generator=torch.Generator().manual_seed(FIRST_SEED + person))
        with torch.no_grad():
            w = generator.slots(generator.latents(z.to(generator.dtype), TRUNCATION))
            for name, shift in BOTH_WAYS.items():
                step = shift * float(space.attribute_spread[space.number(name)])
                pictures = torch.cat([draw(generator, head, move(space, w, name, way * step)) for way in (-1, 1)])
                local = local_meshes(finder, pictures)
                found[name].append(symmetrical(local[1] - local[0]) / (2 * shift))
        report(f"{person + 1} of {people} people")
    return {name: np.stack(offsets) for name, offsets in found.items()}


def draw(generator: Generator, head: ImageHead, w: Tensor) -> Tensor:
    """Latents to pictures (N,3,256,256) in [0,1]."""
    return render(generator, w, SIZE, head).clamp(0, 1)


def local_meshes(finder: FaceFinder, pictures: Tensor) -> np.ndarray:
    """Meshes (N,468,3) in the head frame of aligned faces (N,3,S,S)."""
    mesh = place_aligned(finder, pictures).mesh
    return head_poses(mesh).remove(mesh)


def symmetrical(offset: np.ndarray) -> np.ndarray:
    """The mean of offsets (468,3) and their mirror image."""
    return (offset + offset[MIRROR] * [-1, 1, 1]) / 2


def relative_error(offsets: np.ndarray) -> float:
    """Largest standard error of the mean of offsets (N,468,3), over the largest mean."""
    error = offsets.std(0, ddof=1) / np.sqrt(len(offsets))
    return round(float(np.linalg.norm(error, axis=1).max() / np.linalg.norm(offsets.mean(0), axis=1).max()), 4)


def completed(means: dict[str, np.ndarray]) -> np.ndarray:
    """The basis (6,468,3) float32 of the mean differences (468,3) for one spread of smile, mouth and brow."""
    x, y = np.abs(MEAN_MESH[:, 0] - 0.5), MEAN_MESH[:, 1]
    low = ramp(y, 0.5, 0.6) * (1 - ramp(x, 0.2, 0.27))
    smiling, opened = (means[name] * low[:, None] for name in ("smile", "mouth"))
    gaps, widths = ([measure(offset) for offset in (smiling, opened)] for measure in (gap, width))
    smile = smiling - opened * gaps[0] / gaps[1]  # lips stay as they are
    mouth = opened - smiling * widths[1] / widths[0]  # corners stay where they are
    smile *= SMILE / np.linalg.norm(smile[CORNER])
    mouth *= PRIOR_GAP / gap(mouth)
    jaw = jaw_open()
    mouth = mouth + jaw * (GAP - PRIOR_GAP) / gap(jaw)
    mouth += (
        lips_weight()[:, None] * [1, 0, 0] * -np.sign(MEAN_MESH[:, :1] - 0.5) * NARROWS * GAP * ramp(x, 0, 0.1)[:, None]
    )
    high = (1 - ramp(y, 0.43, 0.46)) * ramp(y, 0.3, 0.38) * (1 - ramp(x, 0.22, 0.3))
    brow = means["brow"] * high[:, None]
    brow *= -BROWS_UP / brow[BROW, 1]
    wink = shut_eye()
    eyes = wink + wink[MIRROR] * [-1, 1, 1]
    parts = {"smile": smile, "mouth": mouth, "pucker": pucker(), "eyes": eyes, "brow": brow, "wink": wink}
    return np.stack([parts[name] for name in NAMES]).astype(np.float32)


def ramp(values: np.ndarray, start: float, stop: float) -> np.ndarray:
    """0 below `start`, 1 above `stop`, smooth between."""
    share = np.clip((values - start) / (stop - start), 0, 1)
    return share * share * (3 - 2 * share)


def gap(offset: np.ndarray) -> float:
    """By how much offsets (468,3) part the lips."""
    upper, lower = LIPS_INSIDE
    return float(offset[lower, 1] - offset[upper, 1])


def width(offset: np.ndarray) -> float:
    """By how much offsets (468,3) widen the mouth, on one side."""
    return -float(offset[CORNER, 0])


def lips_weight() -> np.ndarray:
    """(468,) 1 on the lips and around the mouth, 0 elsewhere."""
    apart = (MEAN_MESH - MEAN_MESH[[13, 14]].mean(0))[:, :2] / [0.16, 0.1]
    return 1 - ramp(np.linalg.norm(apart, axis=1), 0.6, 1.4)


def jaw_open() -> np.ndarray:
    """Offsets (468,3) of a jaw that opens by 15°."""
    x, y = np.abs(MEAN_MESH[:, 0] - 0.5), MEAN_MESH[:, 1]
    corner = MEAN_MESH[CORNER, 1]
    share = ramp(y, corner - 0.04, corner + 0.09)
    rows = np.array(LOWER_LIP)
    share[rows] = 0.4 + 0.6 * (1 - (x[rows] / x[CORNER]) ** 2).clip(0)
    share[np.array(UPPER_LIP)] = 0
    share[list(CORNERS_OF_LIPS)] = 0.4
    arm, angle = MEAN_MESH[:, 1:] - JAW, np.radians(15)
    down = arm[:, 0] * (np.cos(angle) - 1) - arm[:, 1] * np.sin(angle)
    back = arm[:, 0] * np.sin(angle) + arm[:, 1] * (np.cos(angle) - 1)
    return np.stack([0 * down, down, back], 1) * share[:, None]


def pucker() -> np.ndarray:
    """Offsets (468,3) of lips that are pursed: narrower, thicker, further out."""
    weight = lips_weight()
    across, below = MEAN_MESH[:, 0] - 0.5, MEAN_MESH[:, 1] - MEAN_MESH[[13, 14], 1].mean()
    return np.stack([-0.4 * across, 0.12 * below, np.full(len(across), -0.03)], 1) * weight[:, None]


def shut_eye() -> np.ndarray:
    """Offsets (468,3) that shut the eye left in the picture of the mean face."""
    upper, lower = np.array(UPPER_LID), np.array(LOWER_LID)
    gaps = MEAN_MESH[lower] - MEAN_MESH[upper]
    offset = np.zeros_like(MEAN_MESH)
    offset[upper], offset[lower] = LIFT * gaps, (LIFT - 1) * gaps
    for row, share in zip(ABOVE_LID, FOLLOWS, strict=True):
        offset[list(row)] = share * LIFT * gaps
    offset[list(BELOW_LID)] = FOLLOWS[0] * (LIFT - 1) * gaps
    return offset
