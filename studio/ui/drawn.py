"""Draws the app's icon and the picture beside a shared link: `python -m studio.ui.drawn`.

The picture is one of the examples, a generated person in a damaged photograph, and the same restored with the
committed weights.
"""

from __future__ import annotations

import sys

from PIL import Image, ImageDraw

from studio import RestorePipeline, images
from studio.ui.common import EXAMPLES
from studio.ui.front import ASSETS, ICON, PREVIEW, PREVIEW_SIZE

TEAL, PALE = (15, 118, 110), (240, 253, 250)
SIDE, FINE = 192, 4  # px of the icon, and how much larger it is drawn


def icon() -> Image.Image:
    """A face, half of it in coarse squares and half of it smooth."""
    side = SIDE * FINE
    face = Image.new("RGB", (side, side), TEAL)
    draw = ImageDraw.Draw(face)
    draw.ellipse([side * x for x in (0.22, 0.12, 0.78, 0.88)], fill=PALE)
    for x in (0.36, 0.58):
        draw.ellipse([side * x, side * 0.40, side * (x + 0.06), side * 0.46], fill=TEAL)
    draw.arc([side * x for x in (0.36, 0.50, 0.64, 0.74)], 20, 160, fill=TEAL, width=side // 28)
    coarse = face.resize((12, 12), Image.Resampling.BOX).resize((side, side), Image.Resampling.NEAREST)
    face.paste(coarse.crop((0, 0, side // 2, side)), (0, 0))
    round_off = Image.new("L", (side, side))
    ImageDraw.Draw(round_off).rounded_rectangle([0, 0, side, side], side // 5, fill=255)
    face.putalpha(round_off)
    return face.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def preview() -> Image.Image:
    """A photograph before and after, side by side."""
    photo = images.load(EXAMPLES / "portrait.jpg")
    after = RestorePipeline.from_pretrained("restore")(photo, output_type="pt").photos[0]
    width, height = PREVIEW_SIZE
    picture = Image.new("RGB", PREVIEW_SIZE, PALE)
    for pixels, left in ((photo.pixels, 0), (after.pixels, width // 2)):
        half = images.to_pil(pixels)
        side = min(half.size)
        share = side * (width // 2) / height
        box = ((half.width - share) / 2, (half.height - side) / 2, (half.width + share) / 2, (half.height + side) / 2)
        picture.paste(half.resize((width // 2, height), Image.Resampling.LANCZOS, box), (left, 0))
    ImageDraw.Draw(picture).line([(width // 2, 0), (width // 2, height)], fill=PALE, width=6)
    return picture


if __name__ == "__main__":
    ASSETS.mkdir(exist_ok=True)
    for made, path in ((icon(), ICON), (preview(), PREVIEW)):
        made.save(path, optimize=True, quality=88)
        sys.stderr.write(f"{path}\n")
