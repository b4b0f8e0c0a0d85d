"""Generated people who act: pictures of one person with other poses and expressions, for reenactment.

Latents are moved along the committed directions and then held to the person as in `studio.training.turned`. What is
still lost of the person, hair and background shows in the identity vectors, which are kept with the pictures.

A shard holds `SHARD` people, each with `VIEWS` pictures, and depends on its number alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from studio.errors import InputError
from studio.faces.align import ffhq_transform, into_crop, warp
from studio.latents.edit import move
from studio.latents.measure import MIN_PRESENCE, embed
from studio.networks.latent_reader import nearer
from studio.training.data import draw_latents
from studio.training.identities import quick_look
from studio.training.turned import HOLD_RATE, Turner, write

SHARD = 64
SIZE = 256  # px of the stored pictures
VIEWS = 3
FIRST_SEED = 12_000_000
# How far a view is moved at most, in degrees or in standard deviations of generated faces.
TURNS = {"yaw": 28.0, "pitch": 12.0}
ACTS = {"smile": 2.0, "mouth": 2.2, "eyes": 2.0, "brow": 1.8}
HOLD_STEPS = 8
FURTHEST_APART = 0.42  # identity distance of a view to the first one


@dataclass(frozen=True)
class ActedFaces:
    """V pictures of each of P people.

    Attributes:
        faces: (P,V,3,SIZE,SIZE) uint8 RGB, FFHQ-aligned by their own mesh.
        mesh: (P,V,468,3) float16, in sides of the picture.
        usable: (P,V) bool, a face is seen and it shows the first view's person.
    """

    faces: Tensor
    mesh: Tensor
    usable: Tensor


def acted(turner: Turner, structure: Tensor, rng: torch.Generator) -> Tensor:
    """Structure latents (1,D), moved at random along every direction of pose and expression, the person held."""
    space = turner.space
    moved = structure[:, None]
    for name, most in (TURNS | ACTS).items():
        unit = 1.0 if name in TURNS else float(space.attribute_spread[space.number(name)])
        amount = most * unit * float(torch.randn((), generator=rng).clamp(-1.8, 1.8)) / 1.2
        moved = move(space, moved, name, amount)
    start = space(moved[:, 0])
    along = F.normalize(start - space(structure), dim=1)

    def latents(way: Tensor) -> Tensor:
        return space.latents(start + way - (way * along).sum(1, keepdim=True) * along)

    with torch.no_grad():
        person = turner.reader(structure)
    return latents(nearer(lambda x: turner.reader(latents(x)), torch.zeros_like(start), person, HOLD_RATE, HOLD_STEPS))


@torch.no_grad()
def view(turner: Turner, latents: Tensor) -> dict[str, Tensor]:
    """The picture of latents (1,2,D), aligned, its mesh and its identity vector."""
    picture = turner.draw(latents)
    mesh, _ = quick_look(turner.maker.mesh, picture)
    affine = ffhq_transform(mesh.numpy(), SIZE)
    face = warp(picture, affine, SIZE).clamp(0, 1)
    again, presence = quick_look(turner.maker.mesh, face)
    return {
        "faces": (face[0] * 255).round().byte(),
        "mesh": torch.from_numpy(into_crop(mesh.numpy(), affine, SIZE))[0].half(),
        "again": again[0].div(SIZE).half(),
        "descriptors": embed(turner.maker.encoder, picture, mesh.numpy())[0].float(),
        "presence": presence[0],
    }


def person(turner: Turner, latents: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
    """One person, latents (1,2,D): (VIEWS,…) of what `view` gives, the first as drawn."""
    views = [view(turner, latents)]
    for _ in range(VIEWS - 1):
        views.append(view(turner, torch.stack([acted(turner, latents[:, 0], rng), latents[:, 1]], 1)))
    return {name: torch.stack([one[name] for one in views]) for name in views[0]}


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` lies in a cache folder."""
    return folder / f"acted-{number:05d}.safetensors"


def make_acted(folder: Path, people: int, report: Callable[[str], None] = print) -> None:
    """Fill a cache with at least so many people; shards that are there are kept.

    Raises:
        InputError: a number below 1.
    """
    if people < 1:
        raise InputError(f"people must be 1 or more, got {people}: 2,000 make a start")
    folder.mkdir(parents=True, exist_ok=True)
    turner, start, shards = Turner.from_pretrained(), time.monotonic(), -(-people // SHARD)
    for number in range(shards):
        path = shard_path(folder, number)
        if not path.exists():
            latents = draw_latents(turner.maker.generator, SHARD, FIRST_SEED + number)
            rng = torch.Generator().manual_seed(FIRST_SEED + number)
            write(path, [person(turner, one, rng) for one in latents.split(1)])
        report(f"{(number + 1) * SHARD} of {shards * SHARD} people, {time.monotonic() - start:.0f} s")


def load_acted(folder: Path) -> ActedFaces:
    """The people of a cache.

    Raises:
        InputError: no shard there.
    """
    paths = sorted(folder.glob("acted-*.safetensors"))
    if not paths:
        raise InputError(f"a cache of acting faces must exist, {folder} holds none: run `studio train acted`")
    shards = [load_file(path) for path in paths]
    faces, mesh, presence, vectors = (
        torch.cat([shard[name] for shard in shards]) for name in ("faces", "mesh", "presence", "descriptors")
    )
    same = (vectors - vectors[:, :1]).norm(dim=2) <= FURTHEST_APART
    return ActedFaces(faces, mesh, same & (presence >= MIN_PRESENCE))
