"""Training the cleaner (`Cleaner`): pairs of damaged and clean photographs, made once; no generator takes part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from studio.degradations import RECIPES, degrade
from studio.imaging.pyramid import local_mean, pyramid
from studio.networks.cleaner import Cleaned, Cleaner
from studio.photosets import held_out
from studio.tone import luma
from studio.training.data import load_real_faces
from studio.training.steps import StepTrainer, channels_last, generator_of, shards

RECIPE = "training_all"
PATCH = 192  # px
DRAWN_MORE = {"generated": 2.0, "pictures": 1.5}  # how often a file of that kind is drawn, relative to real faces
GENERATED = 15  # shards of generated faces that are paired
TIMES = 5  # that real photographs are damaged, each time in another way
SURE_SHARE = 0.2  # weight of the certainties' error
LEVEL = 0.5 / 255**2  # energy of an octave below which its certainty means nothing
FRESH = 0.45  # share of the patches that are damaged as they are drawn, each time in another way
CAMERA = 0.75  # share of these that a camera made noisy; the others stay as they are: what is clean stays
FADED = ("old_photo", "scratched")  # recipes that change colours, which the cleaner leaves to whoever looks


def with_tone_of(clean: Tensor, damaged: Tensor) -> Tensor:
    """A clean picture (3,S,S) with the colours of its damaged copy: what a cleaner of pixels can know.

    A regression of the damaged colours on the clean ones, at 64 px, and what is left of the difference at 8.
    """
    small = [F.interpolate(x[None], (64, 64), mode="area")[0].flatten(1).T for x in (clean, damaged)]

    def terms(rows: Tensor) -> Tensor:
        light = luma(rows.T[None, :, None])[0, 0, 0][:, None]
        return torch.cat([torch.ones_like(light), rows, light * light], 1)

    fitted = torch.linalg.lstsq(terms(small[0]), small[1], driver="gelsd").solution
    moved = (terms(clean.flatten(1).T) @ fitted).T.view_as(clean)
    side = clean.shape[-1]
    rest = F.avg_pool2d((damaged - moved)[None], side // 8)
    return (moved + F.interpolate(rest, (side, side), mode="bilinear", align_corners=False)[0]).clamp(0, 1)


def pair(clean: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """A picture (3,S,S) in [0,1] as it should be cleaned, and its damaged copy."""
    (damaged,), (drawn,) = degrade(clean[None], RECIPE, rng)
    if drawn["recipe"] in FADED or "colour_shift" in drawn:
        clean = with_tone_of(clean, damaged)
    if drawn["tone"] != "colour":
        clean, damaged = (luma(x[None])[0].expand(3, -1, -1) for x in (clean, damaged))
    return clean, damaged


def write_pairs(path: Path, images: Tensor, seed: int) -> None:
    """Damage pictures (N,3,S,S) uint8 and keep both, as `clean` and `damaged`."""
    rng = torch.Generator().manual_seed(seed)
    pairs = [pair(image.float() / 255, rng) for image in images]
    clean, damaged = (
        torch.stack([(x * 255).round().clamp(0, 255).byte() for x in side]) for side in zip(*pairs, strict=True)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file({"clean": clean.contiguous(), "damaged": damaged.contiguous()}, part)
    part.replace(path)


def make_pairs(
    folder: Path, cache: Path, photos: Path | None, pictures: Path | None, report: Callable[[str], None] = print
) -> None:
    """Fill a folder with pairs; files that are there are kept.

    Args:
        folder: of the pairs.
        cache: generated faces, 512 px, see `studio train faces --size 512`.
        photos: real faces too: a folder with `aligned_clean/` (256 px) and `aligned_studio/`.
        pictures: pictures without faces too, cut to 512 px, as one safetensors file with `images` (N,3,512,512) uint8.
        report: receives one line for each file.
    """

    def write(name: str, make: Callable[[], Tensor], seed: int) -> None:
        path = folder / f"{name}.safetensors"
        if not path.exists():
            write_pairs(path, make(), seed)
            report(path.name)

    for again in range(TIMES if photos else 0):
        write(f"clean-{again}", lambda: load_real_faces(photos / "aligned_clean", held_out(photos)), 11 + 1000 * again)
        write(f"studio-{again}", lambda: load_real_faces(photos / "aligned_studio"), 21 + 1000 * again)
    for number, path in enumerate(sorted(cache.glob("faces-*.safetensors"))[:GENERATED]):
        write(f"generated-{number}", lambda path=path: load_file(path)["images"], 100 + number)
    for again in range(2 if pictures else 0):
        write(f"pictures-{again}", lambda: load_file(pictures)["images"], 41 + 1000 * again)


@dataclass
class CleanerTrainer(StepTrainer):
    """Learns the picture of least error, and how much of each octave that holds.

    Args:
        pairs: folder of `make_pairs`.
    """

    name: ClassVar[str] = "cleaner"
    average_decay: ClassVar[float] = 0.998
    weight_decay: ClassVar[float] = 0.002
    longest_gradient: ClassVar[float] = 0.5
    net: Cleaner
    pairs: Path = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.held = shards(self.pairs, "studio train pairs")
        names = [path.stem.rsplit("-", 1)[0] for path in sorted(self.pairs.glob("*.safetensors"))]
        self.chances = torch.tensor([DRAWN_MORE.get(name, 1.0) for name in names])

    def examples(self, step: int) -> list[Tensor]:
        """Clean and damaged patches (N,3,192,192) in [0,1], turned and mirrored."""
        rng = generator_of(step)
        drawn: list[list[Tensor]] = []
        for _ in range(self.batch):
            shard = self.held[int(torch.multinomial(self.chances, 1, generator=rng))]
            number = int(torch.randint(len(shard["clean"]), (1,), generator=rng))
            patch = min(PATCH, shard["clean"].shape[-1])
            y, x = torch.randint(shard["clean"].shape[-1] - patch + 1, (2,), generator=rng).tolist()
            both = [shard[name][number, :, y : y + patch, x : x + patch] / 255 for name in ("clean", "damaged")]
            if torch.rand((), generator=rng) < FRESH:
                both = fresh(both[0], rng)
            drawn.append(turned(both, int(torch.randint(8, (1,), generator=rng))))
        return channels_last(torch.stack(side) for side in zip(*drawn, strict=True))

    def losses(self, examples: Sequence[Tensor]) -> dict[str, Tensor]:
        """See `estimate_loss` and `certainty_loss`."""
        clean, damaged = examples
        with torch.autocast("cpu", torch.bfloat16):
            said = self.net(damaged)
        return {"estimate": estimate_loss(said.estimate, clean), "certainty": SURE_SHARE * certainty_loss(said, clean)}


def fresh(clean: Tensor, rng: torch.Generator) -> list[Tensor]:
    """A patch (3,S,S) in [0,1], and what a camera in little light makes of it, or the patch once more."""
    if torch.rand((), generator=rng) >= CAMERA:
        return [clean, clean]
    camera = replace(RECIPES["camera"], reference_size=clean.shape[-1])  # its lengths are pixels of this picture
    (damaged,), (drawn,) = degrade(clean[None], camera, rng)
    if drawn["tone"] == "grey":
        clean = luma(clean[None])[0].expand(3, -1, -1)
    return [clean, damaged]


def turned(pictures: Sequence[Tensor], way: int) -> list[Tensor]:
    """Square pictures (3,S,S), all mirrored and turned the same way of eight."""
    for bit, change in enumerate((lambda x: x.flip(2), lambda x: x.flip(1), lambda x: x.transpose(1, 2))):
        if way >> bit & 1:
            pictures = [change(x) for x in pictures]
    return list(pictures)


def estimate_loss(estimate: Tensor, clean: Tensor) -> Tensor:
    """Charbonnier's distance of pictures and of their differences to the right and down (arXiv 1710.01992, eq. 6)."""

    def distance(x: Tensor, y: Tensor) -> Tensor:
        return ((x - y).square() + 1e-6).sqrt().mean()

    return distance(estimate, clean) + sum(distance(estimate.diff(dim=d), clean.diff(dim=d)) for d in (2, 3))


def certainty_loss(said: Cleaned, clean: Tensor) -> Tensor:
    """Squared error of the certainties to the share of each octave's energy that the estimate really holds."""
    octaves = said.certainty.shape[1]
    loss = clean.new_zeros(())
    for k, (own, true) in enumerate(
        zip(pyramid(said.estimate.detach(), octaves)[:octaves], pyramid(clean, octaves)[:octaves], strict=True)
    ):
        error, energy = local_mean((own - true).square()), local_mean(true.square())
        share = (1 - error / (energy + LEVEL)).clamp(0, 1)
        mine, size = said.certainty[:, k : k + 1], share.shape[2:]
        if size[0] > mine.shape[2]:
            mine = F.interpolate(mine, size=size, mode="bilinear", align_corners=False)
        else:
            mine = F.adaptive_avg_pool2d(mine, size)
        loss = loss + (mine - share).square().mean()
    return loss
