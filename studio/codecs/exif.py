"""EXIF, which is a small TIFF: tag directories read, filtered for privacy, and written again.

Pillow can do this too, but it warns (process-wide, which a threaded server cannot silence safely) on every odd
directory, and it re-types values. Here an entry keeps its type and its numbers, and one that does not fit is skipped.
The same directories describe the pixels of a TIFF file, so the TIFF reader and writer stand on this too.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

PREFIX = b"Exif\0\0"
ORIENTATION, PHOTO_POINTER, GPS_POINTER, ICC_PROFILE = 274, 34665, 34853, 34675

# TIFF 6.0 section 2: field type -> (number type, numbers per value)
_TYPES = {
    1: ("u1", 1),
    2: ("u1", 1),
    3: ("u2", 1),
    4: ("u4", 1),
    5: ("u4", 2),
    6: ("i1", 1),
    7: ("u1", 1),
    8: ("i2", 1),
    9: ("i4", 1),
    10: ("i4", 2),
    11: ("f4", 1),
    12: ("f8", 1),
    13: ("u4", 1),
}
# What describes the photograph. Everything else in the first directory describes the old file's bytes, or is a whole
# other metadata block (XMP, IPTC, Photoshop) that can repeat the place.
_IMAGE_KEPT = {270, 271, 272, ORIENTATION, 282, 283, 296, 305, 306, 315, 18246, 33432, *range(40091, 40096)}
_PHOTO_KEPT = range(33434, 42300)
_PHOTO_STALE = {40962, 40963, 40965}  # old width, old height, pointer to the interoperability directory
_PHOTO_PRIVATE = {37500, 42032, 42033, 42037}  # maker note (may hold a place), owner's name, two serial numbers
_LARGEST = 24_000  # bytes; a JPEG holds 64 KB of EXIF, and only junk is larger than this


class Entry(NamedTuple):
    """One tag: the TIFF field type, and its numbers in one flat array (text is bytes, a rational is two numbers)."""

    kind: int
    values: np.ndarray


Directory = dict[int, Entry]


class Tags(NamedTuple):
    """The three directories that matter: the image's, the photograph's (EXIF proper) and the place (GPS)."""

    image: Directory
    photo: Directory
    gps: Directory


def entry(kind: int, *values: int) -> Entry:
    """An entry of field type `kind` (3: short, 4: long, 7: bytes, ...) holding `values`."""
    return Entry(kind, np.array(values, _TYPES[kind][0]))


def unpack(data: bytes) -> Tags:
    """Read an EXIF block, or the directory of a whole TIFF file's first page. Damaged parts come back empty."""
    while data.startswith(PREFIX):
        data = data[len(PREFIX) :]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 8:
        return Tags({}, {}, {})
    image = directory(data, struct.unpack_from(order + "I", data, 4)[0], order)
    inner = [directory(data, number(image, pointer), order) for pointer in (PHOTO_POINTER, GPS_POINTER)]
    return Tags(image, *inner)


def number(directory: Directory, tag: int, default: int = 0) -> int:
    """The first number of a tag, or `default` where the tag is missing or not a number."""
    value = directory[tag].values[0] if tag in directory else np.nan
    return int(value) if np.isfinite(value) else default


def orientation(tags: Tags) -> int:
    """How the stored pixels are turned, 1 (upright) to 8; anything else counts as upright."""
    turned = number(tags.image, ORIENTATION, 1)
    return turned if 1 <= turned <= 8 else 1


def kept(tags: Tags) -> Tags:
    """What goes on with a photo whose pixels stand upright: no thumbnail, no file layout, orientation 1."""
    image = {tag: item for tag, item in _small(tags.image).items() if tag in _IMAGE_KEPT}
    photo = {tag: item for tag, item in _small(tags.photo).items() if tag in _PHOTO_KEPT and tag not in _PHOTO_STALE}
    if ORIENTATION in image:
        image[ORIENTATION] = entry(3, 1)
    return Tags(image, photo, _small(tags.gps))


def public(tags: Tags) -> Tags:
    """`tags` without the place, the maker note, the owner's name and the serial numbers."""
    return Tags(tags.image, {tag: item for tag, item in tags.photo.items() if tag not in _PHOTO_PRIVATE}, {})


def pack(tags: Tags) -> bytes | None:
    """An EXIF block as JPEG stores it, or None where there is nothing to say or it is too large for a JPEG."""
    if not any(tags):
        return None
    data = PREFIX + b"II*\0" + struct.pack("<I", 8) + write(tags, 8)
    return data if len(data) < 65_000 else None


def write(tags: Tags, at: int, order: str = "<") -> bytes:
    """The directories as bytes that will stand at offset `at` (even) of a TIFF with byte order `order`."""
    image = {tag: item for tag, item in tags.image.items() if tag not in (PHOTO_POINTER, GPS_POINTER)}
    inner = {tag: part for tag, part in ((PHOTO_POINTER, tags.photo), (GPS_POINTER, tags.gps)) if part}
    image |= {pointer: entry(4, 0) for pointer in inner}
    end = at + len(_written(image, at, order))
    rest = b""
    for pointer, part in inner.items():
        image[pointer] = entry(4, end + len(rest))
        rest += _written(part, end + len(rest), order)
    return _written(image, at, order) + rest


def _small(directory: Directory) -> Directory:
    return {tag: item for tag, item in directory.items() if item.values.nbytes <= _LARGEST}


def directory(data: bytes, at: int, order: str) -> Directory:
    """The directory at offset `at` of a TIFF with byte order `order`, without the entries that do not fit."""
    found: Directory = {}
    if not 8 <= at <= len(data) - 2:
        return found
    count = struct.unpack_from(order + "H", data, at)[0]
    for start in range(at + 2, min(at + 2 + 12 * count, len(data) - 11), 12):
        tag, kind, length = struct.unpack_from(order + "HHI", data, start)
        if kind not in _TYPES or not length:
            continue
        name, per = _TYPES[kind]
        dtype = np.dtype(order + name)
        size = length * per * dtype.itemsize
        where = start + 8 if size <= 4 else struct.unpack_from(order + "I", data, start + 8)[0]
        if where + size <= len(data):
            found[tag] = Entry(kind, np.frombuffer(data, dtype, length * per, where))
    return found


def _written(directory: Directory, at: int, order: str) -> bytes:
    head, body = struct.pack(order + "H", len(directory)), b""
    start = at + 2 + 12 * len(directory) + 4
    for tag, (kind, values) in sorted(directory.items()):
        name, per = _TYPES[kind]
        raw = values.astype(order + name).tobytes()
        head += struct.pack(order + "HHI", tag, kind, len(values) // per)
        if len(raw) <= 4:
            head += raw.ljust(4, b"\0")
        else:
            head += struct.pack(order + "I", start + len(body))
            body += raw + b"\0" * (len(raw) % 2)
    return head + b"\0" * 4 + body
