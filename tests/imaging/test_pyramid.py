"""Laplacian pyramids."""

from __future__ import annotations

import pytest
import torch

from studio.imaging.pyramid import blur, collapse, pyramid
from tests import tiny

S = 64  # the side of `tiny.texture`


@pytest.fixture
def sharp():
    return tiny.texture(0)


@pytest.mark.parametrize("bands", [1, 3, 5])
def test_collapse_undoes_the_pyramid(sharp, bands):
    levels = pyramid(sharp, bands)
    assert [level.shape[-1] for level in levels] == [S >> i for i in range(bands)] + [S >> bands]
    torch.testing.assert_close(collapse(levels), sharp, atol=1e-6, rtol=0)


def test_a_flat_picture_has_only_the_rest():
    *bands, rest = pyramid(torch.full((1, 3, S, S), 0.3))
    assert max(band.abs().max() for band in bands) < 1e-6
    torch.testing.assert_close(rest, torch.full_like(rest, 0.3))


def test_blur_keeps_the_mean_of_a_flat_picture():
    x = torch.full((1, 2, 9, 7), 0.7)
    torch.testing.assert_close(blur(x), x)
