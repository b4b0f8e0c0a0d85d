"""Pairs of a latent and the identity descriptor of its face, to learn p(w | identity) from.

The generator makes them without limit. A face is drawn only as far as its descriptor needs: through the 256 px head, in
bfloat16. A shard holds `SHARD` pairs and depends on its number alone, so that a cache can be extended, shared or made
again; 51,200 pairs are 130 MB.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from studio import weights
from studio.errors import InputError
from studio.find import FaceFinder
from studio.identity.encoder import IdentityEncoder
from studio.latents.measure import embed
from studio.networks.generator import Block, Generator, StyledConv
from studio.networks.identity import IdentityNet
from studio.networks.image_head import ImageHead
from studio.networks.mesh import SIZE as MESH_SIZE
from studio.networks.mesh import FaceMesh
from studio.training.data import TRUNCATION
from studio.training.losses import MESH_CROP

SHARD = 2048
SIZE = 256
BATCH = 32
FIRST_SEED = 7_000_000
WINDOW = (0.125, 0.15625, 0.875, 1.0)  # x0, y0, x1, y1, shares of the side: what the chips of aligned faces show
REPORT_SECONDS = 30
EVERY = 25  # pairs, one is kept for measuring


@dataclass(frozen=True)
class PairMaker:
    """The networks that make a pair, frozen; with the weights of the store the mesh is in float32, others in bfloat16.

    The last two blocks before the head, and the head, draw only `WINDOW` of a face: they are most of the work, and no
    chip shows the rest.
    """

    generator: Generator
    head: ImageHead
    mesh: FaceMesh
    encoder: IdentityEncoder

    @classmethod
    def from_pretrained(cls) -> PairMaker:
        """With the weights of the store, on the CPU.

        Raises:
            MissingWeightsError: not here and could not be fetched.
        """
        generator = Generator.from_pretrained(weights.path("generator"), dtype=torch.bfloat16)
        head = ImageHead.from_pretrained(weights.path("head_256"), dtype=torch.bfloat16)
        identity = IdentityNet.from_pretrained(weights.path("identity"), dtype=torch.bfloat16)
        for network in (generator, head, identity):
            network.to(memory_format=torch.channels_last)
        return cls(generator, head, FaceFinder.from_pretrained().mesh, IdentityEncoder(identity))

    @cached_property
    def window(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 of `WINDOW` in cells of the map two blocks before the head."""
        side = self.head.config.size // 4
        x0, y0, x1, y1 = (share * side for share in WINDOW)
        return math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)

    @cached_property
    def tail(self) -> tuple[list[Block], ImageHead]:
        """The two blocks and the head, copied, their fixed noise cut to the window."""
        start = self.head.config.start
        blocks, head = copy.deepcopy((list(self.generator.blocks[start - 2 : start]), self.head))
        x0, y0, x1, y1 = self.window
        for module in (module for part in (*blocks, head) for module in part.modules()):
            if isinstance(module, StyledConv):
                scale = 4 * module.noise.shape[-1] // self.head.config.size
                module.noise.data = module.noise.data[..., y0 * scale : y1 * scale, x0 * scale : x1 * scale]
        return blocks, head

    def draw(self, latents: Tensor) -> Tensor:
        """A latent w (1,D) to a picture (1,3,SIZE,SIZE) float32 in [0,1]: the window, its edge drawn out."""
        w = self.generator.slots(latents.to(self.generator.dtype))
        start, side = self.head.config.start, self.head.config.size // 4
        x0, y0, x1, y1 = self.window
        blocks, head = self.tail
        x = self.generator.features(w, start - 2)[:, :, y0:y1, x0:x1]
        for i, block in enumerate(blocks, start - 2):
            x = block(x, w[:, 1 + 2 * i], w[:, 2 + 2 * i])
        picture = (head.finish(x, w).float() / 2 + 0.5).clamp(0, 1)
        scale = picture.shape[-1] // (x1 - x0)
        beyond = (x0 * scale, (side - x1) * scale, y0 * scale, (side - y1) * scale)
        return F.interpolate(F.pad(picture, beyond, mode="replicate"), (SIZE, SIZE), mode="area")

    @torch.inference_mode()
    def describe(self, latents: Tensor) -> Tensor:
        """Latents w (N,D) -> descriptors (N,E) float32, the mirror image averaged in as everywhere here."""
        pictures = torch.cat([self.draw(w) for w in latents.split(1)])
        return embed(self.encoder, pictures, quick_mesh(self.mesh, pictures).numpy())


def quick_mesh(mesh: FaceMesh, pictures: Tensor) -> Tensor:
    """The mesh (N,468,3) of FFHQ-aligned faces (N,3,S,S) in one pass over a constant crop.

    On 200 generated faces descriptors are 0.06 away from those of the mesh placed twice, as a photo's is; those of one
    constant chip were 0.13 away, and 0.20 for faces turned by 30° and more.
    """
    return quick_look(mesh, pictures)[0]


def quick_look(mesh: FaceMesh, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """`quick_mesh`, and how sure it is that there is a face, (N,) in [0,1]; both float32."""
    x0, y0, side = (round(share * pictures.shape[2]) for share in MESH_CROP)
    crop = pictures[:, :, y0 : y0 + side, x0 : x0 + side]
    points, logits = mesh(F.interpolate(crop, size=(MESH_SIZE, MESH_SIZE), mode="bilinear", antialias=True))
    points = points * (side / MESH_SIZE) + points.new_tensor([x0, y0, 0.0])
    return points.float(), logits.float().flatten().sigmoid()


def draw_latents(generator: Generator, count: int, seed: int) -> Tensor:
    """Latents (count,D) float32 of whole faces, each pulled to the mean by its own truncation of 0.6 to 1."""
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(count, generator.config.style_dim, generator=rng)
    low, high = TRUNCATION
    psi = low + (high - low) * torch.rand(count, 1, generator=rng)
    mean = generator.mean_latent.float()
    return mean + psi * (generator.mapping(z.to(generator.dtype)).float() - mean)


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` lies in a cache folder."""
    return folder / f"identities-{number:05d}.safetensors"


@torch.inference_mode()
def make_shard(maker: PairMaker, number: int, folder: Path, size: int, report: Callable[[str], None] = print) -> Path:
    """Make a shard of `size` pairs unless it is there; under a temporary name first, so a kill leaves no half file."""
    path = shard_path(folder, number)
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    latents = draw_latents(maker.generator, size, FIRST_SEED + number)
    parts: list[Tensor] = []
    start = said = time.monotonic()
    for w in latents.split(BATCH):
        parts.append(maker.describe(w))
        now = time.monotonic()
        if now - said > REPORT_SECONDS:
            done = sum(len(part) for part in parts)
            report(f"shard {number}: {done} of {size} faces, {done / (now - start):.1f} faces/s")
            said = now
    part = path.with_suffix(f".{os.getpid()}.part")
    save_file({"latents": latents, "descriptors": torch.cat(parts)}, part)
    part.replace(path)
    report(f"shard {number}: {size} faces, {size / (time.monotonic() - start):.1f} faces/s")
    return path


def make_identities(folder: Path, count: int, faces: Path | None = None, report: Callable[[str], None] = print) -> None:
    """Fill a cache with at least `count` new pairs, after those of a cache of faces; shards that are there are kept."""
    if count < 0:
        raise InputError(f"count must be 0 or more, got {count}: 50,000 make a good prior")
    maker = PairMaker.from_pretrained()
    if faces:
        embed_faces(maker, faces, folder, report)
    shards = -(-count // SHARD)
    for number in range(shards):
        make_shard(maker, number, folder, SHARD, report)
        report(f"{(number + 1) * SHARD} of {shards * SHARD} faces")


@torch.inference_mode()
def embed_faces(maker: PairMaker, faces: Path, folder: Path, report: Callable[[str], None] = print) -> None:
    """Turn cached training faces (`studio train faces`) into pairs as well; their pictures are there already.

    In half of them a second latent colours the face. The pair then holds the latent of its structure, which says most
    of who it is, so that such a pair is worth a little less.
    """
    paths = sorted(faces.glob("faces-*.safetensors"))
    if not paths:
        raise InputError(f"a cache of generated faces must exist, {faces} holds none: run `studio train faces`")
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        target = folder / f"identities-{path.stem}.safetensors"
        if target.exists():
            continue
        shard = load_file(path)
        pictures = (shard["images"].float() / 255).split(BATCH)
        found = [embed(maker.encoder, part, quick_mesh(maker.mesh, part).numpy()) for part in pictures]
        part = target.with_suffix(f".{os.getpid()}.part")
        save_file({"latents": shard["latents"][:, 0].contiguous(), "descriptors": torch.cat(found)}, part)
        part.replace(target)
        report(f"{path.name}: {len(shard['latents'])} faces")


def load_identities(folder: Path) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs of a cache.

    Returns:
        Latents (N,D) and descriptors (N,E), float32, and which are kept for measuring (N,) bool: every `EVERY`th of
        each shard, so that more shards change nothing about it.

    Raises:
        InputError: no shard there.
    """
    paths = sorted(folder.glob("identities-*.safetensors"))
    if not paths:
        raise InputError(f"a cache of identities must exist, {folder} holds none: run `studio train identities`")
    shards = [load_file(path) for path in paths]
    kept = [torch.arange(len(shard["latents"])) % EVERY == 0 for shard in shards]
    return (
        torch.cat([shard["latents"] for shard in shards]),
        torch.cat([shard["descriptors"] for shard in shards]),
        torch.cat(kept),
    )
