"""Gaussian coordinates: they whiten, they invert, and the file keeps them."""

import pytest
import torch
import torch.nn.functional as F

from studio.errors import InputError
from studio.networks.latent_space import FLOOR, LatentSpace


@pytest.fixture
def samples():
    rng = torch.Generator().manual_seed(0)
    u = torch.randn(4000, 6, generator=rng) @ torch.randn(6, 6, generator=rng) + torch.arange(6.0) / 3
    return F.leaky_relu(u, 0.2)


@pytest.fixture
def space(samples):
    space = LatentSpace(dim=6, bank=3, embedding_dim=4)
    space.fit(samples)
    return space


def test_coordinates_are_standard_normal(space, samples):
    v = space(samples)
    assert torch.allclose(v.mean(0), torch.zeros(6), atol=1e-4)
    variance = torch.cov(v.T)
    floored = 1 - FLOOR / space.spread.square()  # the floor under the variance makes small ones a little less than 1
    assert torch.allclose(variance, torch.diag(floored), atol=1e-3)
    assert v.square().sum(1).mean().sqrt() == pytest.approx(float(space.radius), rel=1e-3)


def test_there_and_back(space, samples):
    assert torch.allclose(space.latents(space(samples)), samples, atol=1e-4)


def test_a_flat_axis_does_not_blow_up(samples):
    samples[:, 0] = samples[:, 1]  # singular
    space = LatentSpace(dim=6, bank=3, embedding_dim=4)
    space.fit(samples)
    moved = samples.clone()
    moved[:, 0] += 1e-3
    assert (space(moved) - space(samples)).abs().max() < 1e-2 / FLOOR**0.5


def test_round_trip_of_the_file(space, tmp_path):
    space.bank_thumbs += 7
    space.save_pretrained(tmp_path)
    again = LatentSpace.from_pretrained(tmp_path)
    assert again.bank_thumbs.dtype == torch.uint8
    for name, tensor in space.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_what_an_identity_vector_says(space):
    space.readings[0] = torch.tensor([10.0, 0, 0, 0])
    space.readings[1] = torch.tensor([0.0, 0.5, 0, 0])
    space.reading_offsets += torch.tensor([50.0, 0.5])
    vectors = torch.tensor([[1.0, 1, 7, 7], [-2, 0, 7, 7]])
    assert space.read(vectors).tolist() == [60, 30]
    assert space.read(vectors, "presentation").tolist() == [1, 0.5]
    assert space.at_age(vectors[0], 80.0).tolist() == [3, 1, 7, 7]  # the nearest one that old


def test_an_unfitted_reading_moves_nobody(space):
    assert torch.equal(space.at_age(torch.ones(4), 60.0), torch.ones(4))


def test_unknown_direction(space):
    assert space.number("smile") == 2
    with pytest.raises(InputError, match=r"yaw, pitch.*'beard'"):
        space.number("beard")
