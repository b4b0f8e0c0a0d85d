"""A motion as curves over time, to look at."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from studio.motion.expression import eyes, opening, smile
from studio.motion.motion import Motion
from studio.motion.smooth import stretches

WIDTH, HEIGHT = 900, 110  # px of a panel
LEFT, TOP = 64, 24  # px beside and above its curves
COLOURS = ((31, 99, 178), (204, 80, 30), (60, 140, 60))
GREY, PALE, BLACK = (150, 150, 150), (228, 228, 228), (30, 30, 30)


def curves(motion: Motion) -> dict[str, dict[str, np.ndarray]]:
    """What a motion does as numbers: panel to the names of its curves to their values (T,)."""
    turns = dict(zip(("yaw", "pitch", "roll"), motion.angles.T, strict=True))
    return {
        "head, degrees": turns,
        "mouth opening": {"mouth": opening(motion.mesh)},
        "eye opening": {"eyes": eyes(motion.mesh)},
        "mouth width": {"smile": smile(motion.mesh)},
        "gaze": {"to the right": motion.gaze[:, 0], "down": motion.gaze[:, 1]},
    }


def draw(motion: Motion) -> Image.Image:
    """The curves of a motion, one panel below another; pale where no face is seen, a grey line at each cut."""
    panels = curves(motion)
    picture = Image.new("RGB", (WIDTH, HEIGHT * len(panels) + TOP), "white")
    for row, (name, lines) in enumerate(panels.items()):
        panel(ImageDraw.Draw(picture), row * HEIGHT, name, lines, motion)
    for share in np.linspace(0, 1, 5):
        seconds = motion.times[0] + share * (motion.times[-1] - motion.times[0])
        place = (LEFT + share * (WIDTH - LEFT - 48), HEIGHT * len(panels) + 2)
        ImageDraw.Draw(picture).text(place, f"{seconds:.1f} s", BLACK, ImageFont.load_default(12))
    return picture


def panel(pen: ImageDraw.ImageDraw, top: int, name: str, lines: dict[str, np.ndarray], motion: Motion) -> None:
    """One panel."""
    font = ImageFont.load_default(12)
    low, high = bounds(lines)
    upper, lower = top + TOP, top + HEIGHT - 4

    def x(times: np.ndarray) -> np.ndarray:
        start, whole = motion.times[0], max(motion.times[-1] - motion.times[0], 1e-9)
        return LEFT + (times - start) / whole * (WIDTH - LEFT - 8)

    def y(values: np.ndarray) -> np.ndarray:
        return lower - (values - low) / (high - low) * (lower - upper)

    across, seen = x(motion.times), motion.presence >= 0.5
    for at in across[~seen]:
        pen.line([at, upper, at, lower], PALE)
    for at in across[motion.cuts]:
        pen.line([at, upper, at, lower], GREY, 2)
    pen.rectangle([LEFT, upper, WIDTH - 8, lower], outline=PALE)
    if low < 0 < high:
        pen.line([LEFT, y(np.zeros(1))[0], WIDTH - 8, y(np.zeros(1))[0]], GREY)
    pen.text((LEFT, top + 6), name, BLACK, font)
    for value, place in ((high, upper - 6), (low, lower - 8)):
        pen.text((4, place), f"{value:.3g}", BLACK, font)
    for k, (label, values) in enumerate(lines.items()):
        if len(lines) > 1:
            pen.text((LEFT + 150 + 90 * k, top + 6), label, COLOURS[k], font)
        for part in stretches(motion):
            points = np.stack([across[part], y(values[part])], 1)
            pen.line([tuple(point) for point in points.tolist()], COLOURS[k], 2)


def bounds(lines: dict[str, np.ndarray]) -> tuple[float, float]:
    """The least and the largest value of curves, with some space around them."""
    values = np.concatenate(list(lines.values()))
    low, high = float(values.min()), float(values.max())
    space = max(0.08 * (high - low), 0.02 * max(abs(low), abs(high)), 1e-3)
    return low - space, high + space
