import pytest
import torch

from studio.errors import InputError
from studio.latents.edit import GEOMETRY_SLOTS, SLOTS, move
from studio.networks.latent_space import LatentSpace


@pytest.fixture
def space():
    space = LatentSpace(dim=4, bank=2, embedding_dim=3)
    space.directions.copy_(torch.arange(36.0).view(9, 4))
    return space


@pytest.mark.parametrize(("name", "slots"), [("yaw", GEOMETRY_SLOTS), *SLOTS.items()])
def test_moves_its_own_slots_by_the_amount(space, name, slots):
    w = torch.randn(2, 16, 4)
    moved = move(space, w, name, 2.0) - w
    start, stop = slots
    assert torch.allclose(moved[:, start:stop], 2 * space.directions[space.number(name)].expand(2, stop - start, 4))
    moved[:, start:stop] = 0
    assert not moved.any()


def test_one_amount_per_face(space):
    w = torch.zeros(2, 16, 4)
    moved = move(space, w, "smile", torch.tensor([0.0, -1.0]))
    assert not moved[0].any()
    assert torch.equal(moved[1, 0], -space.directions[2])


def test_leaves_its_input_alone(space):
    w = torch.zeros(1, 16, 4)
    move(space, w, "yaw", 1.0)
    assert not w.any()


def test_unknown_direction(space):
    with pytest.raises(InputError, match="'beard'"):
        move(space, torch.zeros(1, 16, 4), "beard", 1.0)
