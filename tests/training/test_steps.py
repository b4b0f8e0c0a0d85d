"""Trainings of the flow of the map and of the cleaner: what they learn from, that they learn, and that they resume."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.errors import InputError
from studio.networks.cleaner import Cleaned
from studio.networks.map_flow import MapFlow
from studio.tone import luma
from studio.training import cleaner as cleaning
from studio.training import map_flow as flows
from studio.training import run
from studio.training.cleaner import CleanerTrainer
from studio.training.map_flow import MapFlowTrainer
from tests import tiny


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Sums are the same to the bit only when they are made in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def maps(folder, count=64):
    """Faces whose regressed map is half of their own."""
    rng = torch.Generator().manual_seed(0)
    face = torch.randn(count, 4, 8, 8, generator=rng).mul(24).clamp(-127, 127).to(torch.int8)
    seen = torch.randint(256, (count, 3, 64, 64), generator=rng).byte()
    folder.mkdir(exist_ok=True)
    save_file({"face": face, "regressed": face // 2, "seen": seen}, folder / "maps-00000.safetensors")
    return folder


def flow_trainer(folder, held, steps=60):
    torch.manual_seed(0)
    net = MapFlow(8, 4, 64, 16, stem_width=8, noise=0.1)
    return MapFlowTrainer(net, folder, steps, 8, 3e-3, lambda _: None, maps=held)


def cleaner_trainer(folder, pairs, steps=60):
    return CleanerTrainer(tiny.cleaner(), folder, steps, 2, 3e-3, lambda _: None, pairs=pairs)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    pictures = torch.stack([tiny.sharp_photo(seed=seed)[:, :64, :64] for seed in range(6)])
    cleaning.write_pairs(folder / "clean-0.safetensors", (pictures * 255).byte(), seed=1)
    return folder


# ---- what is learnt from


def test_principal_components_are_those_of_the_maps():
    generator = tiny.varied_generator()
    latents = torch.randn(16, 2, generator.config.style_dim, generator=torch.Generator().manual_seed(0))
    mean, basis, spread = flows.principal_components(generator, latents, 3)
    net = MapFlow(len(mean), 3, 64, 8, stem_width=8)
    for buffer, value in zip((net.mean, net.basis, net.spread), (mean, basis, spread), strict=True):
        buffer.copy_(value)
    w = flows.expand_latents(latents)[:, : generator.num_slots]
    components = net.whiten(generator.features(w, flows.START_BLOCK)).movedim(1, 0).flatten(1)
    torch.testing.assert_close(components.mean(1), torch.zeros(3), atol=2e-2, rtol=0)
    torch.testing.assert_close(components @ components.T / components.shape[1], torch.eye(3), atol=5e-2, rtol=0)


def test_pairs_differ_by_damage_and_hang_on_the_seed_alone(pairs, tmp_path):
    held = load_file(pairs / "clean-0.safetensors")
    assert held["clean"].shape == held["damaged"].shape == (6, 3, 64, 64)
    assert (held["clean"].int() - held["damaged"].int()).abs().float().mean() > 1
    pictures = torch.stack([tiny.sharp_photo(seed=seed)[:, :64, :64] for seed in range(6)])
    cleaning.write_pairs(tmp_path / "again.safetensors", (pictures * 255).byte(), seed=1)
    assert torch.equal(load_file(tmp_path / "again.safetensors")["damaged"], held["damaged"])


def test_what_has_faded_is_learnt_in_its_faded_colours():
    clean = tiny.sharp_photo()[:, :128, :128]
    faded = luma(clean[None])[0] * torch.tensor([0.8, 0.7, 0.5]).view(3, 1, 1) + 0.1
    wanted = cleaning.with_tone_of(clean, faded)
    assert float((wanted - faded).abs().mean()) < 0.02 < float((clean - faded).abs().mean())


def test_certainty_is_asked_for_octave_by_octave():
    clean = torch.rand(1, 3, 64, 64)
    sure, unsure = torch.full((1, 4, 16, 16), 0.999), torch.full((1, 4, 16, 16), 0.001)
    assert float(cleaning.certainty_loss(Cleaned(clean, sure), clean)) < 1e-4
    blurred = torch.nn.functional.avg_pool2d(clean, 16, 1, padding=8)[..., :64, :64]
    assert float(cleaning.certainty_loss(Cleaned(blurred, unsure), clean)) < 0.05
    assert float(cleaning.certainty_loss(Cleaned(blurred, sure), clean)) > 1


# ---- learning and going on


def test_the_flow_learns(tmp_path):
    trainer = flow_trainer(tmp_path / "run", maps(tmp_path / "maps"), steps=120)
    before = float(trainer.losses(trainer.examples(10_000))["velocity"].detach())
    trainer.run()
    after = float(trainer.losses(trainer.examples(10_000))["velocity"].detach())
    assert after < 0.7 * before
    assert isinstance(MapFlow.from_pretrained(tmp_path / "run" / "map_flow"), MapFlow)


def test_the_cleaner_learns(pairs, tmp_path):
    trainer = cleaner_trainer(tmp_path / "run", pairs, steps=80)

    def cost():
        return sum(float(value.detach()) for value in trainer.losses(trainer.examples(10_000)).values())

    before = cost()
    trainer.run()
    assert cost() < 0.95 * before


@pytest.mark.parametrize("kind", ["flow", "cleaner"])
def test_going_on_is_the_same_to_the_bit(kind, tmp_path, pairs):
    held = maps(tmp_path / "maps")
    make = (
        (lambda folder: flow_trainer(folder, held))
        if kind == "flow"
        else (lambda folder: cleaner_trainer(folder, pairs))
    )
    whole, first, second = (make(tmp_path / name) for name in ("whole", "parts", "parts"))
    for _ in range(4):
        whole.update()
    for _ in range(2):
        first.update()
    first.save()
    second.resume()
    assert second.step == 2
    for _ in range(2):
        second.update()
    for mine, other in zip(second.average.state_dict().values(), whole.average.state_dict().values(), strict=True):
        assert torch.equal(mine, other)


def test_nothing_to_learn_from_is_refused(tmp_path):
    with pytest.raises(InputError, match="run `studio train maps`"):
        run.train_map_flow(tmp_path / "run", tmp_path / "maps", 10)
    with pytest.raises(InputError, match="run `studio train pairs`"):
        run.train_cleaner(tmp_path / "run", tmp_path / "pairs", 10)


def test_an_export_in_rows_is_half_as_large(tmp_path):
    trainer = flow_trainer(tmp_path / "run", maps(tmp_path / "maps"))
    trainer.save()
    for name, rows in (("half", False), ("byte", True)):
        run.export(tmp_path / "run", tmp_path / name, rows=rows)
    sizes = [next((tmp_path / name).glob("*.safetensors")).stat().st_size for name in ("half", "byte")]
    assert sizes[1] < 0.75 * sizes[0]
    MapFlow.from_pretrained(tmp_path / "byte")
