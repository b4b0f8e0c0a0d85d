"""The invisible mark of synthetic pictures: which pipeline made them, found again after JPEG and resizing.

Spread spectrum (Cox et al., "Secure spread spectrum watermarking for multimedia", IEEE TIP 1997) with the host's own
share taken out while embedding (Malvar and Florêncio, "Improved spread spectrum", IEEE TSP 2003). The luma is resized
to 512x512, whatever the picture's shape, so that resizing changes nothing; its DCT coefficients between `LOW` and
`HIGH` are divided by the mean magnitude of their ring of frequencies; each of 32 symbols is the sum of about 1,170 of
them under pseudo-random signs. Without a mark such a sum is close to a standard normal variable.

24 symbols are always the same and say that there is a mark, 8 say which `KINDS` made the picture. The pattern is
public: the mark tells honest people what a picture is, it does not stop anybody who wants it gone, and cropping,
turning or redrawing the picture loses it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from studio.errors import InputError
from studio.images import resize

SIDE = 512
LOW, HIGH = 32, 220  # half cycles across the picture: above its shapes, below what JPEG and halving take away
RING = 8  # half cycles
TAG, PAYLOAD = 24, 8
SYMBOLS = TAG + PAYLOAD
STRENGTH = 3.0  # every symbol's sum after embedding, in standard deviations of an unmarked picture's
THRESHOLD = 6.0  # of the tag's 24 sums together: a normal variable passes it once in a billion pictures
FLOOR = 24 / 255  # coefficients smaller than this are changed as if they were: a smooth picture has room for it
STEPS = 5
SMALLEST = 256  # px; below it, half of the coefficients would lie beyond the finest detail

KINDS = ("generate", "upsample", "frontalize", "reenact", "restore", "enhance_video", "edit")
"""What may be said to have made a picture; its number is stored, so new names go to the end."""


@dataclass(frozen=True)
class Mark:
    """What was read from a picture.

    Attributes:
        found: the tag is there.
        score: of the tag, about 0 with a spread of 1 in an unmarked picture and about 14 in a fresh one.
        kind: one of `KINDS`; "unknown" for a number that this version has no name for, empty where nothing was found.
    """

    found: bool
    score: float
    kind: str = ""


def embed(pixels: Tensor, kind: str) -> Tensor:
    """Mark a synthetic picture. The change is about 45 dB below it, more in textured places, less in smooth ones.

    Args:
        pixels: (3,H,W) float32 RGB in [0,1], at least 256 px a side.
        kind: one of `KINDS`.

    Returns:
        (3,H,W) float32 RGB in [0,1].

    Raises:
        InputError: an unknown kind, another shape, or a picture that is too small.
    """
    if kind not in KINDS:
        raise InputError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}: choose one, or add it to KINDS")
    _check(pixels)
    height, width = pixels.shape[1:]
    if min(height, width) < SMALLEST:
        raise InputError(
            f"a picture must be at least {SMALLEST} px a side to carry the mark, got {width}x{height}: enlarge it first"
        )
    wanted = _symbols(KINDS.index(kind))
    pattern = _pattern()
    luma = _luma(pixels)
    spread = _whitened(_coefficients(luma))[1].clamp(min=FLOOR)
    mask = _texture(luma)
    least = STRENGTH / pattern.count.sqrt()
    gain = torch.zeros(SYMBOLS)
    marked = pixels
    for _ in range(STEPS):  # clipping, masking and resizing each take a little, so: measure and correct
        missing = STRENGTH - _sums(_luma(marked)) * wanted
        gain = torch.maximum(gain + missing / pattern.count.sqrt(), least)
        grid = torch.zeros(SIDE * SIDE)
        grid[pattern.where] = pattern.sign * (wanted * gain)[pattern.owner] * spread
        wave = mask * (_dct().T @ grid.view(SIDE, SIDE) @ _dct())  # (512, 512)
        wave = F.interpolate(wave[None, None], (height, width), mode="bicubic", align_corners=False)[0]
        marked = (pixels + wave).clamp(0, 1)
    return marked


def detect(pixels: Tensor) -> Mark:
    """Look for the mark.

    Args:
        pixels: (3,H,W) float32 RGB in [0,1] of any size.

    Raises:
        InputError: another shape.
    """
    _check(pixels)
    sums = _sums(_luma(pixels))
    score = float((sums * _symbols(0))[:TAG].sum() / math.sqrt(TAG))
    if score < THRESHOLD:
        return Mark(False, score)
    number = sum(int(value > 0) << bit for bit, value in enumerate(sums[TAG:]))
    return Mark(True, score, KINDS[number] if number < len(KINDS) else "unknown")


@dataclass(frozen=True)
class _Pattern:
    """Which coefficients take part (indices into the flat 512x512 grid), their signs, symbols and rings."""

    where: Tensor
    sign: Tensor
    owner: Tensor
    ring: Tensor
    count: Tensor  # coefficients of each symbol
    tag: Tensor


@cache
def _pattern() -> _Pattern:
    """The public pattern. RandomState's numbers never change between versions, as a mark must outlive them."""
    draw = np.random.RandomState(20260101)
    k = torch.arange(SIDE, dtype=torch.float32)
    radius = (k[:, None] ** 2 + k[None] ** 2).sqrt().flatten()
    where = ((radius >= LOW) & (radius < HIGH)).nonzero()[:, 0]
    order = torch.from_numpy(draw.permutation(len(where)))
    owner = torch.empty(len(where), dtype=torch.int64)
    owner[order] = torch.arange(len(where)) % SYMBOLS
    sign = torch.from_numpy(draw.randint(0, 2, len(where))).float() * 2 - 1
    tag = torch.from_numpy(draw.randint(0, 2, TAG)).float() * 2 - 1
    ring = ((radius[where] - LOW) / RING).long()
    return _Pattern(where, sign, owner, ring, torch.bincount(owner, minlength=SYMBOLS).float(), tag)


def _symbols(number: int) -> Tensor:
    """The 32 symbols, -1 or 1, of a kind's number."""
    payload = torch.tensor([2.0 * (number >> bit & 1) - 1 for bit in range(PAYLOAD)])
    return torch.cat([_pattern().tag, payload])


@cache
def _dct() -> Tensor:
    """Orthonormal DCT-II of 512 samples as a matrix; its transpose is the inverse."""
    i = torch.arange(SIDE, dtype=torch.float64)
    matrix = torch.cos(math.pi / (2 * SIDE) * i[:, None] * (2 * i[None] + 1)) * math.sqrt(2 / SIDE)
    matrix[0] /= math.sqrt(2)
    return matrix.float()


def _check(pixels: Tensor) -> None:
    if pixels.ndim != 3 or pixels.shape[0] != 3 or not pixels.is_floating_point():
        raise InputError(
            f"a picture must be (3,H,W) float in [0,1], got {tuple(pixels.shape)} {pixels.dtype}: pass one at a time"
        )


def _luma(pixels: Tensor) -> Tensor:
    """(3,H,W) to the luma (512,512) of a picture of any shape."""
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return resize((pixels.float().cpu() * weights).sum(0, keepdim=True), SIDE, SIDE)[0]


def _coefficients(luma: Tensor) -> Tensor:
    """The coefficients that take part, (M,)."""
    return (_dct() @ luma @ _dct().T).flatten()[_pattern().where]


def _whitened(coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients (M,) of one size in every ring, outliers cut off; and what they were divided by."""
    ring = _pattern().ring
    size = torch.zeros(int(ring.max()) + 1).index_add(0, ring, coefficients.abs()) / torch.bincount(ring)
    spread = size.clamp(min=1 / 255)[ring]
    return (coefficients / spread).clamp(-3, 3), spread


def _sums(luma: Tensor) -> Tensor:
    """The 32 symbols' sums, each about a standard normal variable in an unmarked picture."""
    pattern = _pattern()
    white, _ = _whitened(_coefficients(luma))
    total = torch.zeros(SYMBOLS).index_add(0, pattern.owner, white * pattern.sign)
    return total / pattern.count.sqrt() / white.std().clamp(min=1e-6)


def _texture(luma: Tensor) -> Tensor:
    """Where a change is seen least: (512,512), 1 on average, more where the picture is busy."""

    def local(values: Tensor) -> Tensor:
        return F.avg_pool2d(values[None, None], 9, 1, 4, count_include_pad=False)[0, 0]

    busy = local((luma - local(luma)).square()).sqrt()
    mask = (0.5 + busy * 32).clamp(max=1.5)
    return mask / mask.mean()
