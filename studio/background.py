"""What becomes of the photo around the faces: kept, enlarged by interpolation, or drawn anew by a network, in tiles.

Real-ESRGAN and SPAN draw four times as large. A tile's picture is brought to the size that is wanted at once, and laid
into the result with a ramp towards its neighbours: besides the result no more is held than one tile needs, and no
border shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from studio import images, weights
from studio.device import fast_bfloat16, quick
from studio.errors import InputError
from studio.networks.cleaner import STRIDE, Cleaner
from studio.networks.rrdb import RRDBNet
from studio.networks.span import SPAN
from studio.tone import tone_curve, with_tone

NETWORKS = ("span", "realesrgan")
CHOICES = ("none", "lanczos", *NETWORKS)
SCALES = (1, 1.5, 2, 3, 4)
OVERLAP = 16  # px of the photo that neighbouring tiles share
MARGIN = OVERLAP // 4  # of these next to a tile's border, where the network sees zeros, count nothing
AREA = 32  # px of the photo whose mean light is kept
TILES = {"cpu": 128, "mps": 256, "cuda": 512}  # px; on a CPU the maps of a larger one leave its caches

CLEAN_TILE, CLEAN_OVERLAP = 768, 96  # px of the photo, of what is cleaned at once

Drawer = Callable[[Tensor], Tensor]
OnTile = Callable[[int, int], None]


def check(background: str | Drawer, scale: float | str) -> None:
    """Refuse what `draw` cannot do, before anything is computed; a `scale` may also be the word "auto".

    Raises:
        InputError: with one line.
    """
    if isinstance(background, str):
        if background not in CHOICES:
            raise InputError(
                f"background must be one of {', '.join(CHOICES)}, or a function, got {background!r}: choose one of them"
            )
        if background == "none" and scale not in (1, "auto"):
            raise InputError(f"background 'none' keeps the photo's size, got scale {scale}: take 'lanczos', or scale 1")
    elif not callable(background):
        raise InputError(
            f"background must be one of {', '.join(CHOICES)}, or a function, got {type(background).__name__}: "
            "choose one of them"
        )


def draw(photo: Tensor, scale: float, background: str | Drawer) -> Tensor:
    """A photo (3,H,W) RGB in [0,1], exactly `scale` times as large, see `images.scaled_size`.

    Args:
        photo: see above.
        scale: of `SCALES`.
        background: "none" or "lanczos", an `Upsampler`, or another function that makes a (1,3,H,W) float32 RGB in [0,1]
            any number of times as large; what it returns is brought to the exact size.

    Raises:
        InputError: the function returned no picture.
    """
    if isinstance(background, str):
        return images.enlarge(photo, scale)
    if isinstance(background, Upsampler):
        return background(photo, scale)
    larger = background(photo[None])
    if not isinstance(larger, Tensor) or larger.shape[:2] != (1, 3) or larger.ndim != 4 or not larger.isfinite().all():
        raise InputError("background must return a finite tensor (1,3,H,W): pass a function that does")
    return images.resize(larger[0].to(photo).clamp(0, 1), *images.scaled_size(photo, scale))


class Upsampler:
    """Enlarges photos of any size with a network that draws four times as large.

    Args:
        network: (N,3,H,W) RGB in [0,1] to (N,3,4H,4W), on the device where it shall run.
        tile: side of a tile in px of the photo; None chooses by the device.
        on_tile: called with (tiles done, tiles in all) after each tile.
    """

    def __init__(self, network: RRDBNet | SPAN, tile: int | None = None, on_tile: OnTile | None = None) -> None:
        if tile is not None and tile < 4 * OVERLAP:
            raise InputError(f"tile must be at least {4 * OVERLAP} px, got {tile}: {TILES['cpu']} is usual on a CPU")
        self.network = network.to(memory_format=torch.channels_last)
        self.tile = tile or TILES.get(network.device.type, TILES["cpu"])
        self.on_tile = on_tile

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        on_tile: OnTile | None = None,
    ) -> Self:
        """The upsampler of a known name, "span" or "realesrgan".

        Args:
            name: see above.
            device: where it runs.
            dtype: None is bfloat16 where that is quick, and float32 elsewhere.
            on_tile: see the class.

        Raises:
            InputError: another name.
            MissingWeightsError: the weights could not be fetched.
        """
        if name not in NETWORKS:
            raise InputError(f"an upsampler must be one of {', '.join(NETWORKS)}, got {name!r}: choose one of them")
        dtype = dtype or (torch.bfloat16 if fast_bfloat16(torch.device(device).type) else torch.float32)
        return cls(nn.Module.to(weights.load(name), device=device, dtype=dtype), on_tile=on_tile)

    def __call__(self, pixels: Tensor, scale: float = 4) -> Tensor:
        """(1,3,H,W) or (3,H,W) RGB in [0,1] -> the same `scale` times as large: 1, 1.5, 2, 3 or 4, see `enlarge`.

        Raises:
            InputError: another scale or shape.
        """
        if scale not in SCALES:
            raise InputError(f"scale must be one of {', '.join(map(str, SCALES))}, got {scale}: choose one of them")
        if pixels.shape[:-3] not in ((), (1,)) or pixels.shape[-3:-2] != (3,):
            raise InputError(f"pixels must be (3,H,W) or (1,3,H,W), got {tuple(pixels.shape)}: pass one photo")
        photo = pixels.reshape(pixels.shape[-3:])
        made = self.enlarge(photo, *images.scaled_size(photo, scale))
        return made if pixels.ndim == 3 else made[None]

    @torch.inference_mode()
    def enlarge(self, photo: Tensor, height: int, width: int) -> Tensor:
        """A photo (3,H,W) RGB in [0,1] at any size up to four times its own: (3,height,width) float32 in [0,1].

        Large areas keep their light and colour; what is grey or sepia stays in exactly that tone.
        """
        rows, columns = (spans(*sides, self.tile) for sides in zip(photo.shape[1:], (height, width), strict=True))

        def draw(given: Tensor, row: Span, column: Span) -> Tensor:
            given = given.to(self.network.device, self.network.dtype).contiguous(memory_format=torch.channels_last)
            return sample(self.network(given)[0].float().cpu().clamp(0, 1), row, column)

        result = in_tiles(photo, rows, columns, draw, self.on_tile)
        photo = photo.float().cpu()
        return with_tone(keep_light(result, photo)[None], tone_curve(photo))[0].clamp_(0, 1)


@torch.inference_mode()
def clean(photo: Tensor, cleaner: Cleaner, on_tile: OnTile | None = None) -> Tensor:
    """A photo (3,H,W) RGB in [0,1] cleaned at its own size, in tiles: (3,H,W) float32, about [0,1].

    Args:
        photo: see above.
        cleaner: the network, on the device where it shall run.
        on_tile: called with (tiles done, tiles in all) after each tile.
    """
    rows, columns = (spans(side, side, CLEAN_TILE, CLEAN_OVERLAP) for side in photo.shape[1:])

    def draw(given: Tensor, row: Span, column: Span) -> Tensor:
        tall, wide = given.shape[2:]
        given = F.pad(given, (0, -wide % STRIDE, 0, -tall % STRIDE), mode="replicate")
        given = given.to(cleaner.device, cleaner.dtype).contiguous(memory_format=torch.channels_last)
        with quick(cleaner.device, cleaner.dtype):
            return cleaner(given).estimate[0, :, :tall, :wide].cpu()

    return in_tiles(photo, rows, columns, draw, on_tile)


def in_tiles(
    photo: Tensor,
    rows: Sequence[Span],
    columns: Sequence[Span],
    draw: Callable[[Tensor, Span, Span], Tensor],
    on_tile: OnTile | None,
) -> Tensor:
    """A picture (3,h,w) of a photo (3,H,W), put together of what `draw` makes of its tiles (1,3,a,b)."""
    result = torch.zeros(3, rows[-1].last, columns[-1].last)
    for done, (row, column) in enumerate(product(rows, columns), 1):
        given = photo[None, :, row.start : row.stop, column.start : column.stop]
        share = row.weight[:, None] * column.weight
        result[:, row.first : row.last, column.first : column.last] += share * draw(given, row, column)
        if on_tile:
            on_tile(done, len(rows) * len(columns))
    return result


def keep_light(drawn: Tensor, photo: Tensor) -> Tensor:
    """A drawn picture (3,h,w) with the light and colour that its photo (3,H,W) has in areas of `AREA` px.

    Networks brighten and darken what they clean, by up to a twentieth: faces put back would stand out from it.
    """
    grid = [max(1, side // AREA) for side in photo.shape[1:]]
    wanted, found = (F.interpolate(x[None], size=grid, mode="area") for x in (photo, drawn))
    change = F.interpolate(wanted - found, size=drawn.shape[1:], mode="bilinear", align_corners=False)
    return drawn + change[0]


@dataclass(frozen=True)
class Span:
    """Where a tile lies along one axis.

    Attributes:
        start, stop: in the photo.
        first, last: in the result, whose pixels from `first` up to `last` lie wholly inside the tile.
        box: their outer borders in px of the photo, from `start` on.
        weight: (last - first,), the share of this tile in them; those of all tiles sum to 1.
    """

    start: int
    stop: int
    first: int
    last: int
    box: tuple[float, float]
    weight: Tensor


def spans(length: int, size: int, tile: int, overlap: int = OVERLAP) -> list[Span]:
    """Cut an axis into tiles of one length, `tile` at most, that overlap.

    Args:
        length: of the photo.
        size: of the result.
        tile: see above.
        overlap: px of the photo; a quarter of it next to a tile's border counts nothing.
    """
    count = max(1, math.ceil((length - overlap) / (tile - overlap)))
    side = math.ceil((length + (count - 1) * overlap) / count)
    starts = [round(i * (length - side) / max(1, count - 1)) for i in range(count)]
    found = []
    for i, start in enumerate(starts):
        stop = start + side
        first, last = -(-start * size // length), stop * size // length
        centres = (torch.arange(first, last, dtype=torch.float64) + 0.5) * length / size
        weight = torch.ones(last - first, dtype=torch.float64)
        if i > 0:
            weight *= ramp(centres, start, starts[i - 1] + side, overlap)
        if i < count - 1:
            weight *= 1 - ramp(centres, starts[i + 1], stop, overlap)
        box = (first * length / size - start, last * length / size - start)
        found.append(Span(start, stop, first, last, box, weight.float()))
    return found


def ramp(centres: Tensor, start: int, stop: int, overlap: int) -> Tensor:
    """From 0 to 1 over the middle half of an overlap, from `start` to `stop` in px of the photo."""
    half = overlap / 4
    return ((centres - (start + stop) / 2) / (2 * half) + 0.5).clamp(0, 1)


def sample(drawn: Tensor, row: Span, column: Span) -> Tensor:
    """The pixels of the result that a tile's picture (3,4h,4w) covers, by Lanczos interpolation."""
    height, width = row.last - row.first, column.last - column.first
    scale = drawn.shape[1] // (row.stop - row.start)
    if (height, width) == tuple(drawn.shape[1:]):
        return drawn
    tall, wide = drawn.shape[1:]
    left, right = (min(scale * x, wide) for x in column.box)
    top, bottom = (min(scale * y, tall) for y in row.box)
    planes = [
        Image.fromarray(plane).resize((width, height), Image.Resampling.LANCZOS, (left, top, right, bottom))
        for plane in drawn.numpy()
    ]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes])).clamp(0, 1)
