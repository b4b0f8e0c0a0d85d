"""The faces of an uploaded photo, to choose from by a click, a tick or a box drawn by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
import numpy as np
import torch

from studio import images
from studio.errors import ImageError, InputError
from studio.faces.draw import draw_choice, draw_cross
from studio.faces.select import parse
from studio.ui.common import fit, forget_unreadable, read, warn

CHOICE_SIDE = 800  # px, of the photo on which faces are chosen
CORNER = 6  # px, of the cross at the first corner


@dataclass
class Found:
    """The faces of an upload, to choose from.

    Attributes:
        pixels: the photo as shown, (3,H,W) uint8 RGB: it is kept for every visitor, so it is small.
        boxes: (N,4), x0, y0, x1, y1 in those pixels.
        given: (N,) bool, those that were marked by hand.
        scale: pixels of the photo for one of those.
        corner: (x, y) where a face that was not found begins, once the first corner is clicked; else None.
    """

    pixels: torch.Tensor
    boxes: np.ndarray
    given: np.ndarray
    scale: float = 1.0
    corner: tuple[int, int] | None = None


def preview(path: str | None) -> list[Any]:
    """The uploaded photo, as our loader reads it; an upload that is no usable photo is taken off and deleted."""
    nobody = gr.CheckboxGroup(choices=[], value=[], visible=False)
    nothing = [gr.Image(value=None, visible=False), "all", nobody, None, "", False, gr.Column(visible=True)]
    if path is None:
        return [gr.skip(), *nothing]
    try:
        photo = read(path)
    except ImageError as error:
        warn(error)
        forget_unreadable(path)
        return [None, *nothing]
    small = images.resize(photo.pixels, *fit(photo, CHOICE_SIDE)).mul(255).round().to(torch.uint8)
    found = Found(small, np.zeros((0, 4)), np.zeros(0, bool), photo.width / small.shape[2])
    return [gr.skip(), framed("all", found), "all", nobody, found, "", False, gr.Column(visible=False)]


def mark(faces: str | None, found: Found | None) -> list[Any]:
    """The photo with a frame around every face, and the faces to tick; those that will be restored stand out.

    Of one face there is nothing to choose.
    """
    if found is None:
        return [gr.skip(), gr.skip()]
    chosen = indices(faces, found)
    choices = [(f"Face {i + 1}", i) for i in range(len(found.boxes))]
    return [framed(faces, found), gr.CheckboxGroup(choices=choices, value=chosen, visible=len(choices) > 1)]


def framed(faces: str | None, found: Found) -> gr.Image:
    """The photo with a frame around every face, and a cross where the corner of another one was clicked."""
    picture = draw_choice(found.pixels / 255, found.boxes, indices(faces, found))
    if found.corner is not None:
        draw_cross(picture, found.corner, CORNER)
    return gr.Image(value=picture, visible=True)


def named(picked: list[int], found: Found | None) -> Any:
    """The choice of faces as the endpoint takes it, from the ticked ones; the last one cannot be taken out."""
    if found is None:
        return gr.skip()
    return "all" if len(picked) in (0, len(found.boxes)) else ",".join(map(str, sorted(picked)))


def click(faces: str | None, found: Found | None, marking: bool, boxes: str | None, event: gr.SelectData) -> list[Any]:
    """A click into the photo: chooses a face, or is a corner of one that was not found.

    Returns:
        For the choice of faces, the photo, `Found`, the tick box of marking, and the boxes as text.
    """
    if found is None or not marking:
        return [toggle(faces, found, event), gr.skip(), gr.skip(), gr.skip(), gr.skip()]
    x, y = event.index
    if found.corner is None:
        found = replace(found, corner=(x, y))
        return [gr.skip(), framed(faces, found), found, gr.skip(), gr.skip()]
    corners = np.array([found.corner, (x, y)])
    found = replace(found, corner=None)
    low, high = corners.min(0) * found.scale, corners.max(0) * found.scale
    if (high - low).min() < 1:  # a double click, say
        return [gr.skip(), framed(faces, found), found, gr.skip(), gr.skip()]
    box = ",".join(f"{value:.0f}" for value in (*low, *high))
    return [gr.skip(), gr.skip(), found, False, "; ".join(part for part in (boxes, box) if part)]


def toggle(faces: str | None, found: Found | None, event: gr.SelectData) -> Any:
    """The choice after a click into the photo: the smallest face under it is added, or taken out."""
    if found is None:
        return gr.skip()
    x, y = event.index
    inside = (found.boxes[:, :2] <= (x, y)).all(1) & (found.boxes[:, 2:] >= (x, y)).all(1)
    if not inside.any():
        return gr.skip()
    area = np.where(inside, (found.boxes[:, 2:] - found.boxes[:, :2]).prod(1), np.inf)
    return toggled(faces, int(area.argmin()), found)


def toggled(faces: str | None, index: int, found: Found) -> str:
    """A choice of faces with one more, or one less; the last one cannot be taken out."""
    chosen = sorted(set(indices(faces, found)) ^ {index})
    return "all" if len(chosen) in (0, len(found.boxes)) else ",".join(map(str, chosen))


def indices(faces: str | None, found: Found) -> list[int]:
    """The faces that a choice means, as far as it can be understood."""
    count = len(found.boxes)
    try:
        choice = parse(faces or "all")
    except InputError:
        return []
    if choice == "largest":
        areas = (found.boxes[:, 2:] - found.boxes[:, :2]).prod(1)
        return [int(areas.argmax())] if count else []
    if choice == "given":
        return np.flatnonzero(found.given).tolist()
    return list(range(count)) if choice == "all" else [i for i in choice if 0 <= i < count]
