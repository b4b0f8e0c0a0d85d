"""The reader: a regression before training, and the steps that follow it."""

import pytest
import torch

from studio.errors import InputError
from studio.networks.latent_reader import LatentReader, nearer
from tests import tiny


def test_the_real_one_is_small():
    assert sum(tensor.numel() for tensor in LatentReader().state_dict().values()) < 1_600_000


def test_untrained_it_is_the_regression():
    rng = torch.Generator().manual_seed(0)
    w = 2 + 3 * torch.randn(2000, 8, generator=rng)
    identities = w @ torch.randn(8, 4, generator=rng) + 1
    reader = LatentReader(dim=8, identity_dim=4, width=8, depth=1).eval()
    reader.fit(w, identities)
    with torch.no_grad():
        error = (reader(w) - identities).norm(dim=1).mean()
    assert error < 0.02 * identities.std(0).norm()


def test_steps_come_nearer_and_stop():
    wanted = torch.tensor([[1.0, -1.0]]).repeat(3, 1)
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        near = nearer(lambda given: 2 * given, x, wanted, rate=0.05, steps=20)
    assert (2 * near - wanted).norm() < 1e-3 * (2 * x - wanted).norm()
    assert not near.requires_grad
    assert torch.equal(nearer(lambda given: 2 * given, x, wanted, rate=0.05, steps=0), x)


def test_shapes():
    with pytest.raises(InputError, match=r"latents must be \(N,8\)"):
        tiny.latent_reader()(torch.zeros(2, 16, 8))
