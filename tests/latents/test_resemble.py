"""Steps towards a person, on a toy prior whose pictures say who somebody is."""

import pytest
import torch

from studio.latents.resemble import gaussian_space, nearest_structure, resemble, structure_map
from studio.networks.restorer import START_BLOCK, Restored, draw_prior
from tests import tiny


@pytest.fixture(scope="module")
def toys():
    """A generator, its head, its space, and what a restorer read of a face that the generator can draw."""
    generator, head = (
        net.requires_grad_(False) for net in (tiny.varied_generator(blocks=4), tiny.image_head(start=START_BLOCK))
    )
    space = gaussian_space(generator)
    with torch.no_grad():
        w = generator.latents(torch.randn(2, generator.config.style_dim, generator=torch.Generator().manual_seed(3)))
        parts = Restored(generator.features(w[:1], START_BLOCK), w[:1].clone(), torch.zeros(1, 3, 64, 64))
    return generator, head, space, w, parts


def colours(picture):
    """Stands for the identity encoder."""
    return torch.cat([picture.mean((2, 3)), picture.std((2, 3))], 1)


def go(toys, person, steps=12, **given):
    generator, head, space, _, parts = toys

    def draw(moved):
        return draw_prior(generator, head, moved) / 2 + 0.5

    spread = torch.ones(1, generator.config.style_dim)
    return resemble(parts, person, draw, colours, generator, space, spread, steps, **given)


def test_the_space_is_the_generators_own(toys):
    generator, _, space, w, _ = toys
    torch.testing.assert_close(space.latents(space(w)), w, atol=1e-3, rtol=1e-3)
    assert torch.equal(space.mean, gaussian_space(generator).mean)
    assert ((space.gain() >= 0) & (space.gain() <= 1)).all()


def test_the_nearest_structure_draws_nearly_that_map(toys):
    generator, _, space, _, parts = toys
    with torch.enable_grad():
        found = nearest_structure(generator, parts.features, space)
    own, middle = (structure_map(generator, space.latents(v)) for v in (found, torch.zeros_like(found)))
    assert (own - parts.features).square().mean() < 0.5 * (middle - parts.features).square().mean()


def test_it_comes_nearer_and_the_caller_may_be_in_inference_mode(toys, monkeypatch):
    for name in ("NEAR", "PLACE"):  # a toy's identity is its colour
        monkeypatch.setattr(f"studio.latents.resemble.{name}", 0.0)
    generator, head, _, w, parts = toys
    with torch.no_grad():
        other = Restored(generator.features(w[1:], START_BLOCK), w[1:], parts.estimate)
        person = colours(draw_prior(generator, head, other) / 2 + 0.5)
    seen = []
    with torch.inference_mode():
        found = go(toys, person[0], on_step=lambda step, distance, _: seen.append((step, float(distance))))
    assert [step for step, _ in seen] == list(range(13))
    assert found.before == seen[0][1]
    assert found.after == min(distance for _, distance in seen) < 0.9 * found.before
    assert not torch.equal(found.parts.features, parts.features)
    assert not found.parts.features.requires_grad
    assert torch.equal(found.parts.estimate, parts.estimate)


def test_without_steps_or_near_enough_it_stays(toys):
    generator, head, _, _, parts = toys
    with torch.no_grad():
        own = colours(draw_prior(generator, head, parts) / 2 + 0.5)[0]
    for found in (go(toys, own + 1, steps=0), go(toys, own)):
        torch.testing.assert_close(found.parts.features, parts.features, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.parts.latent, parts.latent, atol=1e-5, rtol=0)


def test_the_coarse_picture_holds_it_back(toys, monkeypatch):
    """The more a change of place and colour costs, the less of it there is."""
    generator, head, _, _, parts = toys
    with torch.no_grad():
        person = colours(draw_prior(generator, head, parts) / 2 + 0.5)[0] + 1.0
    after = []
    for weight in (0.0, 1e4):
        monkeypatch.setattr("studio.latents.resemble.PLACE", weight)
        after.append(go(toys, person).after)
    assert after[0] < after[1]
