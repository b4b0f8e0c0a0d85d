"""Training the flow of the generator's map (`MapFlow`), without a gradient through the generator.

Each generated face has its own map; the restorer regresses one from the damaged face. Both are made once, in whitened
components, a byte each; a step of training then costs a thousandth of drawing the faces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from studio.degradations import degrade
from studio.networks.generator import Generator
from studio.networks.map_flow import MapFlow
from studio.networks.restorer import START_BLOCK, Restorer
from studio.training.data import as_luma, expand_latents
from studio.training.steps import StepTrainer, channels_last, generator_of, shards

RECIPE = "training_all"
UNIT = 24  # steps of a byte in one unit of a whitened component
SEED = 7_000_000
MEASURED_SHARDS, EVERY = 16, 8  # shards whose every so-manieth face tells the principal components
CHUNK, FILES = 8, 4  # faces read at once; files that a step draws from


@torch.inference_mode()
def principal_components(generator: Generator, latents: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the generator's map at 32 px, over faces and places: mean (C,), basis (C,count), spread (count,).

    Args:
        generator: whose map it is.
        latents: (N,2,512), see `draw_latents`.
        count: how many of the largest.
    """
    channels = generator.config.channels[START_BLOCK - 1]
    products, total, seen = torch.zeros(channels, channels, dtype=torch.float64), torch.zeros(channels).double(), 0
    for part in latents.split(CHUNK):
        w = expand_latents(part)[:, : generator.num_slots].to(generator.dtype)
        rows = generator.features(w, START_BLOCK).float().permute(1, 0, 2, 3).flatten(1)
        products += (rows @ rows.T).double()
        total += rows.sum(1).double()
        seen += rows.shape[1]
    mean = total / seen
    values, vectors = torch.linalg.eigh(products / seen - mean[:, None] * mean)
    return mean.float(), vectors.flip(1)[:, :count].float(), values.flip(0)[:count].clamp_min(0).sqrt().float()


def fit(net: MapFlow, generator: Generator, cache: Path) -> None:
    """Give a new flow the principal components of the maps of cached faces."""
    latents = [load_file(path)["latents"] for path in sorted(cache.glob("faces-*.safetensors"))[:MEASURED_SHARDS]]
    found = principal_components(generator, torch.cat(latents)[::EVERY], net.config.components)
    for buffer, value in zip((net.mean, net.basis, net.spread), found, strict=True):
        buffer.copy_(value)


def in_bytes(net: MapFlow, features: Tensor) -> Tensor:
    """The generator's map (N,C,H,W) as whitened components (N,K,H,W) int8, `UNIT` steps to one of their spread."""
    return (net.whiten(features) * UNIT).round().clamp(-127, 127).to(torch.int8)


def velocity_loss(net: MapFlow, face: Tensor, regressed: Tensor, seen: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Squared error of the velocity, in units of the map's own spread.

    Args:
        net: in bfloat16 autocast.
        face: (N,K,H,H) whitened components that the face has.
        regressed: the same, as they were regressed.
        seen: (N,3,S,S) RGB in [0,1], the damaged face.
        noise: (N,K,H,H) standard normal.
        times: (N,) in [0,1].
    """
    start = net.start(regressed, noise)
    t = times.view(-1, 1, 1, 1)
    with torch.autocast(face.device.type, torch.bfloat16):
        velocity = net((1 - t) * start + t * face, times, net.condition(seen, regressed))
    weights = (net.spread / net.spread.mean()).view(1, -1, 1, 1)
    return (weights * (velocity.float() - (face - start)).square()).mean()


@torch.inference_mode()
def make_maps(
    folder: Path,
    cache: Path,
    generator: Generator,
    restorer: Restorer,
    net: MapFlow,
    report: Callable[[str], None] = print,
) -> None:
    """Damage every cached face and keep what is needed to learn from it; files that are there are kept.

    Args:
        folder: of the files `maps-NNNNN.safetensors`: `face` and `regressed` (N,K,32,32) int8 in 1/24 and `seen`
            (N,3,256,256) uint8.
        cache: generated faces, see `studio train faces`.
        generator: that drew them.
        restorer: that regresses their maps.
        net: whose components they are kept in, see `fit`.
        report: receives one line for each file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    side = net.config.size
    for path in sorted(cache.glob("faces-*.safetensors")):
        target = folder / path.name.replace("faces-", "maps-")
        if target.exists():
            continue
        shard, rng = load_file(path), torch.Generator().manual_seed(SEED + int(path.stem.rsplit("-", 1)[1]))
        parts: dict[str, list[Tensor]] = {"face": [], "regressed": [], "seen": []}
        for images, latents in zip(shard["images"].split(CHUNK), shard["latents"].split(CHUNK), strict=True):
            clean = F.interpolate(images.float() / 255, (side, side), mode="area")
            damaged, drawn = degrade(clean, RECIPE, rng)
            damaged = as_luma(damaged, torch.tensor([one["tone"] != "colour" for one in drawn]))
            seen = (damaged * 255).round().clamp(0, 255).byte()
            regressed = restorer(seen.float() / 255).features.float()
            own = generator.features(expand_latents(latents).to(generator.dtype), START_BLOCK).float()
            parts["seen"].append(seen)
            for name, features in (("face", own), ("regressed", regressed)):
                parts[name].append(in_bytes(net, features))
        part = target.with_suffix(".part")
        save_file({name: torch.cat(values) for name, values in parts.items()}, part)
        part.replace(target)
        report(f"{target.name}: {len(shard['latents'])} faces")


@dataclass
class MapFlowTrainer(StepTrainer):
    """Learns the straight way from a regressed map to the face's own (posterior-mean rectified flow, 2410.00418).

    Args:
        maps: folder of `make_maps`.
    """

    name: ClassVar[str] = "map_flow"
    net: MapFlow
    maps: Path = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.held = shards(self.maps, "studio train maps")

    def examples(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Maps of faces and regressed ones (N,K,32,32), damaged faces (N,3,S,S), noise, and times (N,)."""
        rng = generator_of(step)
        found: dict[str, list[Tensor]] = {"face": [], "regressed": [], "seen": []}
        for number in torch.randint(len(self.held), (FILES,), generator=rng).tolist():
            shard = self.held[number]
            rows = torch.randperm(len(shard["face"]), generator=rng)[: -(-self.batch // FILES)].sort()[0]
            for name, values in found.items():
                values.append(shard[name][rows])
        face, regressed, seen = channels_last(torch.cat(values)[: self.batch] for values in found.values())
        noise = torch.randn(face.shape, generator=rng)
        return face / UNIT, regressed / UNIT, seen / 255, noise, torch.rand(len(face), generator=rng)

    def losses(self, examples: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        """See `velocity_loss`."""
        return {"velocity": velocity_loss(self.net, *examples)}
