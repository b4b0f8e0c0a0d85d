"""The face parser: what it gives, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from studio.errors import InputError
from studio.networks.head_parts import PARTS, HeadParts, directions
from tests import tiny


@torch.no_grad()
def test_gives_probabilities_that_do_not_depend_on_strength():
    net = tiny.head_parts()
    features = torch.randn(2, 8, 5, 4, generator=torch.Generator().manual_seed(0))
    found = net(features)
    assert found.shape == (2, len(PARTS), 5, 4)
    torch.testing.assert_close(found.sum(1), torch.ones(2, 5, 4))
    assert found.std() > 0.01
    torch.testing.assert_close(net(3 * features), found)  # around a mean of 0


def test_cells_are_standardised_and_of_length_1():
    features = 5 + 2 * torch.randn(1, 8, 6, 6, generator=torch.Generator().manual_seed(1))
    cells = directions(features, torch.full((1, 8, 1, 1), 5.0), torch.full((1, 8, 1, 1), 2.0))
    torch.testing.assert_close(cells.norm(dim=1), torch.ones(1, 6, 6))
    torch.testing.assert_close(cells[0, :, 0, 0], torch.nn.functional.normalize((features[0, :, 0, 0] - 5) / 2, dim=0))


@pytest.mark.parametrize("shape", [(8, 4, 4), (1, 7, 4, 4)])
def test_bad_shapes(shape):
    with pytest.raises(InputError, match=r"features must be \(N,8,H,W\)"):
        tiny.head_parts()(torch.zeros(shape))


def test_round_trip(tmp_path):
    net = tiny.head_parts()
    net.mean.normal_()
    net.save_pretrained(tmp_path)
    again = HeadParts.from_pretrained(tmp_path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in net.state_dict().items())
