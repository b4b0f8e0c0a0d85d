"""Naturalness: known distributions are read right, and damage of every kind raises it."""

import math

import pytest
import torch

from studio import images
from studio.degradations import ops
from studio.errors import InputError
from studio.metrics import niqe
from studio.metrics.niqe import asymmetric_gaussian, fit_clean, gaussian, patch_features
from tests.faces.synthetic import smooth_image


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def textured(seed, size=192):
    """A smooth picture with grain in all octaves, as photographs have."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        picture = smooth_image(size, size)
    for side in (12, 24, 48, 96, 192):
        grain = torch.randn(1, 1, side, side, generator=rng(seed + side))
        picture = picture + 0.25 / math.sqrt(side) * images.resize(grain, size, size)[0]
    return picture.clamp(0, 1)


@pytest.fixture(scope="module")
def fit():
    return fit_clean(textured(seed) for seed in range(6))


@pytest.mark.parametrize(("shape", "draw"), [(2.0, torch.randn), (1.0, None)], ids=["gaussian", "laplace"])
def test_shapes_of_known_distributions(shape, draw):
    if draw is None:
        uniform = torch.rand(4, 200, 200, generator=rng()).double() - 0.5
        cells = -uniform.sign() * torch.log1p(-2 * uniform.abs())
    else:
        cells = draw(4, 200, 200, generator=rng()).double()
    found, left, right = asymmetric_gaussian(cells)
    assert found.tolist() == pytest.approx([shape] * 4, rel=0.03)
    assert left.tolist() == pytest.approx(right.tolist(), rel=0.03)


def test_both_sides_of_a_lopsided_distribution():
    cells = torch.randn(1, 200, 200, generator=rng()).double()
    _, left, right = asymmetric_gaussian(torch.where(cells < 0, cells, 3 * cells))
    assert (right / left).item() == pytest.approx(3, rel=0.03)


@pytest.mark.parametrize(
    "damage",
    [
        lambda x: ops.blur(x, 2.0, 2.0, 0.0, 8),
        lambda x: ops.noise(x, 0.08, rng(1)),
        lambda x: ops.jpeg(x, 8),
        lambda x: ops.resample(ops.resample(x, 32, "box"), 192, "nearest"),
    ],
    ids=["blur", "noise", "blocks", "square pixels"],
)
def test_damage_is_unnatural(fit, damage):
    clean = torch.stack([textured(seed) for seed in (20, 21, 22)])
    assert niqe(torch.stack([damage(x) for x in clean]), fit).mean() > 1.3 * niqe(clean, fit).mean()


def test_the_committed_fit_is_used(fit):
    picture = textured(30)[None]
    assert niqe(picture).item() != niqe(picture, fit).item()


def test_a_batch_is_a_loop(fit):
    pictures = torch.stack([textured(40), textured(41)])
    assert torch.equal(niqe(pictures, fit), torch.cat([niqe(picture[None], fit) for picture in pictures]))


def test_patches_and_their_numbers():
    features, deviation = patch_features(textured(50, 300)[:, :, :200])
    assert features.shape == (6, 36)
    assert deviation.shape == (6,)
    mean, covariance = gaussian([features])
    assert mean.shape == (36,)
    torch.testing.assert_close(covariance, covariance.T)


@pytest.mark.parametrize("picture", [torch.zeros(1, 3, 95, 200), torch.zeros(3, 96, 96)])
def test_small_or_unbatched_pictures_are_refused(picture):
    with pytest.raises(InputError, match="96 px"):
        niqe(picture)


def test_flat_pictures_are_refused(fit):
    with pytest.raises(InputError, match="flat"):
        niqe(torch.full((1, 3, 96, 96), 0.5), fit)
