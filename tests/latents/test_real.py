"""The committed latent space on the real generator."""

import pytest
import torch

from pipelines.edit import EditPipeline
from studio import images
from studio.faces.select import LEAST
from studio.identity.portrait import portrait
from studio.latents import bank, consistency, search
from studio.latents.prior import SEARCHED, render

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def pipeline():
    return EditPipeline.from_pretrained("edit")


def test_coordinates_whiten_other_samples_than_they_were_fitted_on(pipeline):
    z = torch.randn(4000, 512, generator=torch.Generator().manual_seed(123))
    with torch.no_grad():
        v = pipeline.space(pipeline.generator.mapping(z))
    assert v.mean(0).abs().max() < 0.1
    assert v.square().mean() < 1.02
    assert v.square().sum(1).mean().sqrt() == pytest.approx(float(pipeline.space.radius), rel=0.02)


def test_the_bank_holds_pictures_of_its_own_latents(pipeline):
    for row in (0, 1000):
        with torch.no_grad():
            picture = render(pipeline.generator, pipeline.space.bank_latents[row : row + 1], 256)
        thumb = pipeline.space.bank_thumbs[row].float() / 255
        assert float(consistency.downscale_error(picture, thumb)) < 2e-3


@pytest.mark.slow
def test_searching_a_real_small_face(pipeline, repository):
    """A few steps from the nearest sample already come much nearer."""
    photo = images.load(repository / "examples" / "portrait.jpg")
    found = portrait(photo, None, SEARCHED, pipeline.finder(), pipeline.encoder(), LEAST["edit"])
    small = images.resize(found.crop, 16, 16)
    start = pipeline.space(bank.nearest(pipeline.space, small, 1))[:, None].repeat(1, 16, 1)
    errors = []
    found = search.search(
        lambda v: render(pipeline.generator, pipeline.space.latents(v), 256),
        start,
        small,
        search.Objective(),
        steps=10,
        rate=0.5,
        on_step=lambda step, v, error: errors.append(float(error)),
    )
    assert float(found.error) < errors[0] / 2
