"""Joining evidence and prior."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from studio.degradations.ops import screen
from studio.evidence import (
    fill_gain,
    fuse,
    keep_shading,
    kept_detail,
    plausible,
    with_native_detail,
    with_prior_colour,
    with_sure_detail,
)
from studio.imaging.pyramid import blur, collapse, pyramid
from studio.tone import luma
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


# ---- the pyramid


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


# ---- fusion


def test_fidelity_one_is_the_evidence(blurred, prior):
    torch.testing.assert_close(fuse(blurred, prior, 1.0), blurred, atol=1e-6, rtol=0)


def test_fidelity_zero_is_the_prior_in_the_colours_of_the_evidence(blurred, prior):
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


def test_evidence_that_is_sharper_than_the_prior_stays(sharp, prior):
    torch.testing.assert_close(fuse(sharp, blur(blur(0.3 * prior)), 0.5), sharp, atol=2e-3, rtol=0)


def test_evidence_equal_to_the_prior_stays(sharp):
    torch.testing.assert_close(fuse(sharp, sharp, 0.5), sharp, atol=1e-4, rtol=0)


def test_gain_brings_the_energy_up_exactly():
    band = torch.randn(1, 3, S, S, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fill_gain(0.25 * band, band), torch.full((1, 1, S, S), 0.75))
    torch.testing.assert_close(fill_gain(0 * band, band), torch.ones(1, 1, S, S))
    assert fill_gain(2 * band, band).abs().max() == 0
    assert fill_gain(band, 0 * band).abs().max() == 0
    assert fill_gain(-0.5 * band, band).max() <= 1


def test_more_fidelity_is_never_further_from_the_evidence(blurred, prior):
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
    evidence = torch.where(half, prior, blurred)
    changed = (fuse(evidence, prior, 0.5) - evidence).abs().mean((0, 1, 2))
    assert changed[: S // 4].mean() < 0.1 * changed[3 * S // 4 :].mean()


# ---- detail above the network's size


def test_native_detail_is_kept_where_the_network_left_the_picture_alone(sharp):
    seen = F.avg_pool2d(sharp, 2)
    torch.testing.assert_close(with_native_detail(seen, seen, sharp, sharp), sharp, atol=1e-5, rtol=0)


def test_native_detail_is_dropped_where_the_network_took_it_for_noise(sharp):
    seen = F.avg_pool2d(sharp, 2)
    cleaned = seen - pyramid(seen, 1)[0]
    result = with_native_detail(cleaned, seen, sharp, sharp)
    assert pyramid(result, 1)[0].std() < 0.2 * pyramid(sharp, 1)[0].std()


def test_detail_is_kept_where_the_finest_octave_stayed(sharp, blurred):
    assert kept_detail(sharp, sharp).min() == 1
    assert kept_detail(sharp, sharp + 0.1).min() > 0.99  # brightness is no detail
    assert kept_detail(sharp, blurred).mean() < 0.5
    half = torch.cat([sharp[..., : S // 2], blurred[..., S // 2 :]], 3)
    kept = kept_detail(sharp, half)
    assert kept[..., : S // 2 - 8].min() == 1 and kept[..., S // 2 + 8 :].mean() < 0.5


def test_detail_that_the_evidence_explains_comes_back_and_noise_does_not(sharp):
    """Evidence that lost a tenth of the contrast gets it back; beside other noise of the same size it stays."""
    faint = collapse([*(0.9 * band for band in pyramid(sharp)[:-1]), pyramid(sharp)[-1]])
    assert (with_sure_detail(faint, sharp, sharp) - sharp).abs().mean() < 0.1 * (faint - sharp).abs().mean()
    torch.testing.assert_close(with_sure_detail(sharp, sharp, sharp), sharp, atol=1e-5, rtol=0)
    noise = 0.2 * torch.randn(sharp.shape, generator=torch.Generator().manual_seed(7))
    cleaned = with_sure_detail(sharp, sharp + noise, sharp + noise)
    assert (cleaned - sharp).abs().mean() < 0.2 * noise.abs().mean()


def test_noise_does_not_come_back_though_the_evidence_holds_some_of_it(sharp):
    """What is left of noise is the photo's own band, fainter: coherence alone takes it for signal."""
    flat = torch.full_like(sharp, 0.5)
    noise = 0.1 * torch.randn(sharp.shape, generator=torch.Generator().manual_seed(8))
    photo, cleaned = flat + noise, flat + 0.3 * noise
    assert torch.allclose(with_sure_detail(cleaned, photo, photo), cleaned, atol=0.02)
    small, seen = F.avg_pool2d(cleaned, 2), F.avg_pool2d(photo, 2)
    native = with_native_detail(small, seen, photo, photo)
    assert pyramid(native, 1)[0].std() < 0.1 * pyramid(photo, 1)[0].std()


def test_a_noisy_photo_takes_its_fine_colours_from_the_prior_and_no_other_does(sharp):
    speckle = 0.1 * torch.randn(sharp.shape, generator=torch.Generator().manual_seed(9))
    grey = luma(sharp).expand(-1, 3, -1, -1)
    small = F.avg_pool2d(sharp, 2)
    noise = 0.5 * torch.randn(small.shape, generator=torch.Generator().manual_seed(10))
    found = with_prior_colour(grey + speckle, small + noise, small, grey)
    assert torch.allclose(luma(found), luma(grey + speckle), atol=1e-5)
    before, after = (luma(x) - x for x in (grey + speckle, found))
    assert after.std() < 0.35 * before.std()
    torch.testing.assert_close(with_prior_colour(grey + speckle, small, small, grey), grey + speckle, atol=1e-5, rtol=0)
    kept = with_prior_colour(grey + speckle, small + noise, small, grey, share=0.0)
    torch.testing.assert_close(kept, grey + speckle, atol=1e-5, rtol=0)


def test_a_printing_screen_does_not_come_back_though_the_evidence_holds_some_of_it(sharp):
    face = 0.5 + 0.2 * (sharp - 0.5)
    dots = 0.5 * (screen(S, 4.0, 0.6, "dots") - 0.5)
    photo, cleaned = face + dots, face + 0.85 * dots
    with_dots = with_sure_detail(cleaned, photo, photo) - face  # a prior that draws dots too finds them plausible
    without = with_sure_detail(cleaned, photo, face) - face
    assert with_dots.std() > 0.95 * dots.std()
    assert without.std() < 0.88 * dots.std()
    small = F.avg_pool2d(face, 2)
    assert (with_native_detail(small, small, photo, photo) - face).std() > 0.7 * dots.std()
    assert (with_native_detail(small, small, photo, face) - face).std() < 0.2 * dots.std()


def test_plausible_is_what_the_prior_could_draw(sharp):
    band = pyramid(sharp)[0]
    assert plausible(2.9 * band, band).min() == 1
    assert plausible(torch.zeros_like(band), band).min() == 1
    assert plausible(10 * band, band).max() < 0.01


def test_shading_is_the_photos_and_texture_the_restorers(sharp, prior):
    shaded = keep_shading(prior, sharp)
    torch.testing.assert_close(shaded, collapse([*pyramid(prior)[:-1], pyramid(sharp)[-1]]), atol=1e-6, rtol=0)
    low, wanted = (F.avg_pool2d(x, 32) for x in (shaded, sharp))
    assert (low - wanted).abs().mean() < 0.5 * (F.avg_pool2d(prior, 32) - wanted).abs().mean()
    torch.testing.assert_close(keep_shading(sharp, sharp), sharp, atol=1e-6, rtol=0)
