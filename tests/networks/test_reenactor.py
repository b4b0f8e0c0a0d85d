"""The network that draws moved faces: shapes, what counts, looking once, and frames together or one by one."""

import pytest
import torch

from studio.errors import InputError
from studio.networks.reenactor import DepthAsks, Reenactor, resized
from tests import tiny

SIDE = 64


def given(count=2, side=SIDE, cells=32):
    rng = torch.Generator().manual_seed(0)
    still, depth = torch.rand(1, 3, side, side, generator=rng), torch.rand(1, 1, 16, 16, generator=rng)
    frames = torch.rand(count, 3, side, side, generator=rng), torch.rand(count, 4, cells, cells, generator=rng)
    return still, depth, *frames, torch.rand(count, 2, cells, cells, generator=rng)


@torch.no_grad()
def drawn(net, still, depth, warped, geometry, source):
    return net(warped, geometry, source, net.look(still, depth))


@pytest.mark.parametrize(("side", "cells"), [(64, 32), (32, 128), (96, 17)])
def test_frames_and_masks(side, cells):
    picture, mask = drawn(tiny.reenactor(), *given(3, side, cells))
    assert picture.shape == (3, 3, side, side)
    assert mask.shape == (3, 1, side, side)
    assert picture.dtype == mask.dtype == torch.float32
    assert 0 <= mask.min() < mask.max() <= 1


def test_a_new_one_keeps_most_of_the_warped_still():
    still, depth, warped, geometry, source = given()
    picture, mask = drawn(Reenactor(), still, depth, warped, geometry, source)
    assert mask.mean() < 0.4
    assert (torch.lerp(warped, picture, mask) - warped).abs().mean() < 0.05


def test_looking_once_is_looking_each_time():
    net, (still, depth, warped, geometry, source) = tiny.reenactor(), given(3)
    with torch.no_grad():
        looked = net.look(still, depth)
        once = net(warped, geometry, source, looked)
        each = net(warped, geometry, source, net.look(still.expand(3, -1, -1, -1), depth.expand(3, -1, -1, -1)))
    for a, b in zip(once, each, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_a_batch_is_a_loop():
    net, (still, depth, *frames) = tiny.reenactor(), given(3)
    together = drawn(net, still, depth, *frames)
    for i in range(3):
        alone = drawn(net, still, depth, *(part[i : i + 1] for part in frames))
        for a, b in zip(together, alone, strict=True):
            assert torch.allclose(a[i], b[0], atol=1e-5)


def test_every_input_and_every_parameter_counts():
    net, inputs = tiny.reenactor().train(), given()
    for part in inputs:
        part.requires_grad_(True)
    still, depth, warped, geometry, source = inputs
    picture, mask = net(warped, geometry, source, net.look(still, depth))
    (picture.square().sum() + mask.square().sum()).backward()
    assert all(part.grad.abs().sum() > 0 for part in inputs)
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        if name != "attention.keys.bias":  # shifts every score alike
            assert parameter.grad.abs().sum() > 0, name


def test_appearance_comes_from_where_the_flow_says():
    """What is read in one corner of the still reaches the frame that comes from there, and no other."""
    net, (still, depth, warped, geometry, _) = tiny.reenactor(), given(2)
    source = torch.full((2, 2, 32, 32), 0.05)
    source[1] = 0.95
    with torch.no_grad():
        appearance, keys, values = net.look(still, depth)
        other = appearance.clone()
        other[..., :4, :4] += 1
        before, after = (net(warped, geometry, source, (read, keys, values))[0] for read in (appearance, other))
    difference = (before - after).abs().amax((1, 2, 3))
    assert difference[0] > 1e-3
    assert difference[1] == 0


def test_attention_asks_by_depth_alone():
    """Frames of one geometry get one answer, whatever lies around; another depth gets another."""
    with tiny.seeded():
        attention = DepthAsks(8)
    still = torch.rand(1, 8, 4, 4)
    wanted = torch.rand(1, 4, 6, 6)
    with torch.no_grad():
        keys, values = attention.remember(still)
        found = attention(wanted, keys, values)
        order = torch.randperm(16)
        shuffled = attention(wanted, keys[:, :, order], values[:, :, order])
    assert found.shape == (1, 8, 6, 6)
    assert torch.allclose(found, shuffled, atol=1e-5)  # where in the still it lies says the depth, not the place
    with torch.no_grad():
        assert not torch.allclose(found, attention(1 - wanted, keys, values), atol=1e-4)


def test_shapes_are_checked():
    net, (still, depth, warped, geometry, source) = tiny.reenactor(), given()
    looked = net.look(still, depth)
    for wrong in (
        (warped[:, :2], geometry),
        (warped[0], geometry),
        (warped[..., :48, :48], geometry),
        (warped[..., :32], geometry),
        (warped, geometry[:, :3]),
    ):
        with pytest.raises(InputError, match="multiple of 32"):
            net(*wrong, source, looked)


def test_maps_are_resized_without_aliasing():
    board = torch.arange(64) % 2
    board = (board + board[:, None]) % 2.0
    assert (resized(board[None, None], 16) - 0.5).abs().max() < 0.05


def test_saved_and_loaded_is_the_same(tmp_path):
    net, inputs = tiny.reenactor(), given(1)
    net.save_pretrained(tmp_path)
    for a, b in zip(drawn(net, *inputs), drawn(Reenactor.from_pretrained(tmp_path), *inputs), strict=True):
        assert torch.equal(a, b)


def test_the_real_one_is_small():
    assert sum(p.numel() for p in Reenactor().parameters()) < 3_000_000
