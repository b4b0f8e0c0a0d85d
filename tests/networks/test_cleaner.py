"""The cleaner: shapes, and that a tile is cleaned as the whole is."""

import pytest
import torch

from studio.errors import InputError
from studio.networks.cleaner import Cleaner, patterns_taken, shrink
from studio.tone import luma
from tests import tiny


def test_a_new_one_changes_next_to_nothing_and_is_undecided():
    cleaned = Cleaner((8, 8, 8), (1, 1, 1))(x := torch.rand(2, 3, 64, 96))
    torch.testing.assert_close(cleaned.estimate, x, atol=0.05, rtol=0)
    assert cleaned.certainty.shape == (2, 4, 16, 24) and (cleaned.certainty == 0.5).all()


def test_patterns_are_taken_by_their_shares():
    x = torch.rand(2, 3, 64, 96)
    nothing, all_of_it = torch.zeros(2, 48, 16, 24), torch.ones(2, 16, 64, 96)
    assert torch.equal(shrink(x, nothing), x)
    box = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")
    for _ in range(2):  # each pixel's mean of nine, in each of nine places: what is left without any pattern
        box = torch.nn.functional.avg_pool2d(box, 3, 1)
    torch.testing.assert_close(x - patterns_taken(x, all_of_it), box, atol=1e-5, rtol=0)
    of_colours = all_of_it.clone()
    of_colours[:, :8] = 0
    torch.testing.assert_close(luma(patterns_taken(x, of_colours)), torch.zeros(2, 1, 64, 96), atol=1e-5, rtol=0)


def test_noise_goes_and_what_is_flat_stays():
    noisy = 0.5 + 0.1 * torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    calm = shrink(noisy, torch.ones(1, 48, 32, 32))
    assert calm.std() < 0.15 * noisy.std() and abs(calm.mean() - 0.5) < 0.01


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
