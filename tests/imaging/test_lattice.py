"""What repeats itself from cell to cell."""

import torch

from studio.imaging.lattice import PERIOD, without_lattice
from studio.imaging.pyramid import blur
from studio.metrics.artifacts import weave
from tests import tiny


def woven(strength=0.03):
    """A photograph, and it with one small pattern in every cell."""
    photo = blur(blur(tiny.sharp_photo()[None, :, :128, :128]))
    pattern = torch.randn(1, 1, PERIOD, PERIOD, generator=torch.Generator().manual_seed(0))
    pattern = strength * (pattern - pattern.mean())
    return photo, photo + pattern.repeat(1, 1, 128 // PERIOD, 128 // PERIOD)


def test_a_lattice_goes_and_the_photograph_stays():
    photo, lattice = woven()
    without = [without_lattice(x) for x in (photo, lattice)]
    inner = (..., slice(16, -16), slice(16, -16))
    assert (without[1] - photo)[inner].abs().mean() < 0.4 * (lattice - photo)[inner].abs().mean()
    assert (without[0] - photo).abs().mean() < 0.1 * photo.std()
    everywhere = torch.ones(1, 1, 16, 16)
    assert weave(lattice, everywhere) > 10 * weave(without[1], everywhere)


def test_one_bright_dot_leaves_no_ghosts_beside_it():
    picture = torch.full((1, 3, 128, 128), 0.4)
    picture[..., 60, 60] = 1.0
    beside = (without_lattice(picture) - picture).abs()
    assert beside.max() < 0.02
