"""The committed latent space on the real generator."""

import pytest
import torch

from studio import images
from studio.latents import search
from studio.latents.editor import Editor

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def editor():
    return Editor.from_pretrained()


def test_coordinates_whiten_other_samples_than_they_were_fitted_on(editor):
    z = torch.randn(4000, 512, generator=torch.Generator().manual_seed(123))
    with torch.no_grad():
        v = editor.space(editor.generator.mapping(z))
    assert v.mean(0).abs().max() < 0.1
    assert v.square().mean() < 1.02
    assert v.square().sum(1).mean().sqrt() == pytest.approx(float(editor.space.radius), rel=0.02)


def test_the_bank_holds_pictures_of_its_own_latents(editor):
    for row in (0, 1000):
        with torch.no_grad():
            picture = search.render(editor.generator, editor.space.bank_latents[row : row + 1], 256)
        thumb = editor.space.bank_thumbs[row].float() / 255
        assert float(search.downscale_error(picture, thumb)) < 2e-3


def test_ageing(editor):
    w = editor.sample(12)
    old, young = (editor.edit(w, {"age": years})[1] for years in (65.0, 36.0))
    assert old.after["age"] == pytest.approx(65, abs=3)
    assert young.after["age"] == pytest.approx(36, abs=3)
    assert young.after["age"] < old.before["age"] < old.after["age"]
    assert max(old.edit_distance, young.edit_distance) < 0.55
    assert abs(old.after["yaw"] - old.before["yaw"]) < 5


def test_turning_and_smiling(editor):
    w = editor.sample(8)
    moved, report = editor.edit(w, {"yaw": 20.0})
    assert report.after["yaw"] == pytest.approx(20, abs=5)
    assert report.edit_distance < 0.6
    back, report = editor.edit(moved, {"yaw": 0.0, "smile": 1.0})
    assert abs(report.after["yaw"]) < 5
    assert report.after["smile"] > report.before["smile"] + 0.5
    assert not torch.equal(back, moved)


@pytest.mark.slow
def test_searching_a_real_small_face(editor, repository):
    """A few steps from the nearest sample already come much nearer."""
    portrait, _ = editor.aligned(images.load(repository / "examples" / "portrait.jpg"))
    small = images.resize(portrait, 16, 16)
    start = editor.space(search.nearest(editor.space, small, 1))[:, None].repeat(1, 16, 1)
    errors = []
    found = search.search(
        lambda v: search.render(editor.generator, editor.space.latents(v), 256),
        start,
        small,
        search.Objective(),
        steps=10,
        rate=0.5,
        on_step=lambda step, v, error: errors.append(float(error)),
    )
    assert float(found.error) < errors[0] / 2
