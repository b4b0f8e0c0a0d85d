"""Drawing what was found on the photo, to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from studio.faces.faces import Faces
from studio.faces.templates import FACE_OVAL, LEFT_EYE, LIPS, RIGHT_EYE
from studio.images import to_pil
from studio.tone import luma

BOX, POINT, LINE, TEXT, SHADOW = "#ffd21e", "#7fffd4", "#ffffff", "#ffffff", "#000000"
INVENTED, INVENTED_SHARE = (0.85, 0.1, 0.55), 0.65  # colour of what the prior drew, and how much it covers


def draw(pixels: Tensor, faces: Faces) -> Image.Image:
    """The photo with its faces marked: box, index and score, mesh points and outlines, pose in degrees.

    Args:
        pixels: (3,H,W) float RGB in [0,1].
        faces: its faces, in pixels of the photo.

    Returns:
        An RGB picture of the photo's size. Lines and letters grow with the photo and with each face.
    """
    picture = to_pil(pixels).convert("RGB")
    canvas = ImageDraw.Draw(picture)
    for i, face in enumerate(faces):
        _draw_face(canvas, i, face, stroke=max(1, round(max(picture.size) / 800)))
    return picture


def _draw_face(canvas: ImageDraw.ImageDraw, index: int, face: Faces, stroke: int) -> None:
    x0, y0, x1, y1 = face.boxes[0].tolist()
    xy = face.mesh[0, :, :2]
    dot = face.widths[0] / 300
    for x, y in xy.tolist():
        canvas.ellipse((x - dot, y - dot, x + dot, y + dot), fill=POINT)
    for outline in (FACE_OVAL, RIGHT_EYE, LEFT_EYE, LIPS):
        closed = np.concatenate([xy[list(outline)], xy[list(outline[:1])]])
        canvas.line([tuple(p) for p in closed.tolist()], fill=LINE, width=max(1, round(dot)))
    canvas.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=BOX, width=stroke)
    font = ImageFont.load_default(size=min(max(10.0, float(face.widths[0]) / 9), 20.0 * stroke))
    style: dict[str, Any] = {"font": font, "fill": TEXT, "stroke_width": stroke, "stroke_fill": SHADOW}
    canvas.text((x0 + 2 * stroke, y0 + stroke), f"{index}  {face.scores[0]:.2f}", **style)
    yaw, pitch, roll = face.pose[0]
    canvas.text((x0, y1 + stroke), f"yaw {yaw:+.0f}  pitch {pitch:+.0f}  roll {roll:+.0f}", **style)


def draw_choice(pixels: Tensor, boxes: np.ndarray, chosen: Sequence[int]) -> Image.Image:
    """The photo with a numbered frame around every face: thick and labelled where chosen, thin where not.

    Numbers begin with 1, and stand above the frame where there is room, so that they cover no face.

    Args:
        pixels: (3,H,W) float RGB in [0,1].
        boxes: (N,4), x0, y0, x1, y1 in pixels of the photo.
        chosen: indices of the chosen faces.
    """
    picture = to_pil(pixels).convert("RGB")
    canvas = ImageDraw.Draw(picture)
    stroke = max(2, round(max(picture.size) / 250))
    font = ImageFont.load_default(size=7.0 * stroke)
    for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        frame = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        canvas.rectangle(frame, outline=SHADOW, width=stroke + 2 if i in chosen else 3)
        canvas.rectangle(frame, outline=BOX if i in chosen else LINE, width=stroke if i in chosen else 1)
        label = f"{i + 1}" if i in chosen else f"{i + 1}, left out"
        above = frame[1] - 8.5 * stroke
        place = (max(frame[0], 0) + stroke + 1, above if above >= 0 else max(frame[1], 0) + stroke)
        canvas.text(place, label, font=font, fill=BOX if i in chosen else LINE, stroke_width=2, stroke_fill=SHADOW)
    return picture


def draw_invented(pixels: Tensor, invented: Tensor) -> Tensor:
    """The photo (3,H,W) in [0,1] in grey, and in colour where its detail was drawn by the prior.

    Args:
        pixels: the result.
        invented: (H,W) in [0,1], see `RestoreOutput.invented`.
    """
    grey = luma(pixels[None])[0].expand(3, -1, -1)
    return torch.lerp(grey, grey.new_tensor(INVENTED)[:, None, None].expand_as(grey), INVENTED_SHARE * invented)


def draw_cross(picture: Image.Image, place: tuple[int, int], reach: int) -> None:
    """Mark a place (x, y) of a picture, in the picture: lines of `reach` pixels to four sides."""
    canvas = ImageDraw.Draw(picture)
    x, y = place
    for width, colour in ((5, SHADOW), (3, BOX)):
        canvas.line((x - reach, y, x + reach, y), fill=colour, width=width)
        canvas.line((x, y - reach, x, y + reach), fill=colour, width=width)
