"""PNG: read chunk by chunk, because Pillow opens 16-bit colour as 8 bits and warns about damaged animations."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, PngImagePlugin

from studio.codecs import exif
from studio.codecs.about import About, Texts, kept_texts, png_chunks, png_text, resolution
from studio.codecs.levels import Decoded, Limits, deflated, joined, levels_of, upright

_PROFILE_LIMIT = 16 << 20  # bytes an ICC profile may unpack to


def read(data: bytes, limits: Limits) -> Decoded:
    """Decode a PNG of any kind."""
    limits.check(*struct.unpack_from(">II", data, 16))
    chunks = list(_chunks(data))
    parts = {kind: b"".join(body for name, body in chunks if name == kind) for kind, _ in chunks}
    depth, colour, _, _, interlaced = parts[b"IHDR"][8:13]
    icc = None
    if b"iCCP" in parts:
        icc = zlib.decompressobj().decompress(parts[b"iCCP"].split(b"\0", 1)[1][1:], _PROFILE_LIMIT)
    if depth == 16:
        levels = _deep(parts, colour, interlaced)
    else:
        # Animation and text chunks are left out: they are no part of the picture, and bombs hide in them.
        plain = data[:8] + b"".join(_chunk(kind, body) for kind, body in chunks if kind in _PICTURE)
        levels, icc = levels_of(PngImagePlugin.PngImageFile(io.BytesIO(plain)), icc, limits)
    return upright(levels, icc, exif.unpack(parts.get(b"eXIf", b"")), _about(chunks))


def _about(chunks: list[tuple[bytes, bytes]]) -> About:
    """Resolution, texts and frames (an animated PNG counts them in acTL)."""
    found = dict(chunks)
    dpi = None
    if len(found.get(b"pHYs", b"")) == 9 and found[b"pHYs"][8] == 1:
        dpi = resolution(*(value * 0.0254 for value in struct.unpack_from(">II", found[b"pHYs"])))
    texts = [png_text(kind, body) for kind, body in chunks if kind in (b"tEXt", b"zTXt", b"iTXt")]
    frames = struct.unpack_from(">I", found[b"acTL"])[0] if len(found.get(b"acTL", b"")) == 8 else 1
    return About(dpi, kept_texts([one for one in texts if one]), max(frames, 1))


_PICTURE = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        sound = data[at + 8 + length : at + 12 + length] == struct.pack(">I", zlib.crc32(kind + body))
        if sound:
            yield kind, body
        elif kind in _PICTURE:
            raise ValueError(f"bad checksum in {kind.decode()}")
        elif at + 12 + length > len(data):
            raise ValueError("the file ends too early")
        at += 12 + length


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _deep(parts: dict[bytes, bytes], colour: int, interlaced: int) -> np.ndarray:
    size = struct.unpack_from(">II", parts[b"IHDR"])

    def part(mode: str, raw: str) -> np.ndarray:
        image = Image.frombytes(mode, size, parts[b"IDAT"], "zip", raw, interlaced)
        return np.asarray(image).reshape(size[1], size[0], -1)

    if colour == 0:
        levels = part("I;16", "I;16B").astype(np.uint16)
    elif colour == 4:  # grey + alpha: four bytes a pixel, so reading "RGBA" keeps them all
        levels = part("RGBA", "RGBA").view(">u2").astype(np.uint16)
    else:
        mode = {2: "RGB", 6: "RGBA"}[colour]
        levels = joined(part(mode, f"{mode};16B"), part(mode, f"{mode};16L"))
    if b"tRNS" in parts and colour in (0, 2):
        clear = (levels == np.frombuffer(parts[b"tRNS"], ">u2")).all(-1, keepdims=True)
        levels = np.concatenate([levels, np.where(clear, 0, 65535).astype(np.uint16)], -1)
    return levels


def write(
    levels: np.ndarray,
    icc: bytes | None,
    tags: exif.Tags,
    dpi: tuple[float, float] | None = None,
    texts: Texts = (),
) -> bytes:
    """(H,W,C) uint16 to a PNG. Every row is stored as its difference to the one above (filter "up")."""
    height, width, channels = levels.shape
    rows = levels.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.full((height, rows.shape[1] + 1), 2, np.uint8)
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 16, (0, 4, 2, 6)[channels - 1], 0, 0, 0)
    chunks = [(b"IHDR", header)]
    if icc:
        chunks.append((b"iCCP", b"icc\0\0" + zlib.compress(icc)))
    chunks += png_chunks(dpi, texts)
    if block := exif.pack(tags):
        chunks.append((b"eXIf", block[len(exif.PREFIX) :]))
    chunks += [(b"IDAT", deflated(filtered)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def stating(data: bytes, dpi: tuple[float, float] | None, texts: Texts) -> bytes:
    """A PNG file with chunks that state resolution and texts, right behind its header."""
    chunks = png_chunks(dpi, texts)
    return data[:33] + b"".join(_chunk(*chunk) for chunk in chunks) + data[33:]
