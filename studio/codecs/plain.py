"""PPM and its relatives, and TGA: formats that begin with a few numbers and go on with pixels."""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image, PpmImagePlugin, TgaImagePlugin

from studio.codecs.about import About
from studio.codecs.exif import Tags
from studio.codecs.levels import Decoded, Limits, from_pil

_HEADER = re.compile(rb"P([56])" + 3 * rb"(?:\s|#[^\n]*\n)+(\d{1,10})" + rb"\s", re.DOTALL)


def read_ppm(data: bytes, limits: Limits) -> Decoded:
    """Decode PBM, PGM, PPM; binary grey and colour keep 16 bits, which Pillow would make 8."""
    header = _HEADER.match(data)
    if header is None:
        image = PpmImagePlugin.PpmImageFile(io.BytesIO(data))
        limits.check(*image.size)
        return from_pil(image, limits)
    kind, width, height, top = (int(group) for group in header.groups())
    limits.check(width, height)
    if not 0 < top < 65536:
        raise ValueError(f"{top} is no largest level")
    bands, deep = (1, 3)[kind - 5], top > 255
    found = np.frombuffer(data, ">u2" if deep else "u1", width * height * bands, header.end())
    full = 65535 if deep else 255
    levels = np.rint(np.minimum(found, top) * (full / top)).astype(np.uint16 if deep else np.uint8)
    return Decoded(levels.reshape(height, width, bands), None, Tags({}, {}, {}), About())


def is_tga(head: bytes) -> bool:
    """Whether this is how a TGA begins. The format has no mark of its own, so every field must make sense."""
    if len(head) < 18:
        return False
    palette, kind, depth, flags = head[1], head[2], head[16], head[17]
    if palette == 0:
        fits = not any(head[3:8]) and (kind, depth) in {(k, d) for k in (2, 10) for d in (16, 24, 32)} | {
            (k, d) for k in (3, 11) for d in (8, 16)
        }
    else:
        fits = palette == 1 and kind in (1, 9) and depth == 8 and head[7] in (15, 16, 24, 32)
    return fits and flags < 64 and any(head[12:14]) and any(head[14:16])


def read_tga(data: bytes, limits: Limits) -> Decoded:
    """Decode a TGA."""
    image: Image.Image = TgaImagePlugin.TgaImageFile(io.BytesIO(data))
    limits.check(*image.size)
    return from_pil(image, limits)
