"""How far a picture is from another one, or how sharp it is on its own.

All take (N,3,H,W) float32 RGB in [0,1] and give (N,) float32, one number per image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.errors import InputError

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
WINDOW, WINDOW_SIGMA = 11, 1.5  # of SSIM
LAPLACIAN_GAIN = 8.0  # the most the Laplacian makes of any frequency: that of a chessboard of single pixels


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over all pixels and channels.

    Args:
        images: (N,3,H,W) in [0,1].
        targets: the same shape.

    Returns:
        (N,) in dB; higher is nearer, infinite for equal images.

    Raises:
        InputError: the shapes are not as above.
    """
    _check(images, targets)
    return -10 * (images - targets).square().mean((1, 2, 3)).log10()


def ssim(images: Tensor, targets: Tensor) -> Tensor:
    """Structural similarity of luma (Wang et al. 2004, eq. 13; Gaussian 11×11 window of σ 1.5, whole windows only).

    Args:
        images: (N,3,H,W) in [0,1], both sides 11 px or more.
        targets: the same shape.

    Returns:
        (N,) in [-1,1], 1 for equal images.

    Raises:
        InputError: the shapes are not as above.
    """
    _check(images, targets)
    if min(images.shape[-2:]) < WINDOW:
        raise InputError(f"SSIM needs images of {WINDOW} px or more, {tuple(images.shape)} was given: leave it out")
    x, y = luma(images), luma(targets)  # (N,1,H,W)
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variance_x = _window_mean(x * x) - mean_x**2
    variance_y = _window_mean(y * y) - mean_y**2
    covariance = _window_mean(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))
    return similarity.mean((1, 2, 3))


def sharpness(images: Tensor) -> Tensor:
    """Share of fine detail, without a reference: spread of the Laplacian of luma over spread of luma, divided by 8.

    Contrast and brightness cancel out. Noise counts as detail (white noise alone gives 0.56), so it tells sharp from
    blurred only among clean images of one size.

    Args:
        images: (N,3,H,W) in [0,1], both sides 3 px or more.

    Returns:
        (N,) in [0,1]: 0 for a flat image, 1 for a chessboard of single pixels; portraits of 256 px lie near
        0.06 (sharp) and 0.003 (after a blur of 3 px).

    Raises:
        InputError: the shape is not as above.
    """
    _check(images)
    if min(images.shape[-2:]) < 3:
        raise InputError(f"sharpness needs images of 3 px or more, {tuple(images.shape)} was given: leave it out")
    grey = luma(images)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=images.dtype, device=images.device)
    detail = F.conv2d(grey, kernel[None, None]).std((1, 2, 3), correction=0)
    spread = grey.std((1, 2, 3), correction=0)
    flat = spread < 1e-5
    return torch.where(flat, 0.0, detail / spread.clamp_min(1e-5) / LAPLACIAN_GAIN).clamp(max=1)


def mean_lab_difference(images: Tensor, targets: Tensor) -> Tensor:
    """Mean colour difference ΔE*ab (CIE 1976) over the pixels; about 2.3 is just noticeable.

    Args:
        images: (N,3,H,W) sRGB in [0,1].
        targets: the same shape.

    Returns:
        (N,) ≥ 0; black against white is 100.

    Raises:
        InputError: the shapes are not as above.
    """
    _check(images, targets)
    return (srgb_to_lab(images) - srgb_to_lab(targets)).square().sum(1).sqrt().mean((1, 2))


def luma(images: Tensor) -> Tensor:
    """(N,3,H,W) -> (N,1,H,W), BT.601."""
    weights = torch.tensor(LUMA, dtype=images.dtype, device=images.device)
    return (images * weights[:, None, None]).sum(1, keepdim=True)


def srgb_to_lab(images: Tensor) -> Tensor:
    """SRGB (N,3,H,W) in [0,1] -> CIE L*a*b*, white D65: L* 0–100, a* and b* about ±110."""
    linear = torch.where(images <= 0.04045, images / 12.92, ((images.clamp_min(0) + 0.055) / 1.055) ** 2.4)
    to_xyz = torch.tensor(  # IEC 61966-2-1; each row divided by its sum below, so that white has a* = b* = 0
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]],
        dtype=images.dtype,
        device=images.device,
    )
    xyz = torch.einsum("ij,njhw->nihw", to_xyz / to_xyz.sum(1, keepdim=True), linear)
    limit = 6 / 29
    f = torch.where(xyz > limit**3, xyz.clamp_min(limit**3) ** (1 / 3), xyz / (3 * limit**2) + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def _window_mean(plane: Tensor) -> Tensor:
    steps = torch.arange(WINDOW, dtype=plane.dtype, device=plane.device) - WINDOW // 2
    weights = torch.exp(-0.5 * (steps / WINDOW_SIGMA) ** 2)
    weights = weights / weights.sum()
    return F.conv2d(F.conv2d(plane, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))


def _check(images: Tensor, targets: Tensor | None = None) -> None:
    if images.ndim != 4 or images.shape[1] != 3:
        raise InputError(f"images must be (N,3,H,W), {tuple(images.shape)} was given: add the batch dimension")
    if targets is not None and targets.shape != images.shape:
        raise InputError(
            f"both images must have one shape, {tuple(images.shape)} and {tuple(targets.shape)} were given: resize one"
        )
