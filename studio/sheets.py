"""Contact sheets: before and after side by side, for looking at results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from studio import images

LABEL = 18  # pixels above each row for its text
GAP = 6


def fit(pixels: Tensor, height: int) -> Tensor:
    """Resize (3,H,W) to a height, keeping its shape."""
    _, h, w = pixels.shape
    return images.resize(pixels, height, max(1, round(w * height / h))).clamp(0, 1)


def row(cells: Sequence[Tensor], height: int = 256) -> Tensor:
    """Pictures (3,H,W) of any size beside each other, all `height` high, with gaps -> (3,height,W)."""
    fitted = [F.pad(fit(cell.float().cpu(), height), (0, GAP), value=1.0) for cell in cells]
    return torch.cat(fitted, 2)


def write(path: Path, rows: Sequence[Sequence[Tensor]], labels: Sequence[str] | None = None, height: int = 256) -> None:
    """Write a `sheet` to an image file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet(rows, labels, height).save(path)


def sheet(rows: Sequence[Sequence[Tensor]], labels: Sequence[str] | None = None, height: int = 256) -> Image.Image:
    """Rows of pictures under one another, each with a line of text above.

    Args:
        rows: pictures (3,H,W) in [0,1].
        labels: one per row.
        height: of every picture on the sheet, in pixels.
    """
    drawn = [row(cells, height) for cells in rows]
    width = max(part.shape[2] for part in drawn)
    top = LABEL if labels else GAP
    canvas = Image.new("RGB", (width, sum(part.shape[1] + top for part in drawn)), "white")
    pen = ImageDraw.Draw(canvas)
    y = 0
    for i, part in enumerate(drawn):
        if labels:
            pen.text((4, y + 3), labels[i], fill="black")
        canvas.paste(images.to_pil(part), (0, y + top))
        y += part.shape[1] + top
    return canvas
