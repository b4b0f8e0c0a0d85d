"""The velocity field: what it is before training, guidance, and that it can learn a conditional distribution."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler

from studio.errors import InputError
from studio.networks.latent_flow import LatentFlow, guided
from tests import tiny


def test_the_real_one_is_small():
    assert sum(parameter.numel() for parameter in LatentFlow().parameters()) < 6_000_000


@pytest.mark.parametrize("solver", [FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler])
def test_untrained_it_turns_noise_into_the_whole_prior(solver):
    """The flow of one standard normal variable into another keeps every length at the ends: spread 1 comes out."""
    flow = LatentFlow(dim=64, width=8, hidden=8, condition=8, depth=1).eval()
    scheduler = solver()
    scheduler.set_timesteps(50)
    x = torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            x = scheduler.step(flow(x, timestep), timestep, x, return_dict=False)[0]
    assert float(x.std()) == pytest.approx(1, abs=0.05)


def test_standardise_and_back():
    flow = tiny.latent_flow()
    v = torch.randn(5, 8)
    assert torch.allclose(flow.coordinates(flow.standardise(v)), v, rtol=1e-4, atol=1e-4)
    fresh = LatentFlow(dim=8, identity_dim=4, width=8, hidden=8, condition=8, depth=1)
    fresh.fit(3 + 2 * torch.randn(4000, 8), torch.randn(4000, 4))
    assert torch.allclose(fresh.mean, torch.full((8,), 3.0), atol=0.2)
    assert torch.allclose(fresh.spread, torch.full((8,), 2.0), atol=0.2)


def test_untrained_it_knows_what_is_linear():
    """Latents and identities that are jointly normal need no training: mean and spread given who it is come out."""
    rng = torch.Generator().manual_seed(0)
    identity = torch.randn(20_000, 4, generator=rng)
    latents = torch.randn(20_000, 8, generator=rng)
    latents[:, 0] = 0.8 * identity[:, 0] + 0.6 * latents[:, 0]
    flow = LatentFlow(dim=8, identity_dim=4, width=8, hidden=8, condition=8, depth=1).eval()
    flow.fit(latents, identity)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(50)
    x = torch.randn(4000, 8, generator=rng)
    who = torch.tensor([2.0, 0, 0, 0]).expand(4000, -1)
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            x = scheduler.step(flow(x, timestep, who), timestep, x, return_dict=False)[0]
    drawn = flow.coordinates(x)
    assert float(drawn[:, 0].mean()) == pytest.approx(1.6, abs=0.08)
    assert float(drawn[:, 0].std()) == pytest.approx(0.6, abs=0.08)
    assert float(drawn[:, 1].mean()) == pytest.approx(0, abs=0.08)
    assert float(drawn[:, 1].std()) == pytest.approx(1, abs=0.08)


def test_known_rows_and_unknown_rows():
    flow = tiny.latent_flow()
    x, who, t = torch.randn(2, 8), 0.1 * torch.randn(2, 128), torch.tensor(300.0)
    with torch.no_grad():
        mixed = flow(x, t, who, torch.tensor([True, False]))
        assert torch.allclose(mixed[0], flow(x, t, who)[0], rtol=1e-4, atol=1e-4)
        assert torch.allclose(mixed[1], flow(x, t)[1], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(flow(x, t, who), flow(x, t))
        assert not torch.allclose(flow(x, t, who), flow(x, torch.tensor(700.0), who))


def test_guidance_goes_on_in_the_direction_of_the_identity():
    flow = tiny.latent_flow()
    x, who, t = torch.randn(2, 8), 0.1 * torch.randn(2, 128), torch.tensor(300.0)
    with torch.no_grad():
        anybody, given = flow(x, t), flow(x, t, who)
        assert torch.allclose(guided(flow, x, t, who, 0.0), anybody, rtol=1e-4, atol=1e-4)
        assert torch.allclose(guided(flow, x, t, who, 1.0), given, rtol=1e-4, atol=1e-4)
        assert torch.allclose(guided(flow, x, t, who, 3.0), anybody + 3 * (given - anybody), rtol=1e-4, atol=1e-4)
        assert torch.allclose(guided(flow, x, t, None, 3.0), anybody, rtol=1e-4, atol=1e-4)


def test_shapes():
    flow = tiny.latent_flow()
    with pytest.raises(InputError, match=r"samples must be \(N,8\)"):
        flow(torch.zeros(2, 9), torch.tensor(1.0))
    with pytest.raises(InputError, match=r"identities must be \(2, 128\)"):
        flow(torch.zeros(2, 8), torch.tensor(1.0), torch.zeros(1, 128))


def test_saves_and_loads(tmp_path):
    flow = tiny.latent_flow()
    flow.save_pretrained(tmp_path)
    loaded = LatentFlow.from_pretrained(tmp_path)
    x, who, t = torch.randn(2, 8), 0.1 * torch.randn(2, 128), torch.tensor(10.0)
    with torch.no_grad():
        assert torch.equal(loaded(x, t, who), flow(x, t, who))
