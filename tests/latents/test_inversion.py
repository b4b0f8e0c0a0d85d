"""Finding a face in a toy prior."""

import pytest
import torch

from studio.latents import inversion
from studio.latents.inversion import face_weight, invert, traits, unlikeness
from studio.latents.prior import render
from tests import tiny
from tests.faces.synthetic import head


@pytest.fixture
def parts(monkeypatch):
    """Prior, space, finder, identity network, drawing function; the mesh stays where it is (a random one jumps)."""
    mesh = torch.from_numpy(head((32, 36), 30.0)).float()
    monkeypatch.setattr(inversion, "trace_aligned", lambda finder, pictures: (mesh.expand(len(pictures), -1, -1), None))
    prior = tiny.varied_generator().requires_grad_(False)
    net = tiny.identity_net().requires_grad_(False)
    return prior, tiny.latent_space(), tiny.finder(), net, lambda w: render(prior, w, 64)


def test_finds_a_face_of_the_prior(parts):
    prior, space, finder, net, draw = parts
    first, wanted = (prior.slots(space.bank_latents[k : k + 1]).clone() for k in (0, 1))
    with torch.no_grad():
        crop = draw(wanted)[0].clamp(0, 1)
    seen = []
    steps = {"steps": 40, "rate": 0.1}
    w = invert(draw, crop, first, space, finder, net, **steps, on_step=lambda step, w: seen.append(step))
    assert seen == list(range(41))
    before, after = ((draw(one)[0].clamp(0, 1) - crop).square().mean() for one in (first, w))
    assert after < 0.3 * before


def test_no_step_gives_the_start_back(parts):
    prior, space, finder, net, draw = parts
    start = prior.slots(space.bank_latents[:1]).clone()
    w = invert(draw, tiny.image(64, 64), start, space, finder, net, steps=0)
    assert torch.allclose(w, start, atol=1e-4)


def test_a_face_is_like_itself_and_nothing_else(parts):
    *_, finder, net, _ = parts
    pictures = torch.stack([tiny.image(64, 64, seed=seed) for seed in (0, 1)])
    wanted = traits(pictures[:1], finder, net)
    weight = face_weight(wanted.points.numpy(), 64)
    assert weight.mean() == pytest.approx(1, abs=1e-5)
    same, other = unlikeness(traits(pictures, finder, net), wanted, weight)
    assert float(same) == pytest.approx(0, abs=1e-6)
    assert float(other) > 0.1
