"""The example photographs: generated people, damaged by our own recipes. Nobody in them exists.

python -m studio.training.examples examples
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from studio import images, weights
from studio.degradations import degrade
from studio.networks.generator import Generator

TRUNCATION = 0.7


@dataclass(frozen=True)
class Example:
    """One picture: people side by side, each damaged, then shown at `side` pixels.

    Attributes:
        name: file name.
        people: seeds of the generator, one per person.
        recipe: degradation recipe.
        seed: of the damage.
        side: height of the picture in pixels.
    """

    name: str
    people: tuple[int, ...]
    recipe: str
    seed: int
    side: int


EXAMPLES = (
    Example("portrait.jpg", (19,), "gfpgan", 27, 512),
    Example("small.jpg", (2,), "codeformer_large", 24, 320),
    Example("old-print.jpg", (32,), "old_photo", 27, 480),
    Example("old-print-2.png", (27,), "old_photo", 21, 512),
    Example("three-friends.jpg", (13, 16, 25), "gfpgan", 8, 300),
)


@torch.inference_mode()
def make(example: Example, generator: Generator) -> Tensor:
    """The picture as (3,H,W) in [0,1]; the damage is drawn over the whole row, so that one tone rules it."""
    z = torch.cat([torch.randn(1, 512, generator=torch.Generator().manual_seed(seed)) for seed in example.people])
    people = images.resize(generator(generator.latents(z, TRUNCATION)) / 2 + 0.5, 512, 512).clamp(0, 1)
    damaged = [
        degrade(face[None], example.recipe, torch.Generator().manual_seed(example.seed))[0][0] for face in people
    ]
    row = torch.cat(damaged, 2)
    return images.resize(row, example.side, example.side * len(damaged)).clamp(0, 1)


def main(folder: Path) -> None:
    """Write all examples into `folder`."""
    generator = Generator.from_pretrained(weights.path("generator"))
    folder.mkdir(parents=True, exist_ok=True)
    for example in EXAMPLES:
        images.save(images.load(make(example, generator)), folder / example.name, quality=88)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
