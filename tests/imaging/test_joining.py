"""Joining a photograph's estimate with a drawn face."""

from __future__ import annotations

import pytest
import torch

from studio.imaging.joining import as_sharp_as_it_is, join, prior_share, sized
from studio.imaging.pyramid import blur, collapse, pyramid
from studio.tone import luma
from tests import tiny

S = 64  # the side of `tiny.texture`


@pytest.fixture
def sharp():
    return tiny.texture(0)


@pytest.fixture
def blurred(sharp):
    return blur(blur(blur(sharp)))


@pytest.fixture
def prior():
    return tiny.texture(1)


def alike(x, y):
    """Correlation of two bands."""
    return torch.nn.functional.cosine_similarity(x.flatten(), y.flatten(), dim=0).item()


def certain(value, count=2):
    return torch.full((count, 4, 16, 16), float(value))


def test_what_is_certain_stays(sharp, prior):
    joined = join(sharp, certain(1), prior, 0.5)
    torch.testing.assert_close(joined.picture, sharp, atol=1e-6, rtol=0)
    assert joined.invented.max() == 0
    assert joined.kept.min() == 1


def test_what_is_not_known_is_the_priors_in_the_light_of_the_photo(blurred, prior):
    joined = join(blurred, certain(0), prior, 0.5)
    expected = collapse([*pyramid(prior)[:-1], pyramid(blurred)[-1]])
    finest = [pyramid(x)[0] for x in (joined.picture, expected)]
    torch.testing.assert_close(*finest, atol=2e-3, rtol=0)  # the coarsest of five octaves is half the photo's
    assert joined.invented.min() == 1
    assert joined.kept.max() == 0


def test_fidelity_zero_shows_the_prior_whatever_is_certain(sharp, prior):
    expected = collapse([*pyramid(prior)[:-1], pyramid(sharp)[-1]])
    torch.testing.assert_close(join(sharp, certain(1), prior, 0.0).picture, expected, atol=1e-5, rtol=0)


def test_more_fidelity_draws_less(blurred, prior):
    steps = [k / 10 for k in range(11)]
    drawn = [join(blurred, certain(0.4), prior, fidelity).invented.mean().item() for fidelity in steps]
    assert drawn == sorted(drawn, reverse=True)
    assert drawn[0] == 1
    assert drawn[0] > drawn[5] > drawn[-1]


def test_octaves_are_judged_one_by_one(sharp, prior):
    """Two coarse octaves are certain, the two finest are not."""
    sure = certain(1)
    sure[:, :2] = 0
    found, own, drawn = (pyramid(x) for x in (join(sharp, sure, prior, 0.5).picture, sharp, prior))
    assert alike(found[0], drawn[0]) > 0.99 > 0.2 > alike(found[0], own[0])
    assert alike(found[3], own[3]) > 0.9 > 0.3 > alike(found[3], drawn[3])


def test_places_are_judged_one_by_one(sharp, prior):
    sure = certain(0)
    sure[..., :8] = 1
    joined = join(sharp, sure, prior, 0.5)
    assert joined.invented[..., : S // 4].max() < 0.05
    assert joined.invented[..., 3 * S // 4 :].min() > 0.95


def test_a_drawn_octave_that_is_flatter_is_not_taken(sharp):
    grey = sharp.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    found, own = (pyramid(x)[0] for x in (join(grey, certain(0.3), blur(blur(grey)), 0.5).picture, grey))
    assert alike(found, own) > 0.95
    assert found.std() > 0.9 * own.std()


def test_one_fidelity_for_each_face(blurred, prior):
    both = join(blurred, certain(0.5), prior, torch.tensor([0.2, 0.9])).picture
    for i, fidelity in enumerate((0.2, 0.9)):
        torch.testing.assert_close(both[i], join(blurred, certain(0.5), prior, fidelity).picture[i], atol=1e-6, rtol=0)


def test_shares_fall_with_certainty():
    certainty = torch.linspace(0, 1, 11).view(1, 1, 1, 11)
    for fidelity in (0.25, 0.5, 0.75, 1.0):
        share = prior_share(certainty, torch.tensor(fidelity).view(1, 1, 1, 1)).flatten()
        assert (share.diff() <= 0).all()
        assert share[0] > share[-1]


def test_maps_at_another_side():
    ramp = torch.linspace(0, 1, 16).view(1, 1, 1, 16).expand(1, 1, 16, 16)
    assert sized(ramp, 16) is ramp
    assert sized(ramp, 4).shape == (1, 1, 4, 4)
    torch.testing.assert_close(sized(ramp, 64).mean(), ramp.mean())


def test_a_mixture_is_as_rich_as_its_parts(sharp, prior):
    """Halves of two octaves that do not agree keep only half of their energy when they are added."""
    halfway = torch.full((2, 4, 8, 8), 0.5)
    joined = pyramid(luma(join(sharp, halfway, prior, 0.5).picture))[0].square().mean()
    parts = [pyramid(luma(x))[0].square().mean() for x in (sharp, prior)]
    assert joined > 0.85 * min(parts)


def test_the_finest_octave_stays_where_the_next_is_sure(sharp, prior):
    unsure = certain(1)
    unsure[:, 0] = 0
    joined = join(sharp, as_sharp_as_it_is(unsure), prior, 0.5).picture
    assert alike(pyramid(joined)[0], pyramid(sharp)[0]) > 0.99
    unsure[:, 1] = 0
    joined = join(sharp, as_sharp_as_it_is(unsure), prior, 0.5).picture
    assert alike(pyramid(joined)[0], pyramid(prior)[0]) > 0.9
