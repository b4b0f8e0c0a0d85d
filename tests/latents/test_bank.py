"""The bank of samples: which are nearest to a small picture, and what a regression says."""

import pytest
import torch

from studio.latents import bank
from studio.latents.bank import nearest
from studio.networks.latent_space import LatentSpace


@pytest.fixture
def space():
    """Every sample of the bank has its own grey and person."""
    space = LatentSpace(dim=4, bank=20, embedding_dim=3)
    space.bank_latents.copy_(torch.arange(20.0)[:, None].expand(-1, 4))
    space.bank_thumbs.copy_((torch.arange(20) * 10).byte()[:, None, None, None].expand_as(space.bank_thumbs))
    space.bank_embeddings[:, 0] = torch.arange(20.0) % 2
    return space


def numbers(latents):
    return [int(value) for value in latents[:, 0]]


def test_nearest(space):
    grey = torch.full((3, 32, 32), 100 / 255)
    assert numbers(nearest(space, grey, 1)) == [10]
    assert set(numbers(nearest(space, grey, 3))) == {9, 10, 11}
    assert numbers(nearest(space, torch.full((3, 8, 8), 30 / 255), 1)) == [3]


def test_nearest_person(space):
    grey = torch.full((3, 32, 32), 100 / 255)
    odd = nearest(space, grey, 2, embedding=torch.tensor([1.0, 0.0, 0.0]))
    assert set(numbers(odd)) == {9, 11}


def test_nearest_by_brightness_alone(space):
    """Sample 5 is a bright red; by its colours it is far from every grey."""
    space.bank_thumbs[5] = torch.tensor([255, 45, 0], dtype=torch.uint8).view(3, 1, 1)
    grey = torch.full((3, 32, 32), 100 / 255)
    space.bank_thumbs[10] += 20
    assert numbers(nearest(space, grey, 1, grey=True)) == [5]
    assert numbers(nearest(space, grey, 1)) != [5]


def test_nearest_drawn(space):
    grey = torch.full((3, 32, 32), 100 / 255)
    draws = [numbers(nearest(space, grey, 2, torch.Generator().manual_seed(seed))) for seed in (0, 0, 1, 2, 3)]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) > 1
    assert all(abs(number - 10) <= 4 for draw in draws for number in draw)


def test_estimate_finds_the_coordinates_of_a_bank_picture():
    """A bank whose pictures are linear in the latents is regressed well."""
    space = LatentSpace(dim=4, bank=200, embedding_dim=3)
    rng = torch.Generator().manual_seed(0)
    w = torch.rand(200, 4, generator=rng)
    space.bank_latents.copy_(w)
    thumbs = (w @ torch.rand(4, 3 * 16 * 16, generator=rng) / 4).view(200, 3, 16, 16)
    space.bank_thumbs.copy_((255 * thumbs).round().byte())
    space.bank_embeddings.copy_(torch.randn(200, 3, generator=rng))
    wanted = space(w[7:8])
    middle = space(w).mean(0)
    assert (bank.estimate(space, thumbs[7]) - wanted).norm() < 0.3 * (middle - wanted).norm()
    person = bank.estimate(space, thumbs[7], space.bank_embeddings[7])
    assert (person - wanted).norm() < 0.3 * (middle - wanted).norm()
    grey = bank.estimate(space, thumbs[7].mean(0, keepdim=True).expand(3, -1, -1), grey=True)
    assert (grey - wanted).norm() < 0.6 * (middle - wanted).norm()
