"""Training with toy networks: it learns, resumes to the bit, and keeps its files small and whole."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from studio import weights
from studio.errors import InputError, WeightsError
from studio.networks.generator import Generator
from studio.networks.identity import IdentityNet
from studio.networks.image_head import ImageHead, target
from studio.networks.mesh import FaceMesh
from studio.networks.restorer import Restorer
from studio.photosets import an_eighth, held_out
from studio.tone import luma
from studio.training import checkpoints, data, run
from studio.training.augment import recolour, warp
from studio.training.data import SyntheticFaces, draw_latents, expand_latents, load_real_faces, make_shard
from studio.training.heads import HeadTrainer
from studio.training.loop import Trainer, photographs
from studio.training.losses import (
    chips,
    coarse_loss,
    consistency_loss,
    descriptor_loss,
    energy_loss,
    estimate_loss,
    feature_loss,
    grid_loss,
    identity_loss,
    jitter,
    landmark_loss,
)
from studio.training.presets import PRESETS, Preset
from tests import tiny

PRESET = Preset("toy", images=8, batch=2, learning_rate=1e-3, warmup=2, identity_from=4, recipe="gfpgan")
FACES = 6


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Sums are the same to the bit only when they are made in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def _small_shards():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "SHARD", FACES)
        yield


def generator():
    """Seven blocks, because W+ has 16 slots, and latents of 512, which `draw_latents` draws."""
    return tiny.generator(style_dim=512)


def image_head(start=5):
    """Fits `generator()` after the map at 128 px, or at 256."""
    return tiny.image_head(start=start, style_dim=512)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    make_shard(generator(), 0, folder)
    return folder


def toy_trainer(cache, folder, real=None, old=None, accumulate=1, **changes):
    """A new trainer, always with the same weights and data."""
    preset = Preset(**{**vars(PRESET), **changes})
    identity = tiny.identity_net()
    restorer = tiny.restorer(
        latent_dim=512,
        spatial_channels=(8, 8) if preset.spatial else (),
        fine_channels=8 if preset.fine else 0,
        style_slots=preset.style_slots,
        atoms=preset.atoms,
    )
    if restorer.dictionary:
        restorer.dictionary.latents.copy_(SyntheticFaces(cache).latents[: preset.atoms, 0])
    parts = (restorer, generator(), identity, SyntheticFaces(cache), real)
    judges = (image_head(6 if preset.fine else 5), tiny.face_mesh())
    return Trainer(preset, *parts, folder, *judges, report=lambda _: None, old=old, accumulate=accumulate)


@pytest.fixture
def make(cache, tmp_path):
    """`toy_trainer` in a folder of its own."""

    def build(name="a", real=None, old=None, accumulate=1, **changes):
        return toy_trainer(cache, tmp_path / name, real, old, accumulate, **changes)

    return build


def advance(trainer, steps):
    return [trainer.update(*trainer.load(trainer.step)) for _ in range(steps)]


def state_of(trainer):
    """Everything that the next step depends on, by name."""
    moments = {
        f"{number}.{name}": torch.as_tensor(value)
        for number, state in trainer.optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    return {**trainer.restorer.state_dict(), **{f"average.{k}": v for k, v in trainer.average.items()}, **moments}


# ---- generated faces


def test_shards_are_a_function_of_their_number(cache, tmp_path):
    first, again = (load_file(path) for path in (data.shard_path(cache, 0), make_shard(generator(), 0, tmp_path)))
    assert all(torch.equal(first[name], again[name]) for name in ("images", "latents"))
    assert first["images"].shape == (FACES, 3, 256, 256) and first["images"].dtype == torch.uint8
    assert first["latents"].shape == (FACES, 2, 512)
    assert len({tuple(latent[0, :3].tolist()) for latent in first["latents"]}) == FACES
    assert [path.name for path in tmp_path.iterdir()] == ["faces-00000.safetensors"]  # nothing half-written


def test_shards_that_are_there_are_kept(tmp_path):
    path = data.shard_path(tmp_path, 3)
    path.write_bytes(b"there")
    assert make_shard(None, 3, tmp_path) == path
    assert path.read_bytes() == b"there"


def test_latents_are_seeded_and_half_of_them_mixed():
    net = generator()
    with torch.no_grad():
        pairs, again, other = (draw_latents(net, 64, seed) for seed in (1, 1, 2))
    assert torch.equal(pairs, again)
    assert not torch.equal(pairs, other)
    mixed = (pairs[:, 0] != pairs[:, 1]).any(1).float().mean()
    assert 0.3 < mixed < 0.7


def test_slots_of_a_pair():
    slots = expand_latents(torch.stack([torch.zeros(1, 512), torch.ones(1, 512)], 1))
    assert slots.shape == (1, 16, 512)
    assert slots[0, :, 0].tolist() == [0] * 7 + [1] * 9


def test_batches_of_generated_faces(cache):
    faces = SyntheticFaces(cache)
    images, latents = faces.batch(torch.tensor([5, 0]))
    shard = load_file(data.shard_path(cache, 0))
    assert len(faces) == FACES
    assert torch.equal(images[0], shard["images"][5].float() / 255)
    assert torch.equal(latents[1], shard["latents"][0])


def test_an_empty_cache_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="studio train faces"):
        SyntheticFaces(tmp_path)


# ---- real faces


@pytest.fixture
def photos_folder(tmp_path):
    """Forty faces of people, two of whom are also in `portraits`, and one too small."""
    for folder in ("aligned_clean", "portraits"):
        (tmp_path / folder).mkdir()
    for i in range(40):
        Image.new("RGB", (260, 260), (i, 0, 0)).save(tmp_path / "aligned_clean" / f"person{i:02d}.png")
    Image.new("RGB", (200, 200)).save(tmp_path / "aligned_clean" / "small.png")
    for name in ("person03_dinner.jpg", "person11_1.jpg"):
        Image.new("RGB", (20, 20)).save(tmp_path / "portraits" / name)
    return tmp_path


def test_held_out_people(photos_folder):
    names = held_out(photos_folder)
    assert {"person03", "person11"} <= names
    assert 3 <= len(names) <= 14  # those two, and about an eighth
    assert names == held_out(photos_folder)


def test_no_training_sees_the_held_out(photos_folder):
    names = held_out(photos_folder)
    faces = load_real_faces(photos_folder / "aligned_clean", names)
    assert faces.shape == (40 - len(names - {"small"}), 3, 256, 256)
    seen = set(faces[:, 0, 0, 0].tolist())
    assert not seen & {int(name[-2:]) for name in names - {"small"}}


def test_photos_to_measure_on_must_be_there(tmp_path):
    with pytest.raises(InputError, match="portraits is missing"):
        held_out(tmp_path)


def test_a_folder_without_faces(tmp_path):
    with pytest.raises(InputError, match="256 px or more"):
        load_real_faces(tmp_path)


def test_batches_are_a_function_of_their_number(make):
    real = torch.randint(0, 256, (3, 3, 256, 256), dtype=torch.uint8)
    trainer = make(real=real, real_share=0.5, recipe="training")
    first, again, other = (trainer.load_batch(step) for step in (5, 5, 6))
    assert torch.equal(first.damaged, again.damaged)
    assert not torch.equal(first.damaged, other.damaged)
    assert (len(first.clean), len(first.latents)) == (2, 1)
    assert first.damaged.min() >= 0 and first.damaged.max() <= 1


def test_warped_faces_keep_no_latents(make):
    real = torch.randint(0, 256, (3, 3, 256, 256), dtype=torch.uint8)
    plain, warped = (
        make(name, real=real, batch=4, real_share=0.25, warped_share=share, recipe="none").load_batch(3)
        for name, share in (("plain", 0.0), ("warped", 0.5))
    )
    assert (len(plain.latents), len(warped.latents)) == (3, 1)
    assert torch.equal(plain.latents[:1], warped.latents)
    assert torch.equal(plain.clean[0], warped.clean[0])
    assert all(not torch.equal(plain.clean[i], warped.clean[i]) for i in (1, 2, 3))


def test_warps_are_drawn_for_each_face_and_zero_is_none():
    faces = tiny.image(64, 64).expand(2, -1, -1, -1)
    turned = warp(faces, torch.Generator().manual_seed(1))
    assert torch.equal(turned, warp(faces, torch.Generator().manual_seed(1)))
    assert not torch.allclose(turned[0], turned[1], atol=0.01)
    torch.testing.assert_close(warp(faces, torch.Generator(), 0.0), faces, atol=1e-5, rtol=0)


def test_recolouring_is_one_gain_for_each_channel_and_one_gamma():
    faces = torch.full((1, 3, 8, 8), 0.5)
    faces[..., :4] = 0.25
    found = recolour(faces, torch.Generator().manual_seed(0))
    gamma = (found[0, :, 0, 7] / found[0, :, 0, 0]).log2()
    torch.testing.assert_close(gamma, gamma[:1].expand(3), atol=1e-4, rtol=0)
    assert found[0, :, 0, 0].unique().numel() == 3
    assert found.min() >= 0 and found.max() <= 1


# ---- losses


def test_losses_are_zero_for_a_perfect_answer_and_grow():
    x = torch.rand(2, 3, 256, 256)
    y = (x + 0.1 * torch.randn(x.shape)).clamp(0, 1)
    net = tiny.identity_net()
    for loss in (feature_loss, estimate_loss, lambda a, b: identity_loss(net, a, b)):
        assert loss(x, x).item() == 0
        assert loss(y, x).item() > 0
    assert chips(x).shape == (2, 3, 150, 150)


def test_losses_of_stage_2_are_least_for_a_perfect_answer_and_grow():
    x, rng = torch.rand(2, 3, 256, 256), torch.Generator().manual_seed(0)
    y = (x + 0.1 * torch.randn(x.shape, generator=rng)).clamp(0, 1)
    identity, mesh = tiny.identity_net(), tiny.face_mesh()
    for loss in (
        coarse_loss,
        energy_loss,
        lambda a, b: landmark_loss(mesh, a, b),
        lambda a, b: descriptor_loss(identity, a, b, torch.Generator().manual_seed(3)),
    ):
        assert loss(x, x).item() < 2e-3
        assert loss(y, x).item() > 2 * loss(x, x).item()


def test_energy_loss_does_not_ask_where_texture_lies():
    """Noise against other noise of its kind costs little, against a blurred picture much; pixels say the reverse."""
    a, b = (0.5 + 0.1 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(i)) for i in range(2))
    flat = torch.full_like(a, 0.5)
    assert energy_loss(a, b) < 0.3 * energy_loss(flat, b)
    assert (a - b).abs().mean() > (flat - b).abs().mean()


def test_chips_move_and_zoom_inside_the_face():
    x = torch.arange(256.0).expand(1, 3, 256, 256) / 255  # brightness is the place
    middle = chips(x).mean()
    assert chips(x, (0.02, 0.0)).mean() - middle == pytest.approx(0.02, abs=2e-3)
    assert chips(x, (0.9, 0.0), 3.0).shape == (1, 3, 150, 150)
    wide, narrow = (chips(x, zoom=zoom).std() for zoom in (1.1, 0.9))
    assert wide > narrow
    (dx, dy), zoom = jitter(torch.Generator().manual_seed(0))
    assert max(abs(dx), abs(dy), abs(zoom - 1)) <= 0.06


def test_estimate_loss_asks_for_edges():
    """Two errors of the same size: the one that breaks up into pixels costs more."""
    x = torch.zeros(1, 3, 8, 8)
    checks = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 0.2 - 0.1
    assert estimate_loss(x + checks, x) > 2 * estimate_loss(x + 0.1, x)


# ---- the loop


def test_it_learns(make):
    trainer = make(images=200, recipe="none", identity_weight=0.0)
    trainer.measure_targets()
    batch = trainer.load_batch(0)
    losses = [sum(trainer.update(batch).values()) for _ in range(10)]
    assert losses[-1] < 0.9 * losses[0]


def test_run_to_the_end_writes_everything(make):
    trainer = make()
    trainer.measure_targets()
    trainer.run()
    assert (trainer.step, trainer.images) == (4, 8)
    assert {path.name for path in trainer.folder.iterdir()} == {"checkpoint", "restorer", "samples"}
    assert [path.name for path in (trainer.folder / "samples").iterdir()] == ["0000008.png"]
    averaged = Restorer.from_pretrained(trainer.folder / "restorer")
    assert all(torch.equal(value, trainer.average[name]) for name, value in averaged.state_dict().items())
    assert torch.equal(averaged.features_std, trainer.restorer.features_std)


def test_minutes_stop_it(make):
    trainer = make()
    trainer.run(minutes=0)
    assert trainer.step == 1
    assert json.loads((trainer.folder / "checkpoint" / "state.json").read_text())["step"] == 1


def test_resuming_is_exact_to_the_bit(make):
    straight = make("straight")
    straight.measure_targets()
    advance(straight, 4)

    first = make("stopped")
    first.measure_targets()
    advance(first, 2)
    first.save()
    second = make("stopped")
    second.resume()
    assert second.step == 2
    losses = advance(second, 2)
    assert "identity" in losses[-1]

    wanted, got = state_of(straight), state_of(second)
    assert wanted.keys() == got.keys()
    different = [name for name in wanted if not torch.equal(wanted[name], got[name])]
    assert not different
    assert straight.learning_rate() == second.learning_rate()


def test_the_loop_is_the_steps(make):
    """`run` loads ahead in another thread; that changes nothing."""
    by_run, by_hand = make("run"), make("hand")
    by_run.run()
    advance(by_hand, 4)
    assert all(torch.equal(value, state_of(by_hand)[name]) for name, value in state_of(by_run).items())


def test_identity_loss_joins_in_later(make):
    trainer = make()
    names = [set(losses) for losses in advance(trainer, 3)]
    assert names[0] == names[1] == {"features", "latent", "estimate"}
    assert names[2] == {"features", "latent", "estimate", "identity"}


STAGE_2 = {"prior_weight": 1.0, "spatial": True, "warped_share": 0.5}


def test_stage_2_trains_through_the_generator(make):
    trainer = make(**STAGE_2)
    before = {name: value.clone() for name, value in trainer.restorer.state_dict().items()}
    losses = advance(trainer, 2)[-1]
    assert {"prior", "energy", "maps", "person", "landmarks"} < set(losses)
    after = trainer.restorer.state_dict()
    assert all(not torch.equal(after[name], before[name]) for name in after if name.startswith("to_spatial"))
    frozen = (trainer.generator, trainer.head, trainer.mesh, trainer.identity)
    assert all(parameter.grad is None for net in frozen for parameter in net.parameters())


def stopped_and_resumed(make, **changes):
    """A training that was stopped after a step and went on for two in another trainer."""
    first, second = (make("stopped", **changes) for _ in range(2))
    advance(first, 1)
    first.save()
    second.resume()
    advance(second, 2)
    return second


def test_stage_2_resumes_to_the_bit(make):
    straight = make("straight", **STAGE_2)
    advance(straight, 3)
    second = stopped_and_resumed(make, **STAGE_2)
    wanted, got = state_of(straight), state_of(second)
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)


def test_stage_2_with_critics_resumes_to_the_bit(make, monkeypatch):
    monkeypatch.setattr("studio.training.critic.ALONE", 1)
    both = {"adversarial_weight": 0.5, "components_weight": 0.5}
    straight = make("straight", **both, **STAGE_2)
    losses = advance(straight, 3)
    second = stopped_and_resumed(make, **both, **STAGE_2)
    assert all(torch.equal(value, state_of(second)[name]) for name, value in state_of(straight).items())
    for name in ("adversarial", "components"):
        assert losses[0][name] == 0 and losses[2][name] != 0
        assert all(found[f"{name} critic"] > 0 for found in losses)
        wanted, got = (trainer.critics[name].tensors() for trainer in (straight, second))
        assert all(torch.equal(wanted[tensor], got[tensor]) for tensor in wanted)


def test_stage_2_with_a_dictionary_resumes_to_the_bit(make):
    added = {"style_slots": 9, "atoms": 3, "added_rate": 5.0}
    straight = make("straight", **added, **STAGE_2)
    advance(straight, 3)
    second = stopped_and_resumed(make, **added, **STAGE_2)
    wanted, got = state_of(straight), state_of(second)
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    moved = [
        name for name in wanted if name.startswith(("to_styles.1", "dictionary.confidence")) and wanted[name].any()
    ]
    assert len(moved) > 4  # they began at zero
    again = Restorer.from_pretrained(tmp := second.folder / "restorer")
    assert again.config.atoms == 3 and tmp.is_dir()


FINE = {"fine": True, "fine_weight": 1.0, "trained": "to_fine.", "added_rate": 5.0}


def test_the_fine_path_is_trained_alone_and_resumes_to_the_bit(make):
    straight = make("straight", **FINE, **STAGE_2)
    before = {name: value.clone() for name, value in straight.restorer.state_dict().items()}
    losses = advance(straight, 3)
    assert all(found["fine"] > 0 for found in losses)
    wanted, got = state_of(straight), state_of(stopped_and_resumed(make, **FINE, **STAGE_2))
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    moved = {name for name, value in before.items() if not torch.equal(value, wanted[name])}
    assert moved == {f"to_fine.{layer}.{kind}" for layer in (1, 3) for kind in ("weight", "bias")}


def test_the_finest_octave_is_that_of_the_faces_own_latents(make):
    trainer = make(**FINE, **STAGE_2)
    latents = trainer.synthetic.latents[:2]
    w = data.expand_latents(latents).bfloat16()
    own = torch.cat([trainer.head.render(trainer.generator, one) for one in w.split(1)]).float() / 2 + 0.5
    blurred = F.interpolate(F.avg_pool2d(own, 2), scale_factor=2.0)
    losses = [trainer.fine_loss(drawn, latents) for drawn in (own, own.flip(3), (own + blurred) / 2, blurred)]
    assert losses[0] == 0
    assert losses[0] < losses[2] < losses[3]
    assert losses[0] < losses[1]  # of the very place


OLD = {"batch": 4, "real_share": 0.25, "old_share": 0.5, "consistency_weight": 1.0, "warped_share": 0.0}


def old_faces(count=3):
    return torch.randint(0, 256, (count, 3, 256, 256), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_old_faces_come_last_in_grey_and_half_of_them_as_they_are(make):
    trainer = make(real=old_faces(), old=old_faces(), **{**STAGE_2, **OLD})
    batches = [trainer.load_batch(step) for step in range(12)]
    assert all((len(batch.clean), len(batch.latents), batch.old) == (4, 1, 2) for batch in batches)
    damaged, clean = (torch.cat([getattr(batch, name)[2:] for batch in batches]) for name in ("damaged", "clean"))
    assert torch.equal(clean, clean[:, :1].expand(-1, 3, -1, -1))
    left = [torch.equal(a, b) for a, b in zip(damaged, clean, strict=True)]
    assert 4 < sum(left) < 20
    assert make("without", real=old_faces(), **{**STAGE_2, **OLD}).load_batch(0).old == 0  # none are given


def test_an_old_photographs_dots_are_asked_of_nothing(make):
    """Dots that average out change neither what is asked for nor what the critics are shown."""
    trainer = make(real=old_faces(), old=old_faces(), grid_weight=1.0, components_weight=1.0, **{**STAGE_2, **OLD})
    batch = trainer.load_batch(0)
    batch.clean[2:] = batch.clean[2:].clamp(0.2, 0.8)
    dots = 0.2 * (1 - 2 * ((torch.arange(256)[:, None] + torch.arange(256)) % 2)).float()
    with_dots = replace(batch, clean=batch.clean.clone())
    with_dots.clean[2:] += dots
    losses, other = (trainer.losses(one) for one in (batch, with_dots))
    judged = {"person", "landmarks"}  # by what they see of the photograph
    assert "consistency" in losses and losses["consistency"].item() > 0
    for name in set(losses) - judged:
        torch.testing.assert_close(losses[name], other[name], atol=1e-5, rtol=1e-5)
    assert torch.equal(photographs(batch), photographs(with_dots))
    shown = photographs(batch)
    assert torch.equal(shown[:2], batch.clean[:2])
    assert torch.equal(shown[2:], luma(batch.clean[:2]).expand(-1, 3, -1, -1))


def test_consistency_is_with_the_photograph_when_shrunk():
    photo = torch.rand(2, 3, 64, 64)
    blurred = photo + 0.1
    assert consistency_loss(photo, photo) == 0
    torch.testing.assert_close(consistency_loss(blurred, photo), torch.tensor(0.1))
    stripes = 0.1 * (1 - 2 * (torch.arange(64) % 2)).float()
    torch.testing.assert_close(consistency_loss(photo + stripes, photo), torch.tensor(0.0), atol=1e-6, rtol=0)


def test_stage_2_with_old_faces_resumes_to_the_bit(make):
    given = {"real": old_faces(), "old": old_faces(), **STAGE_2, **OLD}
    straight = make("straight", **given)
    losses = advance(straight, 3)
    assert all(found["consistency"] > 0 for found in losses)
    second = stopped_and_resumed(make, **given)
    wanted, got = state_of(straight), state_of(second)
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)


def test_an_eighth_of_the_old_faces_is_kept_and_small_ones_are_enlarged(tmp_path):
    for i in range(40):
        Image.new("RGB", (128, 128), (i, 0, 0)).save(tmp_path / f"{i:06d}.png")
    Image.new("RGB", (100, 100), (99, 0, 0)).save(tmp_path / "small.png")
    faces = run.load_old_faces(tmp_path)
    kept = an_eighth(f"{i:06d}" for i in range(40))
    assert 1 <= len(kept) <= 12
    assert faces.shape == (40 - len(kept), 3, 256, 256)
    assert not set(faces[:, 0, 0, 0].tolist()) & {int(name) for name in kept}


def test_a_monochrome_face_leaves_the_priors_colours_free(make):
    trainer = make(**STAGE_2)
    rng = torch.Generator().manual_seed(0)
    grey, colour = torch.rand(1, 1, 256, 256, generator=rng).expand(-1, 3, -1, -1), torch.rand(1, 3, 256, 256)
    parts = trainer.restorer(colour)
    parts.latent.retain_grad()
    prior = [trainer.prior_losses(parts, x, x, 1, torch.zeros(0, 2, 512))["prior"] for x in (grey, colour)]
    assert all(loss.isfinite() for loss in prior)
    assert not torch.equal(*prior)


def test_added_parts_have_a_rate_of_their_own(make):
    trainer = make(style_slots=9, atoms=3, added_rate=5.0, **STAGE_2)
    advance(trainer, 1)
    names = {id(parameter): name for name, parameter in trainer.restorer.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert rates.keys() == set(names.values())
    usual = rates["stem.1.weight"]
    for name, rate in rates.items():
        assert rate == pytest.approx(usual * (5 if name.startswith(("to_styles.", "dictionary.")) else 1)), name


def test_learning_rate_rises_and_falls(make):
    trainer = make(images=100, warmup=5)
    rates = []
    for trainer.step in range(60):
        rates.append(trainer.learning_rate())
    assert rates[0] < rates[4] == max(rates)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.02 * PRESET.learning_rate)


def test_frozen_networks_stay(make):
    trainer = make()
    before = {name: value.clone() for name, value in trainer.generator.state_dict().items()}
    advance(trainer, 3)
    assert all(torch.equal(value, before[name]) for name, value in trainer.generator.state_dict().items())
    assert all(parameter.grad is None for parameter in trainer.identity.parameters())


# ---- image heads


@pytest.fixture
def heads(tmp_path):
    def build(name="heads", faces=None, known=None):
        return HeadTrainer(generator(), tmp_path / name, faces, known, images=16, batch=2, report=lambda _: None)

    return build


def test_heads_learn_and_are_written(heads, monkeypatch):
    monkeypatch.setattr("studio.training.heads.HELD_OUT", 2)
    trainer = heads()
    before = trainer.measure()
    trainer.run()
    after = trainer.measure()
    assert set(after) == {"256 px", "512 px"}
    assert all(after[name] > before[name] for name in after)
    for size in (256, 512):
        head = ImageHead.from_pretrained(trainer.folder / f"head-{size}")
        assert 2 * head.config.size == size
    assert (trainer.folder / "sheet.png").is_file()


def test_cached_faces_train_the_small_head_alone(heads, cache, monkeypatch):
    """The same latents give the same map, and the cached picture is what the generator draws."""
    monkeypatch.setattr("studio.training.heads.HELD_OUT", 2)
    trainer = heads(faces=SyntheticFaces(cache))
    assert list(trainer.heads) == [5]
    maps, pictures, w = trainer.cached(torch.tensor([3]))
    drawn_maps, drawn = trainer.maps_and_pictures(trainer.faces.latents[3:4])
    assert torch.equal(maps[5], drawn_maps[5]) and w.shape == (1, 16, 512)
    # The cache was drawn in float32 and kept in 8 bits; a saturated toy may turn a pixel over in bfloat16.
    assert ((pictures - target(drawn, 256).clamp(-1, 1)).abs() > 0.05).float().mean() < 0.03
    before = trainer.heads[5].to_image.weight.clone()
    assert set(trainer.update()) == set(trainer.measure()) == {"256 px"}
    assert not torch.equal(trainer.heads[5].to_image.weight, before)


def test_a_head_is_trained_further_alone_from_where_it_was(heads, monkeypatch):
    monkeypatch.setattr("studio.training.heads.HELD_OUT", 2)
    first = heads()
    first.run()
    reached = first.measure()["512 px"]
    second = heads("further", known=ImageHead.from_pretrained(first.folder / "head-512"))
    assert second.measure() == {"512 px": pytest.approx(reached, abs=1e-3)}
    second.run()
    assert second.measure()["512 px"] > reached
    assert (second.folder / "head-512").is_dir() and not (second.folder / "head-256").exists()


def test_heads_resume_to_the_bit(heads):
    straight, first, second = heads("straight"), heads("stopped"), heads("stopped")
    for _ in range(3):
        straight.update()
    first.update()
    first.save()
    second.resume()
    for _ in range(2):
        second.update()
    for start, head in straight.heads.items():
        other = second.heads[start].state_dict()
        assert all(torch.equal(value, other[name]) for name, value in head.state_dict().items())


# ---- checkpoints


def test_checkpoint_parts_stay_small(tmp_path):
    tensors = {f"t{i}": torch.full((600, 1024), float(i)) for i in range(13)}  # 2.5 MB each
    checkpoints.save(tmp_path / "c", tensors, {"step": 3})
    parts = sorted((tmp_path / "c").glob("part-*.safetensors"))
    assert len(parts) == 3
    assert max(part.stat().st_size for part in parts) < 15_100_000
    loaded, state = checkpoints.load(tmp_path / "c")
    assert state == {"step": 3}
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())


def test_checkpoint_replaces_the_old_one_as_a_whole(tmp_path):
    folder = tmp_path / "c"
    checkpoints.save(folder, {f"t{i}": torch.zeros(2_000_000) for i in range(3)}, {"step": 1})
    checkpoints.save(folder, {"t": torch.ones(1)}, {"step": 2})
    tensors, state = checkpoints.load(folder)
    assert (list(tensors), state) == (["t"], {"step": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_kill_while_saving_costs_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "c"
    checkpoints.save(folder, {"t": torch.ones(1)}, {"step": 1})

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(folder, {"t": torch.zeros(1)}, {"step": 2})
    assert checkpoints.load(folder)[1] == {"step": 1}
    folder.rename(tmp_path / "c.old")  # killed between the two renames
    assert checkpoints.load(folder)[1] == {"step": 1}
    checkpoints.save(folder, {"t": torch.zeros(1)}, {"step": 3})  # and what was left over is no hindrance
    assert checkpoints.load(folder)[1] == {"step": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_no_checkpoint(make, tmp_path):
    with pytest.raises(WeightsError, match="state"):
        checkpoints.load(tmp_path)
    with pytest.raises(WeightsError, match="state"):
        make().resume()


# ---- what the command line calls


def test_presets_are_named_as_they_are_found():
    for name, preset in PRESETS.items():
        assert run.find_preset(name) is preset
        assert preset.name == name
    with pytest.raises(InputError, match="preset must be one of restore,"):
        run.find_preset("restor")


def test_bad_arguments_of_a_training(tmp_path):
    with pytest.raises(InputError, match="preset"):
        run.train("nothing", tmp_path, tmp_path)
    with pytest.raises(InputError, match="cache and start"):
        run.train_heads(tmp_path / "heads", 8, cache=tmp_path, start=tmp_path)
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(InputError, match="--resume"):
        run.train("restore-tiny", tmp_path, tmp_path)


@pytest.fixture
def toy_store(monkeypatch):
    """The weight store and the restorer, at toy size."""
    monkeypatch.setattr(weights, "path", lambda name: name)
    monkeypatch.setattr(
        Generator, "from_pretrained", classmethod(lambda cls, folder, dtype=None: generator().to(dtype))
    )
    monkeypatch.setattr(IdentityNet, "from_pretrained", classmethod(lambda cls, folder: tiny.identity_net()))
    monkeypatch.setattr(ImageHead, "from_pretrained", classmethod(lambda cls, folder: image_head()))
    monkeypatch.setattr(FaceMesh, "from_pretrained", classmethod(lambda cls, folder: tiny.face_mesh()))
    monkeypatch.setattr(run, "SHARD", FACES)


def test_unknown_device(toy_store, cache, tmp_path):
    with pytest.raises(InputError, match="device"):
        run.train("restore-tiny", tmp_path / "run", cache, device="abacus")
    with pytest.raises(InputError, match="device"):
        run.make_faces(1, cache, "abacus")


def test_make_faces_rounds_up_to_shards(toy_store, tmp_path):
    said = []
    run.make_faces(FACES + 1, tmp_path, "cpu", said.append)
    assert said == [f"{FACES} of {2 * FACES} faces", f"{2 * FACES} of {2 * FACES} faces"]
    assert len(SyntheticFaces(tmp_path)) == 2 * FACES


def test_export_halves_the_size(make, tmp_path):
    trainer = make()
    trainer.averaged().save_pretrained(trainer.folder / "restorer")
    run.export(trainer.folder, tmp_path / "out")
    stored = load_file(tmp_path / "out" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    net = Restorer.from_pretrained(tmp_path / "out")
    assert net.dtype == torch.float32
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, trainer.average[name], atol=1e-3, rtol=1e-3)


def test_grid_loss_sees_what_repeats_from_cell_to_cell():
    photo = tiny.image(256, 256, seed=3)[None]
    rows = torch.arange(256) % 4
    grid = 0.03 * ((rows[:, None] + rows[None]) % 4 - 1.5)
    noise = grid.flatten()[torch.randperm(256 * 256, generator=torch.Generator().manual_seed(0))].view(256, 256)
    assert grid_loss(photo, photo) == 0
    assert grid_loss(photo + grid, photo + grid) == 0  # the target's own
    assert grid_loss(photo + grid, photo, cells=(4,)) > 4 * grid_loss(photo + noise, photo, cells=(4,))
    assert grid_loss(photo + grid, photo) > 2.5 * grid_loss(photo + noise, photo)
    assert grid_loss(photo + grid, photo) > 0.5 * grid.std()
    rng = torch.Generator().manual_seed(1)
    drifting = 0.03 * torch.randn(16, 16, 8, 8, generator=rng).repeat(1, 1, 2, 2)  # another grid in every 16 px
    drifting = drifting.permute(0, 2, 1, 3).reshape(256, 256)
    assert grid_loss(photo + drifting, photo, cells=(2,)) > 1.3 * grid_loss(photo + drifting, photo, cells=(4,))
