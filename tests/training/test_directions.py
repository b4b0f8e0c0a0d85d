"""Fitting directions: a known answer, and all the steps on a toy cache."""

import json

import pytest
import torch
from safetensors.torch import save_file

from studio.errors import InputError
from studio.faces.attributes import ATTRIBUTES
from studio.identity.encoder import IdentityEncoder
from studio.networks.latent_space import DIRECTIONS, LatentSpace
from studio.training import directions
from tests import tiny


def test_a_direction_moves_its_attribute_and_takes_along_what_goes_with_it():
    """y is the first coordinate of w; the second goes along with it by half, the third not at all."""
    rng = torch.Generator().manual_seed(0)
    w = torch.randn(5000, 4, generator=rng)
    w[:, 1] += 0.5 * w[:, 0]
    noise = torch.randn(5000, 8, generator=rng)
    y = noise.clone()
    y[:, 2] = 3 * w[:, 0] + 0.1 * noise[:, 2]
    space = LatentSpace(dim=4, bank=1, embedding_dim=2)
    scores = directions.fit_directions(space, w, y)
    assert space.directions[2] == pytest.approx([1 / 3, 1 / 6, 0, 0], abs=0.02)
    assert scores["smile"] > 0.99
    assert scores["yaw"] < 0.02
    assert space.attribute_spread[2] == pytest.approx(3, abs=0.1)


def test_glasses_take_along_less():
    """y is the first coordinate; the second goes along with it by half and varies more, as age does with glasses."""
    rng = torch.Generator().manual_seed(0)
    w = torch.randn(5000, 4, generator=rng)
    w[:, 1] = 3 * w[:, 1] + 0.5 * w[:, 0]
    y = torch.randn(5000, 8, generator=rng)
    y[:, 7] = w[:, 0] + 0.1 * y[:, 7]
    y[:, 2] = y[:, 7]
    space = LatentSpace(dim=4, bank=1, embedding_dim=2)
    directions.fit_directions(space, w, y)
    smile, glasses = space.directions[[2, 7]]
    assert smile[1] / smile[0] == pytest.approx(0.5, abs=0.1)
    assert glasses[1] / glasses[0] < 0.4
    assert float(glasses[0]) == pytest.approx(1, abs=0.1)


@pytest.fixture
def cache(tmp_path):
    """30 faces in two shards; every third mixes two latents."""
    generator, rng = tiny.varied_generator(), torch.Generator().manual_seed(0)
    for number, count in enumerate((20, 10)):
        pairs = generator.mapping(torch.randn(count, 8, generator=rng))[:, None].repeat(1, 2, 1).detach()
        pairs[::3, 1] = pairs[::3, 1].flip(0)
        pictures = (generator(pairs[:, 0]) * 127.5 + 127.5).clamp(0, 255).byte()
        save_file({"images": pictures, "latents": pairs}, tmp_path / f"faces-{number:05d}.safetensors")
    return tmp_path


class Toy(LatentSpace):
    """`LatentSpace` with the toy's length of a latent as its default."""

    def __init__(self, dim=8, attributes=DIRECTIONS, bank=2048, embedding_dim=128):
        super().__init__(dim=dim, attributes=attributes, bank=bank, embedding_dim=embedding_dim)


@pytest.fixture
def _toys(monkeypatch, toy_networks):
    monkeypatch.setattr(directions, "LatentSpace", Toy)
    monkeypatch.setattr(directions, "SAMPLES", 500)


@pytest.mark.usefixtures("_toys")
def test_fit(cache, tmp_path):
    folder = tmp_path / "directions"
    summary = directions.fit(cache, folder, report=lambda _: None)
    assert {entry["faces"] for entry in summary["attributes"].values()} == {30}
    assert json.loads((folder / "fit.json").read_text()) == summary
    assert set(summary["effects"]) == set(summary["attributes"]) == set(ATTRIBUTES)
    assert set(summary["effects"]["yaw"]) == {*ATTRIBUTES, "identity"}
    space = LatentSpace.from_pretrained(folder)
    assert space.config.bank < 30  # those of one latent
    assert space.directions.abs().sum() > 0
    assert space.bank_thumbs.float().std() > 0
    assert all(entry["spread"] >= 0 for entry in summary["attributes"].values())


@pytest.mark.usefixtures("_toys")
def test_fewer_faces(cache, tmp_path):
    summary = directions.fit(cache, tmp_path / "d", count=24, report=lambda _: None)
    assert summary["attributes"]["yaw"]["faces"] == 24


@pytest.mark.usefixtures("_toys")
def test_one_direction_alone_leaves_the_others(cache, tmp_path):
    folder = tmp_path / "directions"
    before = directions.fit(cache, folder, report=lambda _: None)
    old = LatentSpace.from_pretrained(folder)
    after = directions.fit(cache, folder, count=20, report=lambda _: None, only=("glasses",))
    new = LatentSpace.from_pretrained(folder)
    assert after["attributes"]["glasses"]["faces"] == 20
    assert all(after[part][name] == before[part][name] for part in after for name in ATTRIBUTES[:-1])
    for name, value in old.state_dict().items():
        if name in ("directions", "attribute_mean", "attribute_spread"):
            others = [row for row in range(len(DIRECTIONS)) if row != old.number("glasses")]
            assert torch.equal(new.state_dict()[name][others], value[others])
            assert not torch.equal(new.state_dict()[name], value)
        else:
            assert torch.equal(new.state_dict()[name], value)


@pytest.mark.usefixtures("_toys")
def test_an_unknown_direction_alone(cache, tmp_path):
    directions.fit(cache, tmp_path / "d", report=lambda _: None)
    with pytest.raises(InputError, match="direction must be one of"):
        directions.fit(cache, tmp_path / "d", report=lambda _: None, only=("beard",))
    with pytest.raises(InputError, match="studio train ages"):
        directions.fit(cache, tmp_path / "d", report=lambda _: None, only=("age",))


def test_room_for_directions_that_are_new():
    old = LatentSpace(dim=4, attributes=ATTRIBUTES[:5], bank=3, embedding_dim=2)
    old.directions += torch.arange(20.0).view(5, 4)
    old.bank_latents += 1
    new = directions.with_room(old)
    assert tuple(new.config.attributes) == DIRECTIONS
    assert torch.equal(new.directions[:5], old.directions)
    assert not new.directions[5:].any()
    assert torch.equal(new.bank_latents, old.bank_latents)


def test_no_cache(tmp_path):
    with pytest.raises(InputError, match="studio train faces"):
        directions.label(tmp_path, 10, tiny.finder(), IdentityEncoder(tiny.identity_net()), print)
