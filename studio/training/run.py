"""Assembles a training from the weight store, a cache of generated faces and a folder of photographs."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from studio import images, weights
from studio.device import pick_device
from studio.errors import InputError, WeightsError
from studio.networks.cleaner import Cleaner
from studio.networks.depth import DepthNet
from studio.networks.finder import FinderNet
from studio.networks.frontalizer import Frontalizer
from studio.networks.generator import Generator
from studio.networks.identity import IdentityNet
from studio.networks.image_head import ImageHead
from studio.networks.latent_encoder import LatentEncoder
from studio.networks.latent_flow import LatentFlow
from studio.networks.latent_reader import LatentReader
from studio.networks.latent_space import LatentSpace
from studio.networks.loading import CONFIG_NAME, WEIGHTS_STEM, StrictModel
from studio.networks.map_flow import MapFlow
from studio.networks.mesh import FaceMesh
from studio.networks.reenactor import Reenactor
from studio.networks.restorer import START_BLOCK, Restorer
from studio.networks.rows import save_rows
from studio.photosets import an_eighth, held_out
from studio.training.acted import load_acted
from studio.training.cleaner import CleanerTrainer
from studio.training.clusters import choose_atoms
from studio.training.data import SHARD, SIZE, SyntheticFaces, load_real_faces, make_shard
from studio.training.depth import DepthTrainer
from studio.training.finder import FinderTrainer, load_bank, make_bank
from studio.training.flow import FlowTrainer
from studio.training.frontalizer import Drawing, FrontalTrainer
from studio.training.heads import HeadTrainer
from studio.training.heads_of import load_heads, make_heads
from studio.training.identities import load_identities
from studio.training.latent_encoder import EncoderTrainer
from studio.training.lent import FIRST, POOL, Damagers, Drawn, DrawnPart, Stream
from studio.training.loop import Trainer
from studio.training.map_flow import MapFlowTrainer, fit, make_maps
from studio.training.presets import FINDER, PRESETS, Preset
from studio.training.reader import train_reader
from studio.training.reenactor import ReenactorTrainer
from studio.training.scenes import Faceless, Scenes
from studio.training.turned import load_turned

NEW = "new-flow"  # beside its maps: a flow that knows their components, and nothing else
ADDED = ("to_spatial.", "to_fine.", "to_styles.", "dictionary.")  # parts of the restorer that earlier weights may lack
SMALLEST_OLD = 128  # px, of old faces
CANDIDATES = 1024  # generated faces that atoms are chosen from


def find_preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        InputError: unknown name.
    """
    if name not in PRESETS:
        raise InputError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}: choose one of them")
    return PRESETS[name]


def make_faces(
    count: int, cache: Path, device: str = "auto", report: Callable[[str], None] = print, size: int = SIZE
) -> None:
    """Fill a cache with at least `count` generated faces of `size` px; shards that are there are kept."""
    generator = Generator.from_pretrained(weights.path("generator"), dtype=torch.bfloat16)
    generator.to(pick_device(device), memory_format=torch.channels_last)
    shards = -(-count // SHARD)
    for number in range(shards):
        make_shard(generator, number, cache, size)
        report(f"{(number + 1) * SHARD} of {shards * SHARD} faces")


def make_trainer(
    preset: Preset,
    folder: Path,
    cache: Path,
    photos: Path | None,
    device: str = "auto",
    report: Callable[[str], None] = print,
    start: Path | None = None,
    accumulate: int = 1,
) -> Trainer:
    """A trainer of the restorer, its new weights seeded by the preset.

    Args:
        preset: what to train.
        folder: where checkpoints and samples go.
        cache: generated faces, see `make_faces`.
        photos: a folder with `aligned_clean/` and `portraits/` (the latter are never trained on), for presets with old
            photographs also `aligned_old/`; None trains on generated faces alone.
        device: "auto", "cpu" or "cuda".
        report: receives log lines.
        start: folder of weights to begin with, in place of the preset's own.
        accumulate: batches of each process in a step.
    """
    torch.manual_seed(preset.seed)
    real = load_real_faces(photos / "aligned_clean", held_out(photos)) if photos else None
    old = load_old_faces(photos / "aligned_old") if photos and preset.old_share else None
    generator = Generator.from_pretrained(weights.path("generator"))
    synthetic = SyntheticFaces(cache)
    return Trainer(
        preset,
        make_restorer(preset, generator, synthetic, start),
        generator,
        IdentityNet.from_pretrained(weights.path("identity")),
        synthetic,
        real,
        folder,
        ImageHead.from_pretrained(weights.path(preset.head)),
        FaceMesh.from_pretrained(weights.path("mesh")),
        pick_device(device),
        report,
        old,
        accumulate,
    )


def load_old_faces(folder: Path) -> Tensor:
    """Old aligned faces (N,3,256,256) uint8 to train on, from 128 px on; an eighth is kept for measuring."""
    return load_real_faces(folder, an_eighth(path.stem for path in folder.iterdir()), SMALLEST_OLD)


def make_restorer(
    preset: Preset, generator: Generator, synthetic: SyntheticFaces, start: Path | None = None
) -> Restorer:
    """The preset's network, with the weights that it starts from where there are any: those in `start`, or its own.

    The parts that those lack start without effect; a new dictionary is filled with some of the generated faces.

    Raises:
        WeightsError: the weights to start from hold a tensor that does not fit.
    """
    channels = generator.config.channels[START_BLOCK + 1 :]
    net = Restorer(
        spatial_channels=tuple(channels[:2]) if preset.spatial else (),
        fine_channels=channels[2] if preset.fine else 0,
        style_slots=preset.style_slots,
        atoms=preset.atoms,
    )
    missing = list(net.state_dict())
    if start or preset.start:
        known = Restorer.from_pretrained(start or weights.path(preset.start)).state_dict()
        missing, unexpected = net.load_state_dict(known, strict=False)
        wrong = [name for name in missing if not name.startswith(ADDED)] + list(unexpected)
        if wrong:
            source = start or preset.start
            raise WeightsError(f"{source} must fit the restorer, {', '.join(wrong[:3])} do not: start afresh")
    if "dictionary.latents" in missing:
        structures = synthetic.latents[:CANDIDATES, 0]
        net.dictionary.latents.copy_(choose_atoms(generator, structures, preset.atoms, START_BLOCK, preset.seed))
    return net


def train(
    preset: str,
    folder: Path,
    cache: Path,
    photos: Path | None = None,
    minutes: float | None = None,
    resume: bool = False,
    device: str = "auto",
    report: Callable[[str], None] = print,
    start: Path | None = None,
    accumulate: int = 1,
) -> None:
    """Train a preset, or go on with it; alone, or with the other processes of `accelerate launch`.

    Args:
        preset: name in `PRESETS`.
        folder: of the training; must be new or empty unless `resume`.
        cache: see `make_trainer`.
        photos: see `make_trainer`.
        minutes: stop after these; None trains to the preset's end.
        resume: continue the checkpoint in `folder`.
        device: see `make_trainer`.
        report: see `make_trainer`.
        start: see `make_trainer`; of no effect with `resume`.
        accumulate: see `make_trainer`.
    """
    chosen = find_preset(preset)
    check_folder(folder, resume)
    trainer = make_trainer(chosen, folder, cache, photos, device, report, start, accumulate)
    if resume:
        trainer.resume()
    elif not (start or chosen.start):
        trainer.measure_targets()
    real, old = (0 if faces is None else len(faces) for faces in (trainer.real, trainer.old))
    if trainer.team.leads:
        report(f"{len(trainer.synthetic)} generated faces, {real} real ones, {old} old ones")
    trainer.run(minutes)
    trainer.team.end()


def train_heads(
    folder: Path,
    images: int,
    cache: Path | None = None,
    minutes: float | None = None,
    resume: bool = False,
    device: str = "auto",
    report: Callable[[str], None] = print,
    start: Path | None = None,
) -> None:
    """Distil the image heads, or go on with it.

    Args:
        folder: of the training; must hold none yet unless `resume`.
        cache: generated faces, see `make_faces`; the 256 px head alone is then trained. None draws faces for both.
        images: faces of the whole training.
        minutes: stop after these; None trains to the end.
        resume: continue the checkpoint in `folder`.
        device: "auto", "cpu" or "cuda".
        report: receives log lines.
        start: folder of a head to train further, alone, at a quarter of the rate; of new faces only.

    Raises:
        InputError: both `cache` and `start`.
    """
    if cache and start:
        raise InputError("cache and start can't be had both: a head is trained further on new faces")
    check_folder(folder, resume)
    generator = Generator.from_pretrained(weights.path("generator"), dtype=torch.bfloat16)
    faces = SyntheticFaces(cache) if cache else None
    known = ImageHead.from_pretrained(start) if start else None
    rate = HeadTrainer.learning_rate / (4 if start else 1)
    trainer = HeadTrainer(
        generator, folder, faces, known, images, learning_rate=rate, device=pick_device(device), report=report
    )
    go_on(trainer, resume, minutes)


def train_encoder(
    folder: Path,
    images: int,
    cache: Path,
    minutes: float | None = None,
    resume: bool = False,
    device: str = "auto",
    report: Callable[[str], None] = print,
) -> None:
    """Train the latent encoder, or go on with it; arguments as of `train_heads`, with a cache that there must be."""
    check_folder(folder, resume)
    device = pick_device(device)
    torch.manual_seed(0)
    net = LatentEncoder()
    space = LatentSpace.from_pretrained(weights.path("directions")).to(device)
    trainer = EncoderTrainer(SyntheticFaces(cache), space, folder, net, images, device=device, report=report)
    go_on(trainer, resume, minutes)


def train_flow(
    folder: Path,
    cache: Path,
    steps: int,
    minutes: float | None = None,
    resume: bool = False,
    report: Callable[[str], None] = print,
) -> None:
    """Train the latent flow, or go on with it.

    Args:
        folder: of the training; must hold none yet unless `resume`.
        cache: pairs, see `studio.training.identities.make_identities`.
        steps: of the whole training.
        minutes: stop after these; None trains to the end.
        resume: continue the checkpoint in `folder`.
        report: receives log lines.
    """
    check_folder(folder, resume)
    latents, descriptors, held = load_identities(cache)
    space = LatentSpace.from_pretrained(weights.path("directions"))
    trainer = FlowTrainer(latents, descriptors, held, space, folder, steps, report=report)
    if resume:
        trainer.resume()
    trainer.say(f"{len(latents)} pairs, {len(trainer.kept)} of them to train on")
    trainer.run(minutes)


def read_identities(folder: Path, cache: Path, steps: int, report: Callable[[str], None] = print) -> None:
    """Train the network that reads an identity from a latent; arguments as of `train_flow`."""
    train_reader(*load_identities(cache), folder, steps, report=report)


def train_frontal(
    folder: Path,
    cache: Path,
    steps: int,
    drawn: bool = True,
    minutes: float | None = None,
    resume: bool = False,
    report: Callable[[str], None] = print,
    without: Sequence[str] = (),
) -> None:
    """Train the two-pathway network, or go on with it.

    Args:
        folder: of the training; must hold none yet unless `resume`.
        cache: turned faces, see `studio.training.turned.make_turned`.
        steps: of the whole training.
        drawn: whether some predicted fronts are drawn, with gradients through the generator.
        minutes: stop after these; None trains to the end.
        resume: continue the checkpoint in `folder`.
        report: receives log lines.
        without: terms of the loss to leave out, see `FrontalTrainer`.

    Raises:
        InputError: no such term.
    """
    check_folder(folder, resume)
    turned = load_turned(cache)
    space = LatentSpace.from_pretrained(weights.path("directions"))
    reader = LatentReader.from_pretrained(weights.path("reader"))
    drawing = Drawing.from_pretrained() if drawn else None
    trainer = FrontalTrainer(turned, space, reader, folder, drawing, steps, without=tuple(without), report=report)
    if resume:
        trainer.resume()
    people, kept, held = len(turned.held), len(trainer.kept), len(trainer.measured)
    trainer.say(f"{people} people; {kept} pictures to train on, {held} to measure on")
    trainer.run(minutes)


def make_finder_faces(
    folder: Path, cache: Path, photos: Path | None = None, report: Callable[[str], None] = print
) -> None:
    """Label the faces that the face finder learns from, see `make_bank`."""
    make_bank(folder, cache, photos, FINDER.turned, report)


def train_finder(
    folder: Path,
    bank: Path,
    pictures: Path,
    scenes: int | None = None,
    minutes: float | None = None,
    resume: bool = False,
    device: str = "auto",
    report: Callable[[str], None] = print,
) -> None:
    """Train the face finder, or go on with it.

    Args:
        folder: of the training; must hold none yet unless `resume`.
        bank: labelled faces, see `make_finder_faces`.
        pictures: images without faces, and things cut out (PNG with transparency), searched through; an eighth of them,
            by the name, is kept for measuring.
        scenes: of the whole training; None takes the preset's.
        minutes: stop after these; None trains to the end.
        resume: continue the checkpoint in `folder`.
        device: "auto", "cpu" or "cuda".
        report: receives log lines.
    """
    check_folder(folder, resume)
    preset = replace(FINDER, scenes=scenes or FINDER.scenes)
    paths = images.find_images([pictures])
    measured = an_eighth(path.stem for path in paths)
    faceless = Faceless([path for path in paths if path.stem not in measured])
    torch.manual_seed(preset.seed)
    faces = load_bank(bank, dict(preset.faces))
    trainer = FinderTrainer(
        preset, Scenes(faces, faceless), folder, FinderNet(folded=False), pick_device(device), report
    )
    if resume:
        trainer.resume()
    report(f"{len(faces)} faces, {len(faceless.whole)} pictures and {len(faceless.things)} things without any")
    trainer.run(minutes)


def make_flow_maps(folder: Path, cache: Path, report: Callable[[str], None] = print) -> None:
    """What the flow of the generator's map learns from, see `make_maps`; the flow that fits it is kept there, too."""
    generator = Generator.from_pretrained(weights.path("generator"), dtype=torch.bfloat16)
    restorer = Restorer.from_pretrained(weights.path("restore")).to(memory_format=torch.channels_last)
    new = folder / NEW
    if (new / CONFIG_NAME).is_file():
        net = MapFlow.from_pretrained(new)
    else:
        torch.manual_seed(0)
        net = MapFlow()
        fit(net, generator, cache)
        net.save_pretrained(new)
    make_maps(folder, cache, generator, restorer, net, report)


def go_on(trainer: Any, resume: bool, minutes: float | None) -> None:
    """Run a trainer, from its checkpoint if it is to be resumed, to the end or for so many minutes.

    `trainer` is a `Loop`, or another with its `resume` and `run`.
    """
    if resume:
        trainer.resume()
    trainer.run(minutes)


def train_map_flow(
    folder: Path,
    maps: Path,
    steps: int,
    minutes: float | None = None,
    resume: bool = False,
    report: Callable[[str], None] = print,
) -> None:
    """Train the flow of the generator's map, or go on with it.

    Args:
        folder: of the training; must hold none yet unless `resume`.
        maps: see `make_flow_maps`.
        steps: of 16 faces, of the whole training.
        minutes: stop after these; None trains to the end.
        resume: continue the checkpoint in `folder`.
        report: receives log lines.
    """
    check_folder(folder, resume)
    if not (maps / NEW / CONFIG_NAME).is_file():
        raise InputError(f"{maps} must hold the maps of generated faces, and holds none: run `studio train maps`")
    trainer = MapFlowTrainer(MapFlow.from_pretrained(maps / NEW), folder, steps, 16, 4e-4, report, maps=maps)
    go_on(trainer, resume, minutes)


def train_cleaner(
    folder: Path,
    pairs: Path,
    steps: int,
    minutes: float | None = None,
    resume: bool = False,
    report: Callable[[str], None] = print,
) -> None:
    """Train the cleaner, or go on with it; as `train_map_flow`, in steps of 8 patches, on the pairs of `make_pairs`."""
    check_folder(folder, resume)
    torch.manual_seed(0)
    trainer = CleanerTrainer(Cleaner(), folder, steps, 8, 1e-3, report, pairs=pairs)
    go_on(trainer, resume, minutes)


def train_depth(
    folder: Path,
    acted: Path,
    steps: int,
    minutes: float | None = None,
    resume: bool = False,
    report: Callable[[str], None] = print,
) -> None:
    """Train the depth network, or go on with it, in steps of 12 pairs of `make_acted`; labels what has no labels yet.

    Raises:
        InputError: nothing to learn from, or a folder with a training that is not to be resumed.
    """
    check_folder(folder, resume)
    faces = load_acted(acted)
    make_heads(acted, report)
    torch.manual_seed(0)
    trainer = DepthTrainer(DepthNet(), folder, steps, 12, 1e-3, report, acted=faces, heads=load_heads(acted))
    go_on(trainer, resume, minutes)


def train_reenactor(
    folder: Path,
    moved: Path,
    steps: int,
    minutes: float | None = None,
    resume: bool = False,
    report: Callable[[str], None] = print,
) -> None:
    """Train the network that draws moved faces, or go on with it, in steps of 8 examples of `make_moved`.

    Raises:
        InputError: nothing to learn from, or a folder with a training that is not to be resumed.
    """
    check_folder(folder, resume)
    torch.manual_seed(0)
    trainer = ReenactorTrainer(Reenactor(), folder, steps, 8, 8e-4, report, cache=moved)
    go_on(trainer, resume, minutes)


def train_lent(
    folder: Path,
    photos: Path,
    seconds: float,
    device: str = "auto",
    pool: int = POOL,
    report: Callable[[str], None] = print,
) -> None:
    """Train the flow of the map and the restorer around it, for so many seconds on a lent GPU; see `lent`.

    Args:
        folder: receives `flow/` and `restore/`, in half precision, in files of 15 MB.
        photos: with `aligned_clean/` and `aligned_studio/`.
        seconds: in all, what it takes to begin counted in.
        device: "auto", "cpu" or "cuda".
        pool: generated faces held on the device, 1.5 MB each.
        report: receives log lines.
    """
    end = time.monotonic() + seconds
    workers = max(1, (os.cpu_count() or 2) - 1)
    damagers = Damagers(workers, 4 * workers)  # first: they are forked, and must not inherit the GPU
    device = pick_device(device)
    torch.set_float32_matmul_precision("high")
    real = [load_real_faces(photos / "aligned_clean", held_out(photos)), load_real_faces(photos / "aligned_studio")]

    def load(kind: type[StrictModel], name: str, dtype: torch.dtype = torch.float32) -> StrictModel:
        return kind.from_pretrained(weights.path(name), dtype=dtype).to(device).requires_grad_(False)

    flow, restorer = load(MapFlow, "map_flow"), load(Restorer, "restore")
    drawing = load(Generator, "generator"), load(ImageHead, "head_512")
    stream = Stream(damagers, *drawing, copy.deepcopy(restorer), copy.deepcopy(flow), torch.cat(real), pool)
    networks = {
        "cleaner": load(Cleaner, "cleaner"),
        "generator": load(Generator, "generator", torch.bfloat16),
        "head": load(ImageHead, "head_512", torch.bfloat16),
        "identity": load(IdentityNet, "identity"),
        "mesh": load(FaceMesh, "mesh"),
    }
    try:
        stream.fill(FIRST)
        drawn = DrawnPart(stream, Drawn(restorer, flow), end - time.monotonic(), 2e-4, report, **networks).run()
        save_half(drawn.flow, folder / "flow")
        save_half(drawn.restorer, folder / "restore")
    finally:
        damagers.close()


def save_half(net: StrictModel, folder: Path) -> None:
    """As `save_pretrained`, in half precision; several files where one would be above 15 MB."""
    copy.deepcopy(net).cpu().half().save_pretrained(folder, max_shard_size="15MB")


def check_folder(folder: Path, resume: bool) -> None:
    """Refuse to start over a training that is there."""
    if not resume and (folder / "checkpoint").exists():
        raise InputError(f"{folder} must hold no training yet: pass --resume to go on with it, or another folder")


def export(
    folder: Path,
    target: Path,
    mean_with: Path | None = None,
    rows: bool = False,
    keep: Sequence[str] = (),
    mean_of: Sequence[str] = (),
) -> None:
    """Write the weights of a training in half precision or less, as a network's folder.

    Args:
        folder: of the network: `RUN` of a restorer's, a flow's, a reader's, a frontalizer's or a finder's training,
            `RUN/head-512`, `RUN/latent-encoder`.
        target: folder to write; its weights are replaced.
        mean_with: folder of the weights that the training began with, or others of that line: the mean of both is
            written (model soups, arXiv 2203.05482).
        mean_of: beginnings of the names that the mean is taken of; all when there are none.
        rows: as int8 in rows, half as large, see `studio.networks.rows`.
        keep: beginnings of names that stay in half precision then.

    Raises:
        InputError: no network there, or two of different sizes.
    """
    inside = [
        folder / name
        for name in ("restorer", "flow", "reader", "frontalizer", "finder", "map_flow", "cleaner")
        if (folder / name).is_dir()
    ]
    source = inside[0] if inside else folder
    if not (source / CONFIG_NAME).is_file():
        raise InputError(f"{folder} must be the folder of a training, and holds no network: train first")
    kind = json.loads((source / CONFIG_NAME).read_text(encoding="utf-8"))["_class_name"]
    kinds = {
        "Restorer": Restorer,
        "ImageHead": ImageHead,
        "LatentEncoder": LatentEncoder,
        "LatentFlow": LatentFlow,
        "LatentReader": LatentReader,
        "Frontalizer": Frontalizer,
        "FinderNet": FinderNet,
        "MapFlow": MapFlow,
        "Cleaner": Cleaner,
    }
    net = kinds[kind].from_pretrained(source).to(torch.float16)
    if mean_with is not None:
        other = kinds[kind].from_pretrained(mean_with).to(torch.float16).state_dict()
        mine = net.state_dict()
        if {name: value.shape for name, value in mine.items()} != {name: value.shape for name, value in other.items()}:
            raise InputError(f"{mean_with} must hold the same network as {folder}, its size differs: leave it out")
        for name, value in mine.items():
            if mean_of and not name.startswith(tuple(mean_of)):
                continue
            value.copy_((value.float() + other[name].float()) / 2)
    net.save_pretrained(target)
    if rows:
        save_rows(net.state_dict(), target / f"{WEIGHTS_STEM}.safetensors", tuple(keep))
