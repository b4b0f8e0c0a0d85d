"""Measuring aligned faces with the real classes, and resemblance as something to minimise."""

import numpy as np
import pytest
import torch

from studio.faces.attributes import ATTRIBUTES
from studio.identity.encoder import IdentityEncoder
from studio.latents.measure import MESH_EVERY, Resemblance, attributes, embed, place_aligned
from tests import tiny
from tests.faces.synthetic import head


@pytest.fixture
def finder():
    return tiny.finder()


@pytest.fixture
def encoder():
    return IdentityEncoder(tiny.identity_net().requires_grad_(False))


def test_shapes_and_none(finder):
    found = place_aligned(finder, torch.rand(2, 3, 64, 64))
    assert found.mesh.shape == (2, 468, 3)
    assert found.seen.shape == (2,)
    assert len(place_aligned(finder, torch.rand(0, 3, 64, 64)).mesh) == 0


def test_the_mesh_grows_with_the_picture(finder):
    small = tiny.image(64, 64)[None]
    large = torch.nn.functional.interpolate(small, scale_factor=4, mode="bilinear", align_corners=False)
    a, b = (place_aligned(finder, picture).mesh for picture in (small, large))
    assert np.abs(4 * a - b).mean() < 4


def test_attributes_are_in_the_order_of_their_names():
    values = attributes(torch.full((1, 3, 100, 100), 0.5), head(centre=(50, 50), yaw=12.0))
    assert values.shape == (1, len(ATTRIBUTES))
    named = dict(zip(ATTRIBUTES, values[0], strict=True))
    assert named["yaw"] == pytest.approx(12, abs=0.1)
    assert named["light"] == pytest.approx(0, abs=1e-6)
    assert named["glasses"] == pytest.approx(np.log(1e-3), abs=1e-3)


def test_resemblance_is_the_squared_distance_and_can_be_lowered(finder, encoder):
    other, picture = tiny.image(64, 64, seed=1)[None], tiny.image(64, 64, seed=2)[None].requires_grad_(True)
    mesh = place_aligned(finder, picture.detach()).mesh
    wanted = embed(encoder, other, mesh)[0]
    cost = Resemblance(finder, encoder, wanted, 3.0)
    first = cost(picture, 0)
    expected = (embed(encoder, picture, mesh) - wanted).detach().square().sum()
    assert float(first.detach()) == pytest.approx(3 * float(expected))
    (slope,) = torch.autograd.grad(first.sum(), picture)
    step = 0.02 * slope / slope.abs().max()
    assert float(cost((picture - step).detach(), 1)) < float(first.detach())


def test_the_mesh_is_looked_at_now_and_then(finder, encoder):
    cost = Resemblance(finder, encoder, torch.zeros(128), 1.0)
    looks = []
    place = finder.place
    finder.place = lambda *given: looks.append(1) or place(*given)
    for step in range(2 * MESH_EVERY):
        cost(tiny.image(64, 64)[None], step)
    assert len(looks) == 2
