"""Measures against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from studio.errors import InputError
from studio.metrics import landmark_error, mean_lab_difference, psnr, sharpness, ssim
from studio.metrics.image import srgb_to_lab


def flat(value, count=1, size=16):
    return torch.full((count, 3, size, size), float(value))


def noise(seed=0, size=24):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_psnr():
    assert psnr(flat(0.5), flat(0.6)).item() == pytest.approx(20, abs=1e-3)
    assert psnr(flat(0.0), flat(1.0)).item() == pytest.approx(0)
    assert psnr(flat(0.5), flat(0.5)).item() == math.inf
    half = flat(0.0)
    half[..., :8] = 0.2  # half the pixels off by 0.2: mean square 0.02
    assert psnr(half, flat(0.0)).item() == pytest.approx(-10 * math.log10(0.02), abs=1e-3)


def test_ssim_of_flat_images_is_its_luminance_term():
    expected = (2 * 0.3 * 0.5 + 1e-4) / (0.3**2 + 0.5**2 + 1e-4)
    assert ssim(flat(0.3), flat(0.5)).item() == pytest.approx(expected, abs=1e-4)


def test_ssim_of_one_window():
    """One 11×11 image has one window: the formula of the paper written out in numpy."""
    x, y = noise(1, 11)[:1], noise(2, 11)[:1]
    steps = np.arange(11) - 5
    line = np.exp(-(steps**2) / (2 * 1.5**2))
    window = np.outer(line, line) / np.outer(line, line).sum()
    a, b = ((im[0].double().numpy() * np.array([0.299, 0.587, 0.114])[:, None, None]).sum(0) for im in (x, y))
    mean_a, mean_b = (window * a).sum(), (window * b).sum()
    var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
    cov = (window * (a - mean_a) * (b - mean_b)).sum()
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    assert ssim(x, y).item() == pytest.approx(expected, abs=1e-4)


def test_ssim_orders_damage():
    image = noise()
    assert ssim(image, image).tolist() == pytest.approx([1, 1], abs=1e-5)
    near, far = (ssim((image + s * (noise(9) - 0.5)).clamp(0, 1), image) for s in (0.1, 0.6))
    assert (near > far).all()
    assert (ssim(image, 1 - image) < 0).all()


def test_sharpness():
    board = ((torch.arange(32)[:, None] + torch.arange(32)) % 2).float().expand(1, 3, 32, 32)
    assert sharpness(board).item() == pytest.approx(1, abs=1e-3)
    assert sharpness(flat(0.4)).item() == 0
    white = torch.rand(1, 1, 160, 160, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    assert sharpness(white).item() == pytest.approx(math.sqrt(20) / 8, abs=0.015)
    assert sharpness(0.3 + 0.2 * white).item() == pytest.approx(sharpness(white).item(), rel=1e-3)
    shrunk = torch.nn.functional.avg_pool2d(white, 3, stride=1)
    assert sharpness(shrunk) < sharpness(white) / 2


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
        ((0.5, 0.5, 0.5), (53.39, 0, 0)),
    ],
)
def test_lab(rgb, lab):
    image = torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1)
    assert srgb_to_lab(image).flatten().tolist() == pytest.approx(lab, abs=0.03)


def test_mean_lab_difference():
    assert mean_lab_difference(flat(0), flat(1)).item() == pytest.approx(100, abs=1e-3)
    assert mean_lab_difference(noise(), noise()).tolist() == [0, 0]
    half = flat(0.0)
    half[..., :8] = 1
    assert mean_lab_difference(half, flat(0)).item() == pytest.approx(50, abs=1e-3)


def test_landmark_error():
    target = np.zeros((2, 468, 3), np.float32)
    target[:, [33, 133], 0] = [[10, 30], [10, 30]]  # eye centre at x = 20
    target[:, [263, 362], 0] = [[130, 110], [130, 110]]  # and at 120: 100 apart
    moved = target + np.float32([3, 4, 50])  # 5 px in the plane, z is not looked at
    moved[1, :, :2] = target[1, :, :2]
    assert landmark_error(moved, target).tolist() == pytest.approx([0.05, 0])
    assert landmark_error(moved[..., :2], target[..., :2]).tolist() == pytest.approx([0.05, 0])
    with pytest.raises(InputError, match="eyes"):
        landmark_error(moved, np.zeros_like(target))
    with pytest.raises(InputError, match="468"):
        landmark_error(moved[:, :10], target[:, :10])


@pytest.mark.parametrize("measure", [psnr, ssim, mean_lab_difference])
def test_refuses_two_shapes(measure):
    with pytest.raises(InputError, match="one shape"):
        measure(flat(0, size=16), flat(0, size=17))
    with pytest.raises(InputError, match=r"\(N,3,H,W\)"):
        measure(flat(0)[0], flat(0)[0])


def test_refuses_too_small():
    with pytest.raises(InputError, match="11 px"):
        ssim(flat(0, size=10), flat(0, size=10))
    with pytest.raises(InputError, match="3 px"):
        sharpness(flat(0, size=2))


@pytest.mark.parametrize("measure", [psnr, ssim, mean_lab_difference])
def test_a_batch_is_a_loop(measure):
    a, b = noise(1), noise(2)
    loop = torch.cat([measure(a[i : i + 1], b[i : i + 1]) for i in range(2)])
    assert torch.allclose(measure(a, b), loop, atol=1e-5)
