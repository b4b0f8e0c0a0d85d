"""The restorer: shapes, size, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from studio.errors import InputError
from studio.networks.restorer import Restorer
from tests import tiny


@pytest.fixture
def net():
    return tiny.restorer(size=64, feature_channels=12, latent_dim=10)


def test_shapes_and_types(net):
    restored = net(torch.rand(2, 3, 64, 64))
    assert restored.features.shape == (2, 12, 8, 8)
    assert restored.latent.shape == (2, 10)
    assert restored.evidence.shape == (2, 3, 64, 64)
    assert {part.dtype for part in (restored.features, restored.latent, restored.evidence)} == {torch.float32}


def test_half_precision_goes_in_and_float_comes_out(net):
    restored = net.to(torch.bfloat16)(torch.rand(1, 3, 64, 64, dtype=torch.bfloat16))
    assert {part.dtype for part in (restored.features, restored.latent, restored.evidence)} == {torch.float32}


def test_batch_equals_loop(net):
    x = torch.rand(2, 3, 64, 64)
    together, alone = net(x), [net(one[None]) for one in x]
    for name in ("features", "latent", "evidence"):
        expected = torch.cat([getattr(one, name) for one in alone])
        torch.testing.assert_close(getattr(together, name), expected, atol=1e-5, rtol=0)


def test_heads_are_in_units_of_the_statistics(net):
    x = torch.rand(1, 3, 64, 64)
    features, latent, change = net.normalised(x)
    with torch.no_grad():
        net.features_mean.fill_(3.0)
        net.features_std.fill_(2.0)
        net.latent_mean.fill_(-1.0)
        net.latent_std.fill_(0.5)
    restored = net(x)
    torch.testing.assert_close(restored.features, 2 * features + 3)
    torch.testing.assert_close(restored.latent, latent / 2 - 1)
    torch.testing.assert_close(restored.evidence, x + change)


def test_gradients_reach_every_parameter(net):
    restored = net(torch.rand(1, 3, 64, 64))
    (restored.features.sum() + restored.latent.sum() + restored.evidence.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 32, 32), (1, 3, 64, 65)])
def test_bad_shapes(net, shape):
    with pytest.raises(InputError, match=r"faces must be \(N,3,64,64\)") as caught:
        net(torch.zeros(shape))
    assert "\n" not in str(caught.value)


def test_round_trip(net, tmp_path):
    with torch.no_grad():
        net.features_mean.normal_()  # buffers are saved too
    net.save_pretrained(tmp_path)
    again = Restorer.from_pretrained(tmp_path)
    assert dict(again.config)["size"] == 64
    assert net.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in net.state_dict().items())


def test_the_default_fits_the_repository_and_the_prior():
    with torch.device("meta"):
        net = Restorer()
    assert sum(parameter.numel() for parameter in net.parameters()) < 12_000_000
    assert (net.config.feature_channels, net.config.latent_dim, net.config.size // 8) == (512, 512, 32)
