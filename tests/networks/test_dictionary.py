"""Component dictionaries: which atom is found, where it goes, and that a new one changes nothing."""

from __future__ import annotations

import pytest
import torch

from studio.networks.dictionary import COMPONENTS, GRID, ComponentDictionary, cut, standardised, window
from studio.networks.restorer import START_BLOCK
from studio.training.clusters import choose_atoms
from tests import tiny

ATOMS = 5


@pytest.fixture
def generator():
    return tiny.varied_generator()


@pytest.fixture
def latents(generator):
    with torch.no_grad():
        return generator.mapping(torch.randn(ATOMS, 8, generator=torch.Generator().manual_seed(3)))


def dictionary(generator, latents, confidence=0.0):
    """One that trusts its atoms as far as `confidence` says, everywhere."""
    with tiny.seeded():
        net = ComponentDictionary(len(latents), (8,), 8).eval()
    net.latents.copy_(latents)
    torch.nn.init.constant_(net.confidence[0][-1].bias, confidence)
    net.draw(generator, START_BLOCK)
    return net


@torch.no_grad()
def test_a_new_one_changes_nothing(generator, latents):
    x = torch.randn(2, 8, GRID, GRID)
    assert torch.equal(dictionary(generator, latents)(x, 0), x)


@torch.no_grad()
def test_atoms_have_mean_0_and_spread_1(generator, latents):
    atoms = dictionary(generator, latents).mouth_0
    assert atoms.shape == (ATOMS, 8, 6, 10)
    torch.testing.assert_close(atoms.mean((2, 3)), torch.zeros(ATOMS, 8), atol=1e-5, rtol=0)
    varied = atoms.square().mean((2, 3)) > 0.5
    assert varied.float().mean() > 0.9


@torch.no_grad()
@pytest.mark.parametrize("name", COMPONENTS)
def test_finds_the_atom_whatever_its_brightness_and_contrast(generator, latents, name):
    """An atom that was weakened, shifted and damaged comes back as it was, in the colours of the damaged one."""
    net = dictionary(generator, latents, confidence=1.0)
    rng = torch.Generator().manual_seed(1)
    for k in range(ATOMS):
        x = torch.zeros(1, 8, GRID, GRID)
        atom = getattr(net, f"{name}_0")[k : k + 1]
        damaged = 0.4 * atom + 2 + 0.05 * torch.randn(atom.shape, generator=rng)
        cut(x, COMPONENTS[name]).copy_(damaged)
        _, mean, spread = standardised(damaged)
        inside = window(atom) == 1
        wanted = (atom * spread + mean)[inside.expand_as(atom)]
        torch.testing.assert_close(cut(net(x, 0), COMPONENTS[name])[inside.expand_as(atom)], wanted)


@torch.no_grad()
def test_leaves_everything_but_the_components(generator, latents):
    x = torch.randn(1, 8, GRID, GRID)
    changed = (dictionary(generator, latents, confidence=1.0)(x, 0) != x).any(1)[0]
    inside = torch.zeros(GRID, GRID, dtype=torch.bool)
    for x0, y0, x1, y1 in COMPONENTS.values():
        inside[y0:y1, x0:x1] = True
    assert changed[inside].float().mean() > 0.9
    assert not changed[~inside].any()


@torch.no_grad()
def test_batch_equals_loop(generator, latents):
    net = dictionary(generator, latents, confidence=0.5)
    x = torch.randn(3, 8, GRID, GRID)
    torch.testing.assert_close(net(x, 0), torch.cat([net(one, 0) for one in x.split(1)]))


def test_the_maps_are_not_saved(generator, latents):
    net = dictionary(generator, latents)
    assert net.drawn
    assert not [name for name in net.state_dict() if name.startswith(tuple(COMPONENTS))]


def test_components_are_mirror_images():
    (a0, top, a1, bottom), (b0, top2, b1, bottom2) = COMPONENTS["right_eye"], COMPONENTS["left_eye"]
    assert (GRID - a1, GRID - a0) == (b0, b1)
    assert (top, bottom) == (top2, bottom2)
    for name in ("nose", "mouth"):
        assert sum(COMPONENTS[name][::2]) == GRID


def test_atoms_are_chosen_from_the_faces_and_differ(generator):
    with torch.no_grad():
        many = generator.mapping(torch.randn(40, 8, generator=torch.Generator().manual_seed(4)))
    chosen = choose_atoms(generator, many, 6, START_BLOCK)
    assert torch.equal(chosen, choose_atoms(generator, many, 6, START_BLOCK))
    rows = [(many == row).all(1).nonzero().item() for row in chosen]
    assert len(set(rows)) == 6


def test_atoms_spread_over_clusters(generator):
    """Of three bunches of faces that are alike, three atoms take one each."""
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        middles = generator.mapping(3 * torch.randn(3, 8, generator=rng))
    many = middles.repeat_interleave(10, 0) + 1e-3 * torch.randn(30, 8, generator=rng)
    chosen = choose_atoms(generator, many, 3, START_BLOCK, seed=1)
    nearest = torch.cdist(chosen, middles).argmin(1)
    assert sorted(nearest.tolist()) == [0, 1, 2]
