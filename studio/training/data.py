"""Training faces: generated ones in cached shards, real ones from a folder.

A shard is one safetensors file of `SHARD` generated faces with the latents that made them; shard k depends on
its number alone, so a cache can be extended, shared or made again.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from studio.errors import InputError
from studio.latents.inversion import STRUCTURE_SLOTS
from studio.networks.generator import Generator
from studio.tone import luma

SHARD = 256
SIZE = 256
MIX = 0.5  # share of faces whose texture comes from a second latent
TRUNCATION = (0.6, 1.0)


def draw_latents(generator: Generator, count: int, seed: int) -> Tensor:
    """Draw latents for training.

    Returns:
        (count,2,512): the latent of the structure layers (below 7) and the latent of the others. In half of the
        faces the two differ, which gives colours and textures to structures that the prior alone rarely pairs.
    """
    rng = torch.Generator().manual_seed(seed)
    dim = generator.config.style_dim
    z = torch.randn(2 * count, dim, generator=rng)
    low, high = TRUNCATION
    psi = low + (high - low) * torch.rand(count, 1, 1, generator=rng)
    w = generator.mapping(z.to(generator.device, generator.dtype)).float().cpu().view(count, 2, dim)
    mean = generator.mean_latent.float().cpu()
    w = mean + psi * (w - mean)
    same = torch.rand(count, generator=rng) >= MIX
    w[same, 1] = w[same, 0]
    return w


def expand_latents(pairs: Tensor) -> Tensor:
    """(N,2,512) pairs of `draw_latents` -> W+ (N,16,512)."""
    structure, texture = pairs[:, :1], pairs[:, 1:]
    return torch.cat([structure.expand(-1, STRUCTURE_SLOTS, -1), texture.expand(-1, 16 - STRUCTURE_SLOTS, -1)], 1)


def as_luma(faces: Tensor, grey: Tensor) -> Tensor:
    """Faces (N,3,S,S), those that are monochrome, `grey` (N,), by their luma alone: this is how they are restored."""
    return torch.where(grey.view(-1, 1, 1, 1), luma(faces).expand_as(faces), faces)


def shard_path(cache: Path, number: int) -> Path:
    """Where shard `number` lies in a cache folder."""
    return cache / f"faces-{number:05d}.safetensors"


@torch.inference_mode()
def make_shard(generator: Generator, number: int, cache: Path, size: int = SIZE) -> Path:
    """Generate one shard unless it is there; written to a temporary name first, so a kill leaves no half file."""
    path = shard_path(cache, number)
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    pairs = draw_latents(generator, SHARD, seed=1_000_000 + number)
    images = torch.empty(SHARD, 3, size, size, dtype=torch.uint8)
    for i in range(SHARD):
        w = expand_latents(pairs[i : i + 1]).to(generator.device, generator.dtype)
        image = F.interpolate(generator(w).float(), size=(size, size), mode="area")
        images[i] = (image[0] * 127.5 + 127.5).round().clamp(0, 255).byte().cpu()
    part = path.with_suffix(f".{os.getpid()}.part")
    save_file({"images": images, "latents": pairs}, part)
    part.replace(path)
    return path


class SyntheticFaces:
    """All shards of a cache folder, images mapped into memory as needed.

    `faces[i]` of the flat index i gives (image (3,256,256) uint8, latents (2,512) float32).
    """

    def __init__(self, cache: Path) -> None:
        paths = sorted(cache.glob("faces-*.safetensors"))
        if not paths:
            raise InputError(f"a cache of generated faces must exist, {cache} holds none: run `studio train faces`")
        shards = [load_file(path) for path in paths]
        self.images = [shard["images"] for shard in shards]
        self.latents = torch.cat([shard["latents"] for shard in shards])

    def __len__(self) -> int:
        return len(self.latents)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N,3,256,256) float32 [0,1] and latents (N,2,512)."""
        images = torch.stack([self.images[i // SHARD][i % SHARD] for i in indices.tolist()])
        return images.float() / 255, self.latents[indices]


def load_real_faces(folder: Path, exclude: frozenset[str] = frozenset(), smallest: int = SIZE) -> Tensor:
    """Aligned real faces of a folder, in name order.

    Args:
        folder: FFHQ-aligned square images.
        exclude: file stems that are kept for measuring.
        smallest: side in px below which a file is left out.

    Returns:
        (N,3,256,256) uint8, shrunk or enlarged to that.
    """
    kept = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in {".jpg", ".png"} or path.stem in exclude:
            continue
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        if min(image.size) >= smallest:
            kept.append(np.asarray(image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)))
    if not kept:
        raise InputError(f"real faces must be square images of {smallest} px or more, {folder} holds none")
    return torch.from_numpy(np.stack(kept)).permute(0, 3, 1, 2)
