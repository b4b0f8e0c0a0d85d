"""Every artefact raises its own number, and not by chance."""

import math

import pytest
import torch

from studio.degradations import ops
from studio.errors import InputError
from studio.metrics.artifacts import blockiness, edge_contrast, overshoot, weave
from tests.metrics.test_niqe import rng, textured

SIZE = 256
CLEAN = torch.stack([textured(seed, SIZE) for seed in (1, 2, 3)])


def each(function, images=CLEAN):
    return torch.stack([function(image) for image in images])


@pytest.mark.parametrize("side", [20, 32, 37])
def test_square_pixels_are_blocks(side):
    enlarged = each(lambda x: ops.resample(ops.resample(x, side, "box"), SIZE, "nearest"))
    assert (blockiness(enlarged) > 2 * blockiness(CLEAN)).all()


def test_blurred_or_noisy_pictures_have_no_blocks():
    soft = each(lambda x: ops.noise(ops.blur(x, 2, 2, 0, 6), 0.05, rng()))
    assert (blockiness(soft) < 1.5 * blockiness(CLEAN)).all()


def edges():
    picture = torch.full((1, 3, SIZE, SIZE), 0.3)
    picture[:, :, 64:192, 64:192] = 0.7
    return each(lambda x: ops.blur(x, 1.5, 1.5, 0, 6), picture)


def test_sharpening_overshoots():
    plain = edges()
    halos = each(lambda x: ops.unsharp(x, 3.0, 1.0), plain)
    assert overshoot(plain).item() < 0.02
    assert overshoot(halos).item() > 0.1


def test_a_lattice_in_hair_stands_out():
    steps = torch.arange(SIZE, dtype=torch.float32) * (2 * math.pi / 8)
    lattice = 0.02 * (torch.cos(steps)[:, None] * torch.cos(steps)[None])
    hair = torch.zeros(3, 1, 32, 32)
    hair[:, :, :16] = 1
    plain, woven = weave(CLEAN, hair), weave((CLEAN + lattice).clamp(0, 1), hair)
    assert (woven > 2 * plain).all()
    assert weave(CLEAN, torch.zeros(3, 1, 32, 32)).isnan().all()


def test_a_composite_is_seen_at_its_edge():
    mask = torch.zeros(3, 1, SIZE, SIZE)
    mask[:, :, 64:192, 64:192] = 1
    soft = each(lambda x: ops.blur(x, 2, 2, 0, 6))
    composite = mask * CLEAN + (1 - mask) * soft
    for plain, joined in zip(edge_contrast(CLEAN, mask), edge_contrast(composite, mask), strict=True):
        assert (joined > 1.3 * plain).all()


def test_small_pictures_are_refused():
    with pytest.raises(InputError, match="128 px"):
        blockiness(torch.zeros(1, 3, 100, 200))
