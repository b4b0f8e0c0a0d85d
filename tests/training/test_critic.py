"""The critic of stage 2."""

from __future__ import annotations

import pytest
import torch

from studio.training import critic
from studio.training.critic import Adversary, PatchCritic, components, whole
from tests import tiny


@pytest.fixture
def faces():
    """Two pictures and the same with a fine grid over them."""
    clean = torch.stack([tiny.image(64, 64, seed=seed) for seed in (1, 2)])
    grid = 0.1 * (torch.arange(64) % 4 < 2).float()
    return clean, clean + grid - grid.mean()


def test_one_score_per_patch():
    assert PatchCritic(3, (4, 4, 4))(torch.zeros(2, 3, 64, 48)).shape == (2, 1, 8, 6)


def test_it_learns_to_tell_a_grid(faces):
    clean, drawn = faces
    adversary = Adversary("critic", whole, "cpu", seed=0)
    losses = [adversary.learn((drawn, clean)) for _ in range(80)]
    assert losses[0] == pytest.approx(2, abs=0.2)
    assert losses[-1] < 0.5
    with torch.no_grad():
        assert adversary.net(clean).mean() > adversary.net(drawn).mean() + 1


def test_its_pull_has_the_size_of_the_references(faces, monkeypatch):
    clean, drawn = faces
    drawn = drawn.clone().requires_grad_()
    adversary = Adversary("critic", whole, "cpu", seed=0)
    reference = 3 * (drawn - clean).abs().mean()
    assert adversary.loss(drawn, reference) == 0  # new: its verdict does not count
    monkeypatch.setattr(critic, "ALONE", 0)
    pulls = [torch.autograd.grad(x, drawn, retain_graph=True)[0] for x in (reference, adversary.loss(drawn, reference))]
    assert pulls[1].norm() == pytest.approx(float(pulls[0].norm()), rel=0.02)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in adversary.net.parameters())


def test_its_state_goes_through_a_checkpoint(faces):
    clean, drawn = faces
    first, second = Adversary("critic", whole, "cpu", seed=0), Adversary("critic", whole, "cpu", seed=1)
    first.learn((drawn, clean))
    second.load({name: value.clone() for name, value in first.tensors().items()})
    assert second.updates == 1
    assert first.learn((drawn, clean)) == second.learn((drawn, clean))
    wanted, got = first.tensors(), second.tensors()
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)


def test_components_are_eyes_and_mouth_side_by_side():
    """Marks at the eyes and the mouth of an aligned face come out in the middle of their channels."""
    faces = torch.zeros(2, 3, 256, 256)
    for x, y in ((90, 112), (166, 112), (128, 196)):  # where FFHQ's alignment puts them
        faces[:, :, y - 8 : y + 8, x - 8 : x + 8] = 1
    seen = components(faces)
    assert seen.shape == (2, 9, 64, 64)
    assert (seen[:, :, 24:40, 24:40].mean((2, 3)) > 0.7).all()
    assert (seen.mean((2, 3)) < 0.2).all()


def test_matching_asks_for_the_same_maps_of_the_same_face():
    critic = Adversary("whole", whole, "cpu", 0)
    faces = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    drawn = faces.flip(0).requires_grad_(True)
    critic.net.eval()  # else spectral normalisation moves from one pass to the next
    assert critic.matching(faces, faces) == 0
    loss = critic.matching(drawn, faces)
    loss.backward()
    assert 0 < loss < 2
    assert drawn.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in critic.net.parameters())
