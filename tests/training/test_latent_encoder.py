"""Training the latent encoder at toy size: it learns, and goes on where it stopped."""

import pytest
import torch
from safetensors.torch import save_file

from studio.networks.latent_encoder import LatentEncoder
from studio.training import latent_encoder as module
from studio.training.data import SyntheticFaces
from studio.training.latent_encoder import EncoderTrainer, damage
from studio.training.run import export
from tests import tiny


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes trainers on 40 faces whose brightness is the first number of their latent."""
    monkeypatch.setattr(module, "HELD_OUT", 8)
    rng = torch.Generator().manual_seed(0)
    latents = torch.rand(40, 2, 8, generator=rng)
    faces = (latents[:, 0, :3, None, None] * 255).byte().expand(-1, -1, 256, 256).contiguous()
    (tmp_path / "cache").mkdir()
    save_file({"images": faces, "latents": latents}, tmp_path / "cache" / "faces-00000.safetensors")

    def trainer(name="run", **settings):
        torch.manual_seed(0)
        net = LatentEncoder(size=32, widths=(16,) * 4, hidden=16, latent_dim=8)
        settings = {"images": 400, "batch": 9, "learning_rate": 0.01, "report": lambda line: None, **settings}
        return EncoderTrainer(SyntheticFaces(tmp_path / "cache"), tiny.latent_space(), tmp_path / name, net, **settings)

    return trainer


def test_learns(make):
    trainer = make(images=1800)
    before = trainer.measure()
    trainer.run()
    assert trainer.measure() < 0.8 * before


def test_resuming_is_exact(make, tmp_path):
    whole, half = make("whole"), make("half")
    for _ in range(4):
        whole.update()
    for _ in range(2):
        half.update()
    half.save()
    rest = make("half")
    rest.resume()
    for _ in range(2):
        rest.update()
    for a, b in zip(whole.net.parameters(), rest.net.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    export(tmp_path / "half" / "latent-encoder", tmp_path / "out")
    assert LatentEncoder.from_pretrained(tmp_path / "out").config.size == 32


def test_damage_stays_in_range_and_blurs():
    faces = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    done = damage(faces, torch.Generator().manual_seed(1))
    assert done.shape == faces.shape
    assert done.min() >= 0 and done.max() <= 1
    assert not torch.equal(done, faces)
