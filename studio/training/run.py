"""Assembles a training from the weight store, a cache of generated faces and a folder of photographs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from studio import weights
from studio.device import pick_device
from studio.errors import InputError
from studio.networks.generator import Generator
from studio.networks.identity import IdentityNet
from studio.networks.restorer import Restorer
from studio.training.data import SHARD, SyntheticFaces, held_out, load_real_faces, make_shard
from studio.training.loop import Trainer
from studio.training.presets import PRESETS, Preset


def find_preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        InputError: unknown name.
    """
    if name not in PRESETS:
        raise InputError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}: choose one of them")
    return PRESETS[name]


def make_faces(count: int, cache: Path, device: str = "auto", report: Callable[[str], None] = print) -> None:
    """Fill a cache with at least `count` generated faces; shards that are there are kept."""
    generator = Generator.from_pretrained(weights.path("generator"), dtype=torch.bfloat16)
    generator.to(pick_device(device), memory_format=torch.channels_last)
    shards = -(-count // SHARD)
    for number in range(shards):
        make_shard(generator, number, cache)
        report(f"{(number + 1) * SHARD} of {shards * SHARD} faces")


def make_trainer(
    preset: Preset,
    folder: Path,
    cache: Path,
    photos: Path | None,
    device: str = "auto",
    report: Callable[[str], None] = print,
) -> Trainer:
    """A trainer of the restorer with fresh weights (seeded by the preset).

    Args:
        preset: what to train.
        folder: where checkpoints and samples go.
        cache: generated faces, see `make_faces`.
        photos: a folder with `aligned_clean/` and `portraits/` (the latter are never trained on); None trains on
            generated faces alone.
        device: "auto", "cpu" or "cuda".
        report: receives log lines.
    """
    torch.manual_seed(preset.seed)
    real = load_real_faces(photos / "aligned_clean", held_out(photos)) if photos else None
    return Trainer(
        preset,
        Restorer(),
        Generator.from_pretrained(weights.path("generator")),
        IdentityNet.from_pretrained(weights.path("identity")),
        SyntheticFaces(cache),
        real,
        folder,
        pick_device(device),
        report,
    )


def train(
    preset: str,
    folder: Path,
    cache: Path,
    photos: Path | None = None,
    minutes: float | None = None,
    resume: bool = False,
    device: str = "auto",
    report: Callable[[str], None] = print,
) -> None:
    """Train a preset, or go on with it.

    Args:
        preset: name in `PRESETS`.
        folder: of the training; must be new or empty unless `resume`.
        cache: see `make_trainer`.
        photos: see `make_trainer`.
        minutes: stop after these; None trains to the preset's end.
        resume: continue the checkpoint in `folder`.
        device: see `make_trainer`.
        report: see `make_trainer`.
    """
    chosen = find_preset(preset)
    if not resume and (folder / "checkpoint").exists():
        raise InputError(f"{folder} must hold no training yet: pass --resume to go on with it, or another folder")
    trainer = make_trainer(chosen, folder, cache, photos, device, report)
    if resume:
        trainer.resume()
    else:
        trainer.measure_targets()
    report(f"{len(trainer.synthetic)} generated faces, {0 if trainer.real is None else len(trainer.real)} real ones")
    trainer.run(minutes)


def export(folder: Path, target: Path) -> None:
    """Write the averaged weights of a training in half precision, as a network's folder.

    Args:
        folder: of the training.
        target: folder to write; its weights are replaced.
    """
    net = Restorer.from_pretrained(folder / "restorer")
    net.to(torch.float16).save_pretrained(target)
