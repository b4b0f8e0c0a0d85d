"""Builders of toy subjects: real classes at sizes that run in milliseconds, always with the same weights.

One function per thing, named after it, every size a keyword with a default that is as small as the class allows:

    def generator(*, channels=8) -> Generator:
        with seeded(): return Generator(...).eval()

Add yours at the end, under the heading of its package. What only one test needs stays in that test.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor

from studio.base import StudioPipeline
from studio.errors import InputError
from studio.networks.loading import StrictModel


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Draws inside are the same every time, and leave the caller's random state alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


# --- inputs -----------------------------------------------------------------------------------------------------------


def image(height: int = 24, width: int = 32, *, seed: int = 0) -> Tensor:
    """A smooth random picture, (3,H,W) float32 RGB in [0,1]."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[0]


# --- a toy pipeline: the smallest thing that follows every rule ------------------------------------------------------


class TinyNet(StrictModel):
    """One 1x1 convolution. The tests that save it make it public for their time."""

    @register_to_config
    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).sigmoid()


@dataclass
class TinyOutput(BaseOutput):
    images: list[Any]
    reports: list[dict[str, float]]


class TinyPipeline(StudioPipeline):
    """Blends each picture with what the network makes of it."""

    known_names = ("tiny",)

    def __init__(self, net: TinyNet) -> None:
        super().__init__()
        self.register_modules(net=net)

    @classmethod
    def _components(cls, name: str) -> dict[str, Any]:
        return {"net": tiny_net()}

    @torch.no_grad()
    def __call__(
        self,
        image: Tensor | list[Tensor],
        strength: float = 1.0,
        generator: torch.Generator | None = None,
        output_type: str = "pt",
        return_dict: bool = True,
    ) -> TinyOutput | tuple:
        if output_type not in ("pt", "np"):
            raise InputError(f"output_type must be 'pt' or 'np', got {output_type!r}: pass one of them")
        if not 0 <= strength <= 1:
            raise InputError(f"strength must lie in [0, 1], got {strength}: pass a number between them")
        images = image if isinstance(image, list) else [image]
        if not all(isinstance(one, Tensor) and one.ndim == 3 for one in images):
            raise InputError("image must be a (3,H,W) tensor or a list of them, got something else: load it first")
        done = []
        for one in images:
            grain = 0.0 if generator is None else 0.01 * torch.randn(one.shape, generator=generator)
            done.append(one + strength * (self.net(one[None])[0] + grain - one))
        reports = [{"mean": float(one.mean())} for one in done]
        if output_type == "np":
            done = [one.numpy() for one in done]
        output = TinyOutput(images=done, reports=reports)
        return output if return_dict else output.to_tuple()


def tiny_net() -> TinyNet:
    with seeded():
        return TinyNet().eval()


def tiny_pipeline() -> TinyPipeline:
    return TinyPipeline(tiny_net())


# --- studio.networks --------------------------------------------------------------------------------------------------


# --- studio.faces -----------------------------------------------------------------------------------------------------


# --- pipelines --------------------------------------------------------------------------------------------------------
