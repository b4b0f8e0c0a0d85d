"""Image heads: shapes, what they read, what they refuse, and how well the real ones do."""

from __future__ import annotations

import pytest
import torch

from studio import weights
from studio.errors import InputError
from studio.networks.generator import Generator
from studio.networks.image_head import ImageHead, target
from studio.training.data import draw_latents, expand_latents
from studio.training.heads import HELD_OUT_SEED, psnr
from tests import tiny


def test_twice_the_size_of_the_map():
    head, generator = tiny.image_head(), tiny.generator(channels=(8,) * 6)
    w = torch.randn(2, 8)
    assert head.render(generator, w).shape == (2, 3, 128, 128)
    torch.testing.assert_close(
        head.render(generator, w), head(generator.features(w, 4), generator.slots(w)), atol=1e-6, rtol=0
    )


def test_reads_the_slots_of_the_next_block_and_of_the_image():
    head, x = tiny.image_head(), torch.randn(1, 8, 64, 64, generator=torch.Generator().manual_seed(1))
    w = torch.zeros(1, 12, 8, requires_grad=True)
    head(x, w).square().mean().backward()
    assert [i for i in range(12) if w.grad[0, i].abs().sum() > 0] == [9, 10, 11]


def test_starts_as_a_read_out_of_every_channel():
    head = tiny.image_head()
    x = 100 * torch.randn(2, 8, 64, 64, generator=torch.Generator().manual_seed(1))
    head.initialise(x)
    with torch.no_grad():
        given = head(x, torch.randn(2, 12, 8))
    assert given.isfinite().all()
    assert given.std() < 1  # whatever the unit of the map is


@pytest.mark.parametrize("shape", [(1, 8, 32, 32), (1, 4, 64, 64), (8, 64, 64)])
def test_bad_maps(shape):
    with pytest.raises(InputError, match=r"features must be \(N,8,64,64\)"):
        tiny.image_head()(torch.zeros(shape), torch.zeros(1, 12, 8))


def test_round_trip(tmp_path):
    head = tiny.image_head()
    head.save_pretrained(tmp_path)
    again = ImageHead.from_pretrained(tmp_path)
    assert head.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in head.state_dict().items())


@pytest.mark.weights
@pytest.mark.parametrize(("name", "size", "least"), [("head_256", 256, 28.5), ("head_512", 512, 30.0)])
def test_the_real_ones_agree_with_the_generator(name, size, least):
    generator = Generator.from_pretrained(weights.path("generator"))
    head = ImageHead.from_pretrained(weights.path(name))
    with torch.inference_mode():
        w = expand_latents(draw_latents(generator, 4, HELD_OUT_SEED))
        given = torch.cat([head.render(generator, one) for one in w.split(1)])
        wanted = torch.cat([target(generator(one), size) for one in w.split(1)])
    assert given.shape == (4, 3, size, size)
    assert psnr(given, wanted) > least
