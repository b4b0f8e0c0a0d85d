"""The flow of the generator's map: its components, where it begins and where it leads."""

import pytest
import torch

from studio.errors import InputError
from studio.networks.map_flow import MapFlow
from tests import tiny


def test_components_and_back():
    net = tiny.map_flow()
    features = torch.randn(2, 8, 32, 32)
    components = net.whiten(features)
    assert components.shape == (2, 4, 32, 32)
    torch.testing.assert_close(net.features(components, features), features, atol=1e-5, rtol=0)
    moved = net.features(components + 1, features)
    torch.testing.assert_close(net.whiten(moved), components + 1, atol=1e-5, rtol=0)
    # What lies outside of the components stays.
    rest = [
        x - torch.einsum("nkhw,ck->nchw", net.whiten(x) * net.spread[:, None, None], net.basis)
        for x in (moved, features)
    ]
    torch.testing.assert_close(*rest, atol=1e-5, rtol=0)


def test_a_new_one_stands_still():
    net = MapFlow(8, 4, 64, 8, stem_width=8, noise=0.0)
    features = torch.randn(1, 8, 8, 8)
    found = net.sample(torch.rand(1, 3, 64, 64), features, torch.zeros(1, 4, 8, 8))
    torch.testing.assert_close(found, features, atol=1e-5, rtol=0)


def test_noise_makes_another_face_and_the_same_noise_the_same():
    net = tiny.map_flow(size=64)
    seen, features = torch.rand(1, 3, 64, 64), torch.randn(1, 8, 8, 8)
    noise = torch.randn(2, 1, 4, 8, 8)
    with torch.no_grad():
        first, again, other = (net.sample(seen, features, n) for n in (noise[0], noise[0], noise[1]))
    assert torch.equal(first, again)
    assert float((first - other).abs().mean()) > 0.05


def test_maps_must_be_whitened():
    net = tiny.map_flow(size=64)
    with pytest.raises(InputError, match="whiten them first"):
        net(torch.rand(1, 8, 8, 8), torch.zeros(1), torch.zeros(1, 8, 8, 8))
