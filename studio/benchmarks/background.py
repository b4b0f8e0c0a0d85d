"""What the networks for the photo around the faces cost, and where they help and where they harm."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from studio import background, images, sheets
from studio.benchmarks.provenance import provenance
from studio.benchmarks.speed import peak_memory_mb
from studio.degradations import ops
from studio.metrics import psnr, sharpness, ssim
from studio.photosets import evenly

SIDE = 384  # px, of the pictures that are compared; they are cut from the middle of the photos
SHOWN = 4  # photos on the sheet
TIMED = 512  # px, side of the picture that is timed
METHODS = ("lanczos", *background.NETWORKS)


def damaged(small: Tensor, kind: str, generator: Generator) -> Tensor:
    """A small picture (3,S,S) in [0,1] as it is ("clean"), or with one kind of damage, of a size in its own pixels."""
    if kind == "jpeg":
        return ops.jpeg(small, 40)
    if kind == "noise":
        return ops.noise(small, 10 / 255, generator).clamp(0, 1)
    if kind == "grain":
        return ops.grain(small, 0.12, 2.0, generator)
    if kind == "halftone":
        return ops.halftone(small, ops.screen(small.shape[-1], 4.0, 0.8, "dots"), 5.0, 0.7)
    return small


KINDS = ("clean", "jpeg", "noise", "grain", "halftone")


def run(
    photos: Path, limit: int, scale: int, seed: int, threads: int, sheet: Path | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Shrink and damage photos, draw them large again, and compare with the originals.

    Args:
        photos: folder of photos of at least 384 px.
        limit: at most so many, spread evenly over the folder; 0 takes all.
        scale: how many times the photos are shrunk and enlarged.
        seed: of the damage.
        threads: CPU threads; 0 leaves the default.
        sheet: where the first photos go, every kind and method, or None.
        say: receives progress lines.

    Returns:
        Per kind of damage and method the means of `psnr` (dB), `ssim` and `sharpness`, and the sharpness of the
        originals; per network `seconds_per_megapixel` of the photo given, `cpu_seconds_per_megapixel` (of all threads
        together, which a busy machine changes little), and the `peak_memory_mb` of the process so far.
    """
    if threads:
        torch.set_num_threads(threads)
    paths = images.find_images([photos])
    paths = evenly(paths, limit or len(paths))
    drawers: dict[str, Any] = {name: background.Upsampler.from_pretrained(name) for name in background.NETWORKS}
    cost = {}
    for name, drawer in drawers.items():
        cost[name] = {**seconds_per_megapixel(drawer), "peak_memory_mb": peak_memory_mb()}
        say(f"{name}: {cost[name]['seconds_per_megapixel']} s per megapixel")
    drawers["lanczos"] = "lanczos"
    rng = Generator().manual_seed(seed)
    numbers: dict[str, dict[str, list]] = {kind: {method: [] for method in METHODS} for kind in KINDS}
    originals, cells = [], {kind: [] for kind in KINDS}
    for number, path in enumerate(paths):
        target = middle(images.load(path).pixels, SIDE)
        originals.append(float(sharpness(target[None])))
        small = images.resize(target, SIDE // scale, SIDE // scale)
        for kind in KINDS:
            given = damaged(small, kind, rng)
            drawn = {method: background.draw(given, scale, drawers[method]) for method in METHODS}
            for method, picture in drawn.items():
                numbers[kind][method].append(measured(picture, target))
            if number < SHOWN:
                cells[kind].append([*drawn.values(), target])
        say(f"{path.name}: done")
    if sheet:
        rows = [(f"{kind}: {', '.join(METHODS)}, original", row) for kind in KINDS for row in cells[kind]]
        sheets.write(sheet, [row for _, row in rows], [label for label, _ in rows], height=SIDE)
    kinds = {kind: {method: means(found) for method, found in numbers[kind].items()} for kind in KINDS}
    return {
        "benchmark": "background",
        "photos": len(paths),
        "scale": scale,
        "seed": seed,
        "original_sharpness": round(sum(originals) / len(originals), 4),
        "kinds": kinds,
        "cost": cost,
        "provenance": provenance(background.NETWORKS),
    }


def middle(pixels: Tensor, side: int) -> Tensor:
    """The square of `side` px in the middle of a photo (3,H,W), which is enlarged first where it is smaller."""
    short = min(pixels.shape[1:])
    if short < side:
        pixels = images.enlarge(pixels, side / short)
    top, left = ((length - side) // 2 for length in pixels.shape[1:])
    return pixels[:, top : top + side, left : left + side]


def measured(picture: Tensor, target: Tensor) -> tuple[float, float, float]:
    """PSNR in dB, SSIM and sharpness."""
    pair = picture[None], target[None]
    return float(psnr(*pair)), float(ssim(*pair)), float(sharpness(pair[0]))


def means(found: list[tuple[float, float, float]]) -> dict[str, float]:
    """Of what `measured` gives, by name."""
    return {
        name: round(sum(values) / len(values), 4)
        for name, values in zip(("psnr", "ssim", "sharpness"), zip(*found, strict=True), strict=True)
    }


def seconds_per_megapixel(drawer: background.Upsampler) -> dict[str, float]:
    """Seconds of the clock and of the processors for a million pixels of a photo, from one of `TIMED` x `TIMED`."""
    photo = torch.rand(3, TIMED, TIMED, generator=Generator().manual_seed(0))
    drawer(photo[:, : drawer.tile, : drawer.tile])
    start = time.perf_counter(), time.process_time()
    drawer(photo)
    clock, processors = time.perf_counter() - start[0], time.process_time() - start[1]
    megapixels = TIMED**2 / 1e6
    return {
        "seconds_per_megapixel": round(clock / megapixels, 1),
        "cpu_seconds_per_megapixel": round(processors / megapixels, 1),
    }
