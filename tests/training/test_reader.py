"""Training the reader of identities, on toy pairs."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.errors import InputError
from studio.networks.latent_reader import LatentReader
from studio.training import run
from studio.training.reader import apart, train_reader

SMALL = {"width": 32, "depth": 1, "dropout": 0.0}


def pairs(count=2000):
    """The identity is the square of a number in the latent, which no regression finds."""
    rng = torch.Generator().manual_seed(0)
    w = torch.randn(count, 8, generator=rng)
    return w, w[:, :1].square() * torch.randn(1, 4, generator=rng), torch.arange(count) % 25 == 0


def quietly(*_):
    pass


def test_learns_what_is_not_linear_and_logs_it(tmp_path):
    w, identities, held = pairs()
    settings = {"learning_rate": 4e-3, "config": SMALL, "report": quietly}
    before = train_reader(w, identities, held, tmp_path / "none", steps=0, **settings)
    after = train_reader(w, identities, held, tmp_path / "some", steps=300, **settings)
    assert apart(after, w[held], identities[held]) < 0.5 * apart(before, w[held], identities[held])
    log = (tmp_path / "some" / "log.txt").read_text().splitlines()
    assert [line.split()[1] for line in log] == ["0", "250", "300"]


def test_the_same_seed_gives_the_same_network(tmp_path):
    one, two = (
        train_reader(*pairs(200), tmp_path / name, steps=3, config=SMALL, report=quietly).state_dict() for name in "ab"
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_command_trains_and_exports(tmp_path):
    w, identities, _ = pairs(60)
    (tmp_path / "cache").mkdir()
    save_file({"latents": w, "descriptors": identities}, tmp_path / "cache" / "identities-00000.safetensors")
    run.read_identities(tmp_path / "run", tmp_path / "cache", 2, report=quietly)
    run.export(tmp_path / "run", tmp_path / "exported")
    assert isinstance(LatentReader.from_pretrained(tmp_path / "exported"), LatentReader)
    saved = load_file(tmp_path / "exported" / "diffusion_pytorch_model.safetensors")
    assert saved["leave.weight"].dtype == torch.float16


def test_exports_the_mean_of_two(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        torch.manual_seed(seed)
        LatentReader(dim=8, identity_dim=4, **SMALL).half().save_pretrained(tmp_path / name)
    LatentReader(dim=9, identity_dim=4, **SMALL).half().save_pretrained(tmp_path / "larger")
    run.export(tmp_path / "a", tmp_path / "mean", tmp_path / "b")
    a, b, mean = (load_file(tmp_path / name / "diffusion_pytorch_model.safetensors") for name in ("a", "b", "mean"))
    assert not torch.equal(a["enter.weight"], b["enter.weight"])
    assert all(torch.equal(mean[name], ((a[name].float() + b[name].float()) / 2).half()) for name in mean)
    with pytest.raises(InputError, match="its size differs"):
        run.export(tmp_path / "a", tmp_path / "mean", tmp_path / "larger")
