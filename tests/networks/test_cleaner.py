"""The cleaner: shapes, and that a tile is cleaned as the whole is."""

import pytest
import torch

from studio.errors import InputError
from studio.networks.cleaner import Cleaner
from tests import tiny


def test_a_new_one_changes_nothing_and_is_undecided():
    cleaned = Cleaner((8, 8, 8), (1, 1, 1))(x := torch.rand(2, 3, 64, 96))
    assert torch.equal(cleaned.estimate, x)
    assert cleaned.certainty.shape == (2, 4, 16, 24) and (cleaned.certainty == 0.5).all()


def test_a_tile_is_cleaned_as_the_whole():
    net, x = tiny.cleaner(), torch.rand(1, 3, 256, 512)
    with torch.no_grad():
        whole, tile = net(x), net(x[..., :384])
    torch.testing.assert_close(tile.estimate[..., :256], whole.estimate[..., :256])
    torch.testing.assert_close(tile.certainty[..., :64], whole.certainty[..., :64])


@pytest.mark.parametrize("shape", [(1, 3, 60, 64), (1, 1, 64, 64), (3, 64, 64)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InputError, match="sides of 16 px times n"):
        tiny.cleaner()(torch.rand(shape))
