"""TIFF: the directory is read here, the pixels are decoded by Pillow.

Left alone, Pillow opens 16-bit colour as 8 bits, turns the pixels itself (for this one format), and warns of odd tags.
"""

from __future__ import annotations

import io
import struct
import sys
from typing import Any

import numpy as np
from PIL import ImageFile, TiffImagePlugin

from studio.codecs import exif
from studio.codecs.about import About, tiff_pages
from studio.codecs.levels import Decoded, Limits, deflated, joined, levels_of, upright
from studio.errors import ImageError


class _Tiff(TiffImagePlugin.TiffImageFile):
    def load_prepare(self) -> None:
        """Skip the size warning (our own check came first)."""
        ImageFile.ImageFile.load_prepare(self)

    def load_end(self) -> None:
        """Skip Pillow's turning of the pixels: it is done once, for every format, in `_upright`."""


def read(data: bytes, limits: Limits) -> Decoded:
    """Decode the first page of a TIFF of any kind that Pillow knows, and of 16-bit colour."""
    tags = exif.unpack(data)
    page = tags.image
    if 50706 in page or data[8:10] == b"CR" or exif.number(page, 254) & 1:  # DNG, CR2, and NEF/ARW with a thumbnail
        raise ImageError(
            f"{limits.name} must be a finished photo, got camera raw data; export it as 16-bit TIFF or PNG"
        )
    limits.check(exif.number(page, 256), exif.number(page, 257))
    layout = {tag: item for tag, item in page.items() if tag in _LAYOUT}
    layout |= {tag: exif.Entry(page[tag].kind, page[tag].values[:1]) for tag in layout.keys() & _SINGLE}
    bits, bands = exif.number(layout, 258, 1), exif.number(layout, 277, 1)
    icc = page[exif.ICC_PROFILE].values.tobytes() if exif.ICC_PROFILE in page else None
    if bands == 1:
        layout.pop(284, None)  # one channel is one plane either way, but Pillow stumbles over "planes"
    if bands > 5:
        raise ImageError(f"{limits.name} must have at most 5 channels, got {bands}; export it as RGB")
    if bits == 16 and exif.number(layout, 262) == 2:
        levels = _deep(data, layout, bands)
    else:
        levels, icc = levels_of(_Tiff(_page(data, layout)), icc, limits)
        if levels.dtype == np.uint16 and bits == 12:
            levels = (levels.astype(np.uint32) * 65535 // 4095).astype(np.uint16)
        if levels.dtype == np.uint16 and exif.number(layout, 262) == 0:  # white is zero, which Pillow forgets at 16 bit
            levels = 65535 - levels
    return upright(levels, icc, tags, About(pages=max(len(tiff_pages(data)), 1)))


_SINGLE = {256, 257, 259, 262, 266, 277, 278, 284, 292, 293, 317, 322, 323}
_LAYOUT = _SINGLE | {258, 273, 279, 320, 324, 325, 338, 339, 347, 529, 530, 531, 532}


def _page(data: bytes, layout: exif.Directory) -> io.BytesIO:
    """The same file, its first directory replaced by one that only says where and how the pixels are stored."""
    order = "<" if data[:2] == b"II" else ">"
    at = len(data) + len(data) % 2
    directory = exif.write(exif.Tags(layout, {}, {}), at, order)
    return io.BytesIO(data[:4] + struct.pack(order + "I", at) + data[8:].ljust(at - 8, b"\0") + directory)


def _deep(data: bytes, layout: exif.Directory, bands: int) -> np.ndarray:
    if exif.number(layout, 284, 1) == 2:  # one plane per channel: each is a grey image
        planes = [np.asarray(_Tiff(_page(data, _plane(layout, k, bands)))) for k in range(bands)]
        levels = np.stack(planes, -1).astype(np.uint16)
    else:
        levels = joined(_bytes(data, layout, high=True), _bytes(data, layout, high=False))
    extra = exif.number(layout, 338, 2)  # 0 unspecified, 1 alpha multiplied in, 2 alpha
    if extra == 1 and bands == 4:
        alpha = np.maximum(levels[..., 3:], 1).astype(np.float32)
        levels[..., :3] = np.minimum(np.rint(levels[..., :3] * (65535 / alpha)), 65535)
    return levels[..., : 3 if extra == 0 else 4]


def _plane(layout: exif.Directory, index: int, bands: int) -> exif.Directory:
    plane = {tag: item for tag, item in layout.items() if tag not in (284, 338, 339)}
    plane |= {258: exif.entry(3, 16), 262: exif.entry(3, 1), 277: exif.entry(3, 1)}
    for tag in plane.keys() & {273, 279, 324, 325}:
        kind, values = plane[tag]
        count = len(values) // bands
        plane[tag] = exif.Entry(kind, values[index * count : (index + 1) * count])
    return plane


def _bytes(data: bytes, layout: exif.Directory, high: bool) -> np.ndarray:
    image = _Tiff(_page(data, layout))
    tile: Any = image.tile[0]
    # libtiff hands over samples in the machine's own order, the raw decoder in the file's
    little = sys.byteorder == "little" if tile[0] == "libtiff" else data[:2] == b"II"
    bands = tile[3][0].split(";")[0].replace("a", "A")  # "RGBa" would divide by alpha, in 8 bits
    raw = f"{bands};16{'L' if little == high else 'B'}"
    tiles: list[Any] = image.tile
    image.tile = [one._replace(args=(raw, *one.args[1:])) for one in tiles]
    return np.asarray(image)


def write(levels: np.ndarray, icc: bytes | None, tags: exif.Tags) -> bytes:
    """(H,W,C) uint8 or uint16 to a TIFF: deflate with horizontal differences, in strips of 64 rows."""
    if levels.shape[2] == 2 and levels.dtype == np.uint16:  # readers, Pillow among them, do not know 16-bit grey+alpha
        levels = levels[..., [0, 0, 0, 1]]
    height, width, channels = levels.shape
    levels = levels.astype(levels.dtype.newbyteorder("<"))
    levels[:, 1:] -= levels[:, :-1].copy()
    strips = [deflated(levels[top : top + 64]) for top in range(0, height, 64)]
    starts = np.cumsum([8, *map(len, strips)])
    bits = 8 * levels.itemsize
    image = tags.image | {
        256: exif.entry(4, width),
        257: exif.entry(4, height),
        258: exif.entry(3, *[bits] * channels),
        259: exif.entry(3, 8),
        262: exif.entry(3, 2 if channels >= 3 else 1),
        273: exif.entry(4, *starts[:-1]),
        277: exif.entry(3, channels),
        278: exif.entry(4, 64),
        279: exif.entry(4, *map(len, strips)),
        284: exif.entry(3, 1),
        317: exif.entry(3, 2),
    }
    if channels in (2, 4):
        image[338] = exif.entry(3, 2)
    if icc:
        image[exif.ICC_PROFILE] = exif.entry(7, *icc)
    pixels = b"".join(strips) + b"\0" * (starts[-1] % 2)
    at = 8 + len(pixels)
    return b"II*\0" + struct.pack("<I", at) + pixels + exif.write(tags._replace(image=image), at)
