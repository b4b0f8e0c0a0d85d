"""Drawing the prior's faces: averaged, and with something added to a map."""

import torch
import torch.nn.functional as F

from studio.latents.prior import render
from tests import tiny


def test_render_is_the_generator_averaged():
    generator = tiny.generator(channels=(8,) * 4)
    w = torch.randn(2, 8, requires_grad=True)
    pictures = render(generator, w, 16)
    assert pictures.shape == (2, 3, 16, 16)
    expected = F.avg_pool2d(generator(w) / 2 + 0.5, 4)
    assert torch.allclose(pictures, expected, atol=1e-5)
    pictures.sum().backward()
    assert w.grad.abs().sum() > 0


def test_render_adds_to_the_map_of_generator_and_head():
    generator, head = tiny.varied_generator(blocks=4), tiny.image_head(start=3)
    w = torch.randn(2, 8)
    added = 10 * torch.randn(2, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    added.requires_grad_(True)
    for through in (None, head):
        nothing = render(generator, w, 32, through, torch.zeros_like(added))
        assert torch.allclose(nothing, render(generator, w, 32, through), atol=1e-5)
        moved = render(generator, w, 32, through, added)
        assert moved.shape == (2, 3, 32, 32)
        assert (moved - nothing).abs().max() > 0.01
        assert torch.autograd.grad(moved.sum(), added)[0].abs().sum() > 0
