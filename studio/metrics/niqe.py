"""How natural a picture looks without its original: NIQE (Mittal, Soundararajan and Bovik, IEEE SPL 20(3), 2013).

Brightness, locally normalised, has a distribution that blur, noise, blocks and weaves bend. Eighteen numbers describe
it in each patch at each of two scales (section II.B); a picture is as far from natural as the Gaussian of its patches'
numbers is from that of clean portraits (equation 10). The Gaussian of the clean ones is fitted here, by
`studio train niqe`, so that figures compare with each other and not with those of other implementations.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from studio import weights
from studio.errors import InputError
from studio.metrics.image import luma

PATCH = 96  # px; half of it at the second scale
FEATURES = 36
SHARPEST = 0.75  # patches of the clean pictures count from this share of their sharpest one's deviation on
WINDOW, SIGMA = 7, 7 / 6  # of the local mean and deviation
FIT = "niqe/fit.safetensors"  # in the folder of the committed weights


def niqe(images: Tensor, fit: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Distance from clean portraits; lower is more natural.

    Args:
        images: (N,3,H,W) float32 RGB in [0,1], both sides `PATCH` px or more.
        fit: mean (36,) and covariance (36,36) float64 of clean pictures, see `gaussian`; None takes the committed one.

    Returns:
        (N,) float32 ≥ 0; clean portraits lie near 3 to 5, noise and heavy blur above 8.

    Raises:
        InputError: another shape, or a picture without one patch that is not flat.
    """
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < PATCH:
        raise InputError(f"NIQE needs images (N,3,H,W) of {PATCH} px or more, got {tuple(images.shape)}: leave it out")
    mean, covariance = committed_fit() if fit is None else fit
    found = []
    for image in images:
        own_mean, own_covariance = gaussian([patch_features(image)[0]])
        difference = own_mean - mean
        pooled = torch.linalg.pinv((covariance + own_covariance) / 2, hermitian=True)
        found.append((difference @ pooled @ difference).clamp_min(0).sqrt())
    return torch.stack(found).float()


@cache
def committed_fit() -> tuple[Tensor, Tensor]:
    """Mean and covariance of clean portraits, as committed."""
    tensors = load_file(weights.COMMITTED / FIT)
    return tensors["mean"], tensors["covariance"]


def fit_clean(images: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (36,) and covariance (36,36) of the sharp patches of clean pictures (3,H,W) in [0,1] (section II.C)."""
    chosen = []
    for image in images:
        features, deviation = patch_features(image)
        chosen.append(features[deviation >= SHARPEST * deviation.max()])
    return gaussian(chosen)


def gaussian(features: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (36,) and covariance (36,36), float64, of the numbers of patches (P,36)."""
    rows = torch.cat(features)
    rows = rows[rows.isfinite().all(1)]
    if not len(rows):
        raise InputError("NIQE needs a patch that is not flat, the picture has none: leave it out")
    covariance = torch.cov(rows.T, correction=1) if len(rows) > 1 else torch.zeros(FEATURES, FEATURES).double()
    return rows.mean(0), covariance


def patch_features(image: Tensor) -> tuple[Tensor, Tensor]:
    """Of every whole patch of a picture (3,H,W): its 36 numbers (P,36) float64, and its mean deviation (P,).

    Where a patch is flat its numbers are not finite.
    """
    grey = (255 * luma(image[None].double())).round()
    rows, columns = (side // PATCH for side in grey.shape[2:])
    grey = grey[:, :, : rows * PATCH, : columns * PATCH]
    numbers, deviation = [], None
    for patch in (PATCH, PATCH // 2):
        normal, local = normalise(grey)
        cells = to_patches(normal, patch)  # (P, patch, patch)
        numbers.append(statistics(cells))
        if deviation is None:
            deviation = to_patches(local, patch).mean((1, 2))
        grey = F.interpolate(grey, scale_factor=0.5, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat(numbers, 1), deviation


def normalise(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Brightness (1,1,H,W) in [0,255] over its local mean and deviation (equation 1), and the deviation."""
    steps = torch.arange(WINDOW, dtype=grey.dtype) - WINDOW // 2
    taps = torch.exp(-0.5 * (steps / SIGMA) ** 2)
    taps = taps / taps.sum()

    def mean(x: Tensor) -> Tensor:
        x = F.pad(x, (WINDOW // 2,) * 4, mode="replicate")
        return F.conv2d(F.conv2d(x, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))

    local = mean(grey)
    deviation = (mean(grey * grey) - local * local).abs().sqrt()
    return (grey - local) / (deviation + 1), deviation


def to_patches(x: Tensor, patch: int) -> Tensor:
    """(1,1,H,W) to its whole patches (P,patch,patch)."""
    return x[0, 0].unfold(0, patch, patch).unfold(1, patch, patch).flatten(0, 1)


def statistics(cells: Tensor) -> Tensor:
    """The eighteen numbers (P,18) of normalised patches (P,h,w): shape and scale, then four neighbours' products."""
    shape, left, right = asymmetric_gaussian(cells)
    numbers = [shape, (left + right) / 2]
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = asymmetric_gaussian(cells * cells.roll((dy, dx), (1, 2)))
        constants = (torch.lgamma(1 / shape) - torch.lgamma(3 / shape)).mul(0.5).exp()
        centre = (right - left) * constants * (torch.lgamma(2 / shape) - torch.lgamma(1 / shape)).exp()
        numbers += [shape, centre, left, right]
    return torch.stack(numbers, 1)


@cache
def shape_table() -> tuple[Tensor, Tensor]:
    """Shapes from 0.2 to 10, and the ratio of moments that each of them has (equation 5), rising."""
    shapes = torch.arange(0.2, 10.001, 0.001, dtype=torch.float64)
    logs = 2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes)
    return shapes, logs.exp()


def asymmetric_gaussian(cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shape and both deviations (P,) of the asymmetric generalised Gaussian of patches (P,h,w), by their moments."""
    x = cells.flatten(1)

    def deviation(part: Tensor) -> Tensor:
        return ((x.square() * part).sum(1) / part.sum(1)).sqrt()

    left, right = deviation(x < 0), deviation(x > 0)
    gamma = left / right
    ratio = x.abs().mean(1).square() / x.square().mean(1)
    ratio = ratio * (gamma**3 + 1) * (gamma + 1) / (gamma**2 + 1).square()
    shapes, ratios = shape_table()
    place = torch.searchsorted(ratios, ratio.nan_to_num(0.5).contiguous()).clamp(max=len(shapes) - 1)
    shape = torch.where(ratio.isfinite(), shapes[place], torch.nan)
    return shape, left, right
