"""The prior over latents given an identity: its pairs, that it learns, and that it resumes to the bit."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio import weights
from studio.errors import InputError
from studio.identity.encoder import IdentityEncoder
from studio.latents.prior import render
from studio.networks.latent_flow import LatentFlow, guided
from studio.networks.latent_space import LatentSpace
from studio.training import identities, run
from studio.training.flow import FlowTrainer, blur
from studio.training.identities import (
    PairMaker,
    draw_latents,
    embed_faces,
    load_identities,
    make_identities,
    make_shard,
    quick_mesh,
)
from tests import tiny

SMALL = {"width": 32, "hidden": 32, "condition": 16, "depth": 2, "dropout": 0.0}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Sums are the same to the bit only when they are made in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def maker():
    head = tiny.image_head(start=2)
    return PairMaker(tiny.varied_generator(), head, tiny.face_mesh(), IdentityEncoder(tiny.identity_net()))


def pairs(count=4000, dim=8):
    """A descriptor says a number z; the first coordinate is about z², which no linear regression on z finds."""
    rng = torch.Generator().manual_seed(0)
    space = tiny.latent_space()
    v, z = torch.randn(count, dim, generator=rng), torch.randn(count, 1, generator=rng)
    v[:, :1] = (z.square() - 1) / 1.5 + 0.3 * v[:, :1]
    seen, offset = (torch.randn(1, 128, generator=rng) / 8 for _ in range(2))
    return space, space.latents(v), z * seen + offset, 2 * seen + offset


def trainer(folder, **settings):
    space, latents, descriptors, _ = pairs()
    settings = {"steps": 400, "batch": 256, "learning_rate": 4e-3, "config": SMALL, "report": lambda _: None} | settings
    return FlowTrainer(latents, descriptors, torch.arange(len(latents)) % 25 == 0, space, folder, **settings)


def test_a_shard_depends_on_its_number_alone(maker, tmp_path):
    one, two = (make_shard(maker, 3, tmp_path / name, size=5, report=lambda _: None) for name in ("a", "b"))
    first, second = load_file(one), load_file(two)
    assert all(torch.equal(first[name], second[name]) for name in ("latents", "descriptors"))
    assert first["latents"].shape == (5, 8)
    assert first["descriptors"].shape == (5, 128)
    assert not torch.equal(first["latents"], load_file(make_shard(maker, 4, tmp_path / "a", size=5))["latents"])
    assert not list((tmp_path / "a").glob("*.part"))


def test_a_pair_belongs_together(maker, tmp_path):
    """The picture of a latent alone has the descriptor that lies beside it."""
    shard = load_file(make_shard(maker, 0, tmp_path, size=4, report=lambda _: None))
    again = maker.describe(shard["latents"][2:3])
    assert torch.allclose(again[0], shard["descriptors"][2], atol=1e-5)
    assert not torch.allclose(again[0], shard["descriptors"][1], atol=1e-3)


def test_a_window_of_the_face_is_drawn_as_the_whole_face_is():
    generator, head = tiny.generator(channels=(8,) * 6), tiny.image_head(start=4)
    maker = PairMaker(generator, head, tiny.face_mesh(), IdentityEncoder(tiny.identity_net()))
    w = draw_latents(generator, 1, 0)
    with torch.no_grad():
        whole, cut = render(generator, w, 256, head).clamp(0, 1), maker.draw(w)
    assert maker.window == (2, 2, 14, 16)
    inside = (..., slice(64, None), slice(64, 192))  # two cells of 16 from the window's edge
    assert torch.allclose(whole[inside], cut[inside], atol=1e-5)
    assert not torch.allclose(whole, cut, atol=1e-2)


def test_latents_are_pulled_to_the_mean(maker):
    generator = maker.generator
    free = generator.mapping(torch.randn(500, 8, generator=torch.Generator().manual_seed(1)))
    drawn = draw_latents(generator, 500, 1)
    assert (drawn - generator.mean_latent).norm() < (free - generator.mean_latent).norm()


def test_shards_that_are_there_are_kept(maker, tmp_path, monkeypatch):
    monkeypatch.setattr(identities, "SHARD", 4)
    monkeypatch.setattr(PairMaker, "from_pretrained", classmethod(lambda cls: maker))
    make_identities(tmp_path, 4, report=lambda _: None)
    before = (tmp_path / "identities-00000.safetensors").stat().st_mtime_ns
    make_identities(tmp_path, 8, report=lambda _: None)
    assert (tmp_path / "identities-00000.safetensors").stat().st_mtime_ns == before
    latents, descriptors, held = load_identities(tmp_path)
    assert (len(latents), len(descriptors)) == (8, 8)
    assert held.nonzero()[:, 0].tolist() == [0, 4]
    with pytest.raises(InputError, match="train identities"):
        load_identities(tmp_path / "none")
    with pytest.raises(InputError, match="count"):
        make_identities(tmp_path, -1)


def test_cached_faces_are_pairs_as_well(maker, tmp_path):
    cached = (255 * torch.rand(3, 3, 256, 256)).byte()
    (tmp_path / "faces").mkdir()
    save_file({"images": cached, "latents": torch.randn(3, 2, 8)}, tmp_path / "faces" / "faces-00000.safetensors")
    embed_faces(maker, tmp_path / "faces", tmp_path / "out", report=lambda _: None)
    latents, descriptors, _ = load_identities(tmp_path / "out")
    assert torch.equal(latents, load_file(tmp_path / "faces" / "faces-00000.safetensors")["latents"][:, 0])
    assert descriptors.shape == (3, 128)
    with pytest.raises(InputError, match="train faces"):
        embed_faces(maker, tmp_path, tmp_path / "out")


def test_the_quick_mesh_is_in_pixels_of_the_picture(maker):
    small = torch.rand(1, 3, 64, 64)
    large = torch.nn.functional.interpolate(small, scale_factor=4, mode="bilinear")
    with torch.no_grad():
        points, enlarged = quick_mesh(maker.mesh, small), quick_mesh(maker.mesh, large)
    assert points.shape == (1, 468, 3)
    assert torch.allclose(enlarged / 4, points, atol=2.0)


def test_blurred_descriptors_keep_their_length_and_move_a_little():
    given = torch.randn(500, 128) / 8
    moved = blur(given, torch.Generator().manual_seed(0))
    assert torch.allclose(moved.norm(dim=1), given.norm(dim=1), atol=1e-5)
    apart = (moved - given).norm(dim=1)
    assert 0 < apart.mean() < 0.15
    assert apart.max() < 0.25


def test_it_learns_what_is_not_linear(tmp_path):
    """Samples for z = 2 have 2 as their first coordinate, and all others as in the prior."""
    learned = trainer(tmp_path)
    before = learned.measure()
    learned.run()
    after = learned.measure()
    assert after["known"] < 0.96 * before["known"]
    assert after["known"] < after["anybody"]
    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(2))
    who = pairs()[3].expand(300, -1)
    with torch.no_grad():
        for step in range(20):
            t = 1 - step / 20
            x = x - guided(learned.average, x, torch.tensor(1000 * t), who, 1.0) / 20
        drawn = learned.average.coordinates(x)
    assert 1.3 < float(drawn[:, 0].mean()) < 2.7
    assert float(drawn[:, 1:].mean().abs()) < 0.3
    assert (drawn[:, 1:].std(0) > 0.7).all()


def test_resumes_to_the_bit(tmp_path):
    straight, first = trainer(tmp_path / "straight", steps=6), trainer(tmp_path / "stopped", steps=6)
    for _ in range(6):
        straight.update()
    for _ in range(3):
        first.update()
    first.save()
    second = trainer(tmp_path / "stopped", steps=6)
    second.resume()
    for _ in range(3):
        second.update()
    for one, other in ((straight.flow, second.flow), (straight.average, second.average)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_command_trains_goes_on_and_exports(tmp_path, monkeypatch):
    space, latents, descriptors, _ = pairs(60)
    space.save_pretrained(tmp_path / "space")
    monkeypatch.setattr(weights, "path", lambda name: tmp_path / "space")
    (tmp_path / "cache").mkdir()
    save_file({"latents": latents, "descriptors": descriptors}, tmp_path / "cache" / "identities-00000.safetensors")
    arguments = (tmp_path / "run", tmp_path / "cache")
    run.train_flow(*arguments, steps=2, report=lambda _: None)
    with pytest.raises(InputError, match="--resume"):
        run.train_flow(*arguments, steps=2, report=lambda _: None)
    run.train_flow(*arguments, steps=3, resume=True, report=lambda _: None)
    assert "60 pairs" in (tmp_path / "run" / "log.txt").read_text()
    run.export(tmp_path / "run", tmp_path / "exported")
    assert (
        load_file(tmp_path / "exported" / "diffusion_pytorch_model.safetensors")["leave.weight"].dtype == torch.float16
    )
    assert isinstance(LatentFlow.from_pretrained(tmp_path / "exported"), LatentFlow)
    assert LatentSpace.from_pretrained(tmp_path / "space").config.dim == 8
