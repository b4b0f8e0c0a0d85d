"""Pairs to learn turning from: the picture of a generated face that looks aside, and the latents of its front.

A person is two latents, of structure and of texture (`studio.training.data`). Turning is done along the direction of
yaw, which makes another person of somebody (0.6 at 45°); steps on the latent reader, which draw nothing, take a part
of that back. The identity vector knows the pose too, so that they also take back some of the turn.
What is left of the difference is measured in the picture, and pairs that are too far apart are not used.

A shard holds `SHARD` people, each with `VIEWS` pictures, and depends on its number alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from studio import weights
from studio.errors import InputError
from studio.faces.align import ffhq_transform, into_crop, warp
from studio.faces.pose import yaw_and_pitch
from studio.latents.measure import MIN_PRESENCE, embed
from studio.networks.latent_reader import LatentReader, nearer
from studio.networks.latent_space import LatentSpace
from studio.training.data import draw_latents, expand_latents
from studio.training.identities import PairMaker, quick_look

SHARD = 128
SIZE = 192  # px of the stored pictures
FIRST_SEED = 9_000_000
VIEWS = 4  # as drawn, from the front, and turned to either side
FRONT = 1
FURTHEST = 60.0  # degrees asked for; holding the person takes a quarter off, so that few sides pass 45
HOLD_STEPS, HOLD_RATE = 15, 0.5
FURTHEST_APART = 0.55  # identity distance of a side to its front; strangers are 0.75 apart
STRAIGHT, NEARLY = 10.0, 25.0  # degrees that a front may be off, and a picture whose front was not drawn
EVERY = 25  # people, one is kept for measuring


@dataclass(frozen=True)
class TurnedFaces:
    """K pictures of P generated people.

    Attributes:
        faces: (K,3,SIZE,SIZE) uint8 RGB, FFHQ-aligned by their own mesh.
        mesh: (K,468,3) float16, in sides of the picture.
        descriptors: (K,E) float32 identity vectors.
        person: (K,) whose picture it is.
        latents: (P,2,D) float32, structure and texture of the front.
        fronts: (P,E) float32 identity vectors of the front.
        held: (P,) bool, people that are kept for measuring.
    """

    faces: Tensor
    mesh: Tensor
    descriptors: Tensor
    person: Tensor
    latents: Tensor
    fronts: Tensor
    held: Tensor


@dataclass(frozen=True)
class Turner:
    """Turns latents and looks at them: the networks that make a pair, frozen."""

    maker: PairMaker
    space: LatentSpace
    reader: LatentReader

    @classmethod
    def from_pretrained(cls) -> Turner:
        """With the weights of the store, on the CPU.

        Raises:
            MissingWeightsError: not here and could not be fetched.
        """
        space = LatentSpace.from_pretrained(weights.path("directions"))
        return cls(PairMaker.from_pretrained(), space, LatentReader.from_pretrained(weights.path("reader")))

    def turned(self, structure: Tensor, degrees: float) -> Tensor:
        """Structure latents (N,D) moved along yaw, then back to the person that the reader sees in them now.

        The steps are taken in Gaussian coordinates, at right angles to the way of the turn.
        """
        moved = structure + degrees * self.space.directions[self.space.number("yaw")]
        start = self.space(moved)
        along = F.normalize(start - self.space(structure), dim=1)

        def latents(way: Tensor) -> Tensor:
            return self.space.latents(start + way - (way * along).sum(1, keepdim=True) * along)

        with torch.no_grad():
            person = self.reader(structure)
        way = nearer(lambda x: self.reader(latents(x)), torch.zeros_like(start), person, HOLD_RATE, HOLD_STEPS)
        return latents(way)

    @torch.no_grad()
    def draw(self, latents: Tensor) -> Tensor:
        """Latents (1,2,D), structure and texture, to a picture (1,3,256,256) in [0,1]."""
        generator = self.maker.generator
        w = expand_latents(latents)[:, : generator.num_slots].to(generator.dtype)
        return (self.maker.head.render(generator, w).float() / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def measure(self, picture: Tensor) -> dict[str, Tensor]:
        """What is kept of a picture (1,3,S,S) in [0,1]: a view of `make_shard`."""
        mesh, presence = quick_look(self.maker.mesh, picture)
        affine = ffhq_transform(mesh.numpy(), SIZE)
        return {
            "faces": (warp(picture, affine, SIZE)[0].clamp(0, 1) * 255).round().byte(),
            "mesh": torch.from_numpy(into_crop(mesh.numpy(), affine, SIZE))[0].half(),
            "descriptors": embed(self.maker.encoder, picture, mesh.numpy())[0].float(),
            "yaw": yaw_and_pitch(mesh)[0, 0],
            "presence": presence[0],
        }

    def person(self, latents: Tensor, asked: Tensor) -> dict[str, Tensor]:
        """One person: (VIEWS,…) of what `measure` gives, and the latents of the front.

        Args:
            latents: (1,2,D) structure and texture, at any angle.
            asked: (VIEWS-2,) degrees of the sides.
        """
        structure, texture = latents[:, 0], latents[:, 1]
        first = self.measure(self.draw(latents))
        front = torch.stack([self.turned(structure, -float(first["yaw"])), texture], 1)
        views = [first, self.measure(self.draw(front))]
        for degrees in asked.tolist():
            side = self.turned(front[:, 0], degrees - float(views[FRONT]["yaw"]))
            views.append(self.measure(self.draw(torch.stack([side, texture], 1))))
        return {name: torch.stack([view[name] for view in views]) for name in first} | {"latents": front[0]}


# ---- shards


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` lies in a cache folder."""
    return folder / f"turned-{number:05d}.safetensors"


def make_shard(turner: Turner, number: int, folder: Path, size: int = SHARD) -> Path:
    """Make a shard of `size` people unless it is there."""
    path = shard_path(folder, number)
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    latents = draw_latents(turner.maker.generator, size, FIRST_SEED + number)
    rng = torch.Generator().manual_seed(FIRST_SEED + number)
    far = FURTHEST * torch.rand(size, VIEWS - 2, generator=rng)
    asked = far * torch.tensor([1.0, -1.0])[: VIEWS - 2]  # one to either side
    rows = [turner.person(one, degrees) for one, degrees in zip(latents.split(1), asked, strict=True)]
    write(path, rows)
    return path


def write(path: Path, rows: list[dict[str, Tensor]]) -> None:
    """People to a file, under a temporary name first, so that a kill leaves no half file."""
    part = path.with_suffix(f".{os.getpid()}.part")
    save_file({name: torch.stack([row[name] for row in rows]).contiguous() for name in rows[0]}, part)
    part.replace(path)


def make_turned(folder: Path, people: int, faces: Path | None = None, report: Callable[[str], None] = print) -> None:
    """Fill a cache with at least so many new people, after those of a cache of faces; shards that are there are kept.

    Raises:
        InputError: a number below 0, or a cache without faces.
    """
    if people < 0:
        raise InputError(f"people must be 0 or more, got {people}: 2,000 make a start")
    turner, start = Turner.from_pretrained(), time.monotonic()
    if faces:
        turn_faces(turner, faces, folder, report)
    shards = -(-people // SHARD)
    for number in range(shards):
        make_shard(turner, number, folder)
        report(f"{(number + 1) * SHARD} of {shards * SHARD} people, {time.monotonic() - start:.0f} s")


def turn_faces(turner: Turner, faces: Path, folder: Path, report: Callable[[str], None] = print) -> None:
    """Take cached training faces (`studio train faces`) in: one picture each, as it is, and latents of its front.

    They cost next to nothing and are nearly all of another person. The front is not drawn: its identity vector is taken
    to be the picture's, which `load_turned` believes up to `NEARLY` degrees.
    """
    paths = sorted(faces.glob("faces-*.safetensors"))
    if not paths:
        raise InputError(f"a cache of generated faces must exist, {faces} holds none: run `studio train faces`")
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        target = folder / f"turned-{path.stem}.safetensors"
        if target.exists():
            continue
        shard, rows = load_file(path), []
        for image, latents in zip(shard["images"].split(1), shard["latents"].float().split(1), strict=True):
            view = turner.measure(image.float() / 255)
            front = torch.stack([turner.turned(latents[:, 0], -float(view["yaw"])), latents[:, 1]], 1)
            rows.append({name: value[None] for name, value in view.items()} | {"latents": front[0]})
        write(target, rows)
        report(f"{path.name}: {len(rows)} faces")


def load_turned(folder: Path) -> TurnedFaces:
    """The pictures of a cache that show who their front shows; every `EVERY`th person of a shard is kept for measuring.

    Raises:
        InputError: no shard there.
    """
    paths = sorted(folder.glob("turned-*.safetensors"))
    if not paths:
        raise InputError(f"a cache of turned faces must exist, {folder} holds none: run `studio train turned`")
    parts: dict[str, list[Tensor]] = {}
    count = 0
    for path in paths:
        shard = load_file(path)
        people = len(shard["yaw"])
        person, view = usable(shard).nonzero().T
        rows = {name: shard[name][person, view] for name in ("faces", "mesh", "descriptors")}
        rows["person"] = person + count
        rows["latents"], rows["fronts"] = shard["latents"], shard["descriptors"][:, front_view(shard)]
        rows["held"] = torch.arange(people) % EVERY == 0
        for name, values in rows.items():
            parts.setdefault(name, []).append(values)
        count += people
    return TurnedFaces(**{name: torch.cat(values) for name, values in parts.items()})


def front_view(shard: dict[str, Tensor]) -> int:
    """Number of the view whose identity vector is the front's."""
    return min(FRONT, shard["yaw"].shape[1] - 1)


def usable(shard: dict[str, Tensor]) -> Tensor:
    """(P,V) bool, the views of a shard to learn from: a face is seen, the front is one, and both show one person."""
    front = front_view(shard)
    apart = (shard["descriptors"] - shard["descriptors"][:, front : front + 1]).norm(dim=2)
    seen = shard["presence"] >= MIN_PRESENCE
    straight = seen[:, front] & (shard["yaw"][:, front].abs() <= (STRAIGHT if front else NEARLY))
    return seen & straight[:, None] & (apart <= FURTHEST_APART)
