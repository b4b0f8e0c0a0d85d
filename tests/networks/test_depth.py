"""The depth network: what it takes and gives, and that a new one says what it was told."""

import pytest
import torch
import torch.nn.functional as F

from studio.errors import InputError
from studio.networks.depth import SIZE, DepthNet
from tests import tiny


def given(count=2, side=256, rough=128):
    rng = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, side, side, generator=rng), torch.rand(count, 1, rough, rough, generator=rng)


@pytest.mark.parametrize(("side", "rough"), [(256, 128), (64, 32), (128, 128), (500, 77)])
def test_a_map_of_one_size_whatever_comes(side, rough):
    with torch.no_grad():
        depth, head = tiny.depth_net()(*given(2, side, rough))
    assert depth.shape == head.shape == (2, 1, SIZE // 2, SIZE // 2)
    assert depth.dtype == head.dtype == torch.float32
    assert 0 <= head.min() < head.max() <= 1


def test_a_new_one_says_the_rough_depth():
    face, rough = given(1, 256, SIZE)
    with torch.no_grad():
        depth, head = DepthNet((8, 8))(face, rough)
    assert torch.allclose(depth, F.avg_pool2d(rough, 2), atol=1e-6)
    assert (head == 0.5).all()  # it knows nothing yet


def test_both_inputs_and_every_parameter_count():
    net, inputs = tiny.depth_net(), given(1)
    for part in inputs:
        part.requires_grad_(True)
    torch.cat(net(*inputs)).square().sum().backward()
    assert all(part.grad.abs().sum() > 0 for part in inputs)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_a_batch_is_a_loop():
    net, (face, rough) = tiny.depth_net(), given(3)
    with torch.no_grad():
        together = torch.cat(net(face, rough), 1)
        for i in range(3):
            assert torch.allclose(together[i], torch.cat(net(face[i : i + 1], rough[i : i + 1]), 1)[0], atol=1e-5)


def test_shapes_are_checked():
    face, rough = given()
    for wrong in ((face[0], rough), (face[:, :2], rough), (face, rough[0]), (face, rough.expand(-1, 2, -1, -1))):
        with pytest.raises(InputError, match="depth network takes"):
            tiny.depth_net()(*wrong)


def test_saved_and_loaded_is_the_same(tmp_path):
    net, inputs = tiny.depth_net(), given(1)
    net.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(torch.cat(net(*inputs)), torch.cat(DepthNet.from_pretrained(tmp_path)(*inputs)))


def test_the_real_one_is_small():
    assert sum(p.numel() for p in DepthNet().parameters()) < 1_500_000
