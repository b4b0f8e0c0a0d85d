"""Joining estimate and prior while the restorer is trained."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from studio.imaging.pyramid import blur, collapse, pyramid
from studio.training.fusion import fill_gain, fuse
from tests import tiny

S = 64  # the side of `tiny.texture`


def energies(x):
    """Mean square of each band of a pyramid."""
    return [band.square().mean().item() for band in pyramid(x)[:-1]]


@pytest.fixture
def sharp():
    return tiny.texture(0)


@pytest.fixture
def blurred(sharp):
    return blur(blur(blur(sharp)))


@pytest.fixture
def prior():
    return tiny.texture(1)


def test_fidelity_one_is_the_estimate(blurred, prior):
    torch.testing.assert_close(fuse(blurred, prior, 1.0), blurred, atol=1e-6, rtol=0)


def test_fidelity_zero_is_the_prior_in_the_colours_of_the_estimate(blurred, prior):
    expected = collapse([*pyramid(prior)[:-1], pyramid(blurred)[-1]])
    torch.testing.assert_close(fuse(blurred, prior, 0.0), expected, atol=1e-6, rtol=0)


def test_a_blurred_face_is_filled_to_the_energy_of_the_prior(blurred, prior):
    bands = zip(pyramid(blurred)[:-1], pyramid(prior)[:-1], strict=True)
    whole = collapse([*(e + fill_gain(e, p) * p for e, p in bands), pyramid(blurred)[-1]])
    filled, missing, wanted = energies(whole), energies(blurred), energies(prior)
    assert missing[0] < 0.1 * wanted[0]  # there is something to fill
    assert filled[:3] == pytest.approx(wanted[:3], rel=0.1)
    assert all(has > 0.9 * needs for has, needs in zip(filled, wanted, strict=True))


@pytest.mark.parametrize(("fidelity", "filled", "mixed"), [(0.5, 1.0, 0.5), (0.75, 0.5, 0.25), (0.9, 0.2, 0.1)])
def test_what_is_blurred_is_filled_in_and_partly_the_priors(blurred, prior, fidelity, filled, mixed):
    joined, unsure = [], 0
    for e, p in zip(pyramid(blurred)[:-1], pyramid(prior)[:-1], strict=True):
        gain = fill_gain(e, p)
        unsure = gain if not joined else torch.maximum(gain, 0.5 * F.avg_pool2d(unsure, 2))
        joined.append((1 - mixed * unsure) * (e + filled * gain * p) + mixed * unsure * p)
    expected = collapse([*joined, pyramid(blurred)[-1]])
    torch.testing.assert_close(fuse(blurred, prior, fidelity), expected, atol=1e-6, rtol=0)


def test_below_half_fidelity_all_moves_to_the_prior(blurred, prior):
    middle, prior_only = fuse(blurred, prior, 0.5), fuse(blurred, prior, 0.0)
    torch.testing.assert_close(fuse(blurred, prior, 0.25), (middle + prior_only) / 2, atol=1e-5, rtol=0)


def test_estimate_that_is_sharper_than_the_prior_stays(sharp, prior):
    torch.testing.assert_close(fuse(sharp, blur(blur(0.3 * prior)), 0.5), sharp, atol=2e-3, rtol=0)


def test_estimate_equal_to_the_prior_stays(sharp):
    torch.testing.assert_close(fuse(sharp, sharp, 0.5), sharp, atol=1e-4, rtol=0)


def test_gain_brings_the_energy_up_exactly():
    band = torch.randn(1, 3, S, S, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fill_gain(0.25 * band, band), torch.full((1, 1, S, S), 0.75))
    torch.testing.assert_close(fill_gain(0 * band, band), torch.ones(1, 1, S, S))
    assert fill_gain(2 * band, band).abs().max() == 0
    assert fill_gain(band, 0 * band).abs().max() == 0
    assert fill_gain(-0.5 * band, band).max() <= 1


def test_more_fidelity_is_never_further_from_the_estimate(blurred, prior):
    steps = [k / 10 for k in range(11)]
    distances = [(fuse(blurred, prior, fidelity) - blurred).square().mean().item() for fidelity in steps]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > distances[5] > distances[-1]
    assert distances[-1] == pytest.approx(0, abs=1e-10)


def test_one_fidelity_for_each_face(blurred, prior):
    both = fuse(blurred, prior, torch.tensor([0.2, 0.9]))
    for i, fidelity in enumerate((0.2, 0.9)):
        torch.testing.assert_close(both[i], fuse(blurred, prior, fidelity)[i], atol=1e-6, rtol=0)


def test_fusion_is_local(blurred, prior):
    """The left half is sharp already: what is filled in is on the right."""
    half = torch.arange(S) < S // 2
    estimate = torch.where(half, prior, blurred)
    changed = (fuse(estimate, prior, 0.5) - estimate).abs().mean((0, 1, 2))
    assert changed[: S // 4].mean() < 0.1 * changed[3 * S // 4 :].mean()
