"""What a photo file says beside its pixels, profile and EXIF: resolution, texts, pages, and what is missing of it.

Texts are what archives write into PNG text chunks and JPEG comments: a title, a shelf mark, a note. XMP, IPTC and raw
EXIF blocks in such chunks are whole other metadata (they can repeat the place), and are left out.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from studio.codecs import exif

X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, DESCRIPTION = 282, 283, 296, 270
COMMENT = "Comment"
_LONGEST, _MOST = 16_384, 65_536  # bytes of one text, and of all
_FOREIGN = re.compile(r"xmp|iptc|exif|raw profile|icc|photoshop", re.IGNORECASE)
_PLACE = re.compile(r"gps|latitude|longitude|location", re.IGNORECASE)
_CODE = re.compile(r"%PDF-|<svg|<html|<script|<\?php", re.IGNORECASE)  # such a file would be refused as two in one

Texts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class About:
    """What a file says beside its pixels.

    Attributes:
        dpi: pixels an inch, across and down; None where the file does not say.
        texts: keyword and text of each PNG text chunk; a JPEG or GIF comment has the keyword "Comment".
        pages: pages or frames in the file, of which one was read.
        lacking: what of a damaged file could not be read, one line; empty for a whole one.
    """

    dpi: tuple[float, float] | None = None
    texts: Texts = ()
    pages: int = 1
    lacking: str = ""


def resolution(across: float, down: float) -> tuple[float, float] | None:
    """Pixels an inch, or None where the numbers cannot be meant (1 to 50000 can)."""
    if 1 <= across <= 50_000 and 1 <= down <= 50_000:
        return round(float(across), 2), round(float(down), 2)
    return None


def dpi_of(tags: exif.Tags) -> tuple[float, float] | None:
    """The resolution that an EXIF block or a TIFF directory states."""
    unit = {2: 1.0, 3: 2.54}.get(exif.number(tags.image, RESOLUTION_UNIT, 2))
    values = [tags.image[tag].values for tag in (X_RESOLUTION, Y_RESOLUTION) if tag in tags.image]
    if unit is None or len(values) < 2 or any(len(value) < 2 or not value[1] for value in values):
        return None
    across, down = (float(value[0]) / float(value[1]) * unit for value in values)
    return resolution(across, down)


def with_dpi(tags: exif.Tags, dpi: tuple[float, float] | None, always: bool) -> exif.Tags:
    """`tags` with this resolution where they state one, or in any case; without one where `dpi` is None."""
    rest = {t: item for t, item in tags.image.items() if t not in (X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT)}
    if dpi is None or not (always or len(rest) < len(tags.image)):
        return tags._replace(image=rest)
    across, down = (exif.entry(5, round(value * 100), 100) for value in dpi)
    stated = {X_RESOLUTION: across, Y_RESOLUTION: down, RESOLUTION_UNIT: exif.entry(3, 2)}
    return tags._replace(image=rest | stated)


def kept_texts(texts: list[tuple[str, str]]) -> Texts:
    """Those that go on with the photo: no foreign metadata, nothing that makes the file two files, not too long."""
    kept, size = [], 0
    for keyword, text in texts:
        length = len(keyword.encode()) + len(text.encode())
        if not keyword or not text or _FOREIGN.search(keyword) or _CODE.search(keyword + text):
            continue
        if length <= _LONGEST and size + length <= _MOST:
            kept.append((keyword, text))
            size += length
    return tuple(kept)


def public_texts(texts: Texts) -> Texts:
    """`texts` without those that say where the photo was taken."""
    return tuple(one for one in texts if not _PLACE.search(one[0]))


def comment_of(texts: Texts) -> bytes:
    """The texts as one comment, for formats that hold no more than that: a lone comment as it was."""
    lines = [text if keyword == COMMENT else f"{keyword}: {text}" for keyword, text in texts]
    return "\n".join(lines).encode()[:65_000]


def commented(data: bytes) -> list[tuple[str, str]]:
    """A comment's bytes as a text: UTF-8, or else Latin-1."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return [(COMMENT, text.rstrip("\0"))]


# ---- PNG


def png_text(kind: bytes, body: bytes) -> tuple[str, str] | None:
    """Keyword and text of a tEXt, zTXt or iTXt chunk (PNG, third edition, section 11.3.3), None for damaged ones."""
    keyword, _, rest = body.partition(b"\0")
    try:
        if kind == b"tEXt":
            return keyword.decode("latin-1"), rest.decode("latin-1")
        if kind == b"zTXt":
            return keyword.decode("latin-1"), _unpacked(rest[1:]).decode("latin-1")
        _, _, text = rest[2:].partition(b"\0")[2].partition(b"\0")
        return keyword.decode("latin-1"), (_unpacked(text) if rest[:1] == b"\1" else text).decode()
    except (UnicodeDecodeError, zlib.error):
        return None


def _unpacked(data: bytes) -> bytes:
    """At most a little more than is kept: what is longer is left out afterwards."""
    return zlib.decompressobj().decompress(data, _LONGEST + 1)


def png_chunks(dpi: tuple[float, float] | None, texts: Texts) -> list[tuple[bytes, bytes]]:
    """The chunks pHYs, tEXt and iTXt that say it."""
    chunks = []
    if dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in dpi), 1)))
    for keyword, text in texts:
        name = keyword.encode("latin-1", "replace")[:79] + b"\0"
        try:
            chunks.append((b"tEXt", name + text.encode("latin-1")))
        except UnicodeEncodeError:
            chunks.append((b"iTXt", name + b"\0\0\0\0" + text.encode()))
    return chunks


# ---- pages and frames


def gif_frames(data: bytes) -> int:
    """Frames of a GIF, as far as its blocks can be followed (GIF89a, section 20)."""
    at, frames = 13 + _palette(data[10]), 0
    try:
        while data[at] in (0x21, 0x2C):
            if data[at] == 0x2C:
                frames += 1
                at += 11 + _palette(data[at + 9])  # descriptor, palette, size of a code
            else:
                at += 2
            while data[at]:
                at += 1 + data[at]
            at += 1
    except IndexError:
        pass  # cut short: the first frame decides whether that matters
    return max(frames, 1)


def _palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 128 else 0


def webp_frames(data: bytes) -> int:
    """Frames of a WebP: its ANMF chunks."""
    at, frames = 12, 0
    while at + 8 <= len(data):
        frames += data[at : at + 4] == b"ANMF"
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    return max(frames, 1)


def tiff_pages(data: bytes) -> list[int]:
    """Offsets of a TIFF's pages, without reduced copies and masks (TIFF 6.0, tag 254); at most a thousand."""
    order = "<" if data[:2] == b"II" else ">"
    at, pages, seen = struct.unpack_from(order + "I", data, 4)[0], [], set()
    while 8 <= at <= len(data) - 6 and at not in seen and len(seen) < 1000:
        seen.add(at)
        page = exif.directory(data, at, order)
        if not exif.number(page, 254) & 5 and 256 in page:
            pages.append(at)
        end = at + 2 + 12 * struct.unpack_from(order + "H", data, at)[0]
        at = struct.unpack_from(order + "I", data, end)[0] if end + 4 <= len(data) else 0
    return pages
