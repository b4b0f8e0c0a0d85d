"""Photo files to arrays of levels and back. Private to `studio.images`, which is what everybody else calls.

Three habits of Pillow shape this package. `Image.open` warns about large images, and warnings cannot be silenced
safely in a threaded server: so the reader classes are called one by one, on files first cut down to the parts that
matter. It reads 16 bits per channel as 8: so such files are decoded twice, once keeping the high byte of every
sample and once the low byte. And it cannot write 16-bit colour at all: so PNG and TIFF have small writers here.
"""

from __future__ import annotations

import io
import re
import string
import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    WebPImagePlugin,
)

from studio.codecs import exif, plain, png, tiff
from studio.codecs.about import (
    DESCRIPTION,
    About,
    Texts,
    comment_of,
    gif_frames,
    public_texts,
    webp_frames,
    with_dpi,
)
from studio.codecs.levels import Decoded, Limits, from_pil, profile_for
from studio.errors import ImageError

__all__ = ["About", "Decoded", "Limits", "Texts", "decode", "encode", "from_pil", "profile_for", "public_texts"]

_READABLE = "JPEG, PNG, WebP, TIFF, BMP, AVIF, HEIC, GIF, JPEG 2000, PPM or TGA"


def decode(data: bytes, limits: Limits, *, salvage: bool = False) -> Decoded:
    """Decode a whole photo file; of several pages or frames, the first.

    Args:
        data: The file's bytes. The format is told from them, never from the name.
        limits: The name for messages, and the size that is accepted.
        salvage: Take what is there of a JPEG that lacks its end; `About.lacking` says what is not.

    Raises:
        ImageError: Not a photo, damaged, cut short, too small or too large.
    """
    kind = _sniff(data, limits)
    try:
        if salvage and kind == "JPEG":
            return _salvaged(data, limits)
        return _READERS[kind](data, limits)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"{limits.name} must fit in memory, got too large a {kind} image; make it smaller") from error
    except Exception as error:  # a damaged file makes decoders raise nearly anything
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise ImageError(
            f"{limits.name} must be a whole {kind} file, got a damaged, cut short or unusual one ({reason}); "
            "copy it again from where it came, or save it anew as PNG"
        ) from error


def _sniff(data: bytes, limits: Limits) -> str:
    head = data[:1024]
    kind = next((kind for magic, kind in _MAGIC if re.match(magic, head, re.DOTALL)), None)
    if kind is None and plain.is_tga(head) and not any(re.match(magic, head, re.DOTALL) for magic, _ in _OTHERS):
        kind = "TGA"
    if kind is None:
        raise ImageError(f"{limits.name} must be a {_READABLE} photo, got {_described(head)}; export it as PNG or JPEG")
    second = re.search(rb"%PDF-|<svg|<html|<script|<\?php", head, re.IGNORECASE)
    if second or _ends_as_zip(data):
        other = second[0].decode("ascii", "replace") if second else "a zip archive"
        raise ImageError(
            f"{limits.name} must be a photo and nothing else, got a {kind} that is also {other}; save it anew as PNG"
        )
    return kind


def _ends_as_zip(data: bytes) -> bool:
    at = data.rfind(b"PK\5\6", max(0, len(data) - 65_557))
    return 0 <= at <= len(data) - 22 and at + 22 + int.from_bytes(data[at + 20 : at + 22], "little") == len(data)


def _described(head: bytes) -> str:
    if not head:
        return "an empty file"
    if found := next((what for magic, what in _OTHERS if re.match(magic, head, re.DOTALL | re.IGNORECASE)), None):
        return found
    return "text" if all(byte in string.printable.encode() or byte > 127 for byte in head) else "an unknown format"


_MAGIC = [
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"GIF8[79]a", "GIF"),
    (rb"BM.{12}[\x0c-\x7c]\0\0\0", "BMP"),
    (rb"II\*\0|MM\0\*", "TIFF"),
    (rb"RIFF....WEBP", "WebP"),
    (rb"\0\0\0.ftyp(?:.{4}){0,20}?avi[fs]", "AVIF"),
    (rb"\0\0\0.ftyp(?:.{4}){0,20}?(?:heic|heix|heim|heis|hevc|mif1)", "HEIC"),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"P[1-6][\s#]", "PPM"),
]
_OTHERS = [
    (rb"(?:\xef\xbb\xbf)?\s*<.*?svg", "an SVG drawing"),
    (rb"(?:\xef\xbb\xbf)?\s*<", "a web page or XML"),
    (rb"%PDF", "a PDF"),
    (rb"PK\x03\x04", "a zip archive or office document"),
    (rb"8BPS", "a Photoshop document"),
    (rb"II\+\0|MM\0\+", "a BigTIFF"),
    (rb"\0\0\0.ftyp", "a video"),
    (rb"\xff\x0a|\0\0\0\x0cJXL", "JPEG XL"),
]


class _Jpeg(JpegImagePlugin.JpegImageFile):
    def _read_dpi_from_exif(self) -> None:
        """Leave the EXIF alone: Pillow would parse it for a value nobody here asks for, and warn when it is odd."""


def _simple(
    reader: Callable[[io.BytesIO], Image.Image], pages: Callable[[bytes], int] = lambda _: 1
) -> Callable[[bytes, Limits], Decoded]:
    def read(data: bytes, limits: Limits) -> Decoded:
        image = reader(io.BytesIO(data))
        limits.check(*image.size)
        decoded = from_pil(image, limits)
        return replace(decoded, about=replace(decoded.about, pages=pages(data)))

    return read


def _salvaged(data: bytes, limits: Limits) -> Decoded:
    """A JPEG that may lack its end. The decoder fills what is missing: grey blocks, or blur where it is progressive."""
    try:
        return _READERS["JPEG"](data, limits)
    except ImageError:
        raise
    except OSError:  # what Pillow raises at the end of the file
        try:
            decoded = _READERS["JPEG"](data + b"\xff\xd9", limits)
        except OSError:  # cut within the head of a later scan, which is left out
            whole = max(data.rfind(b"\xff\xc4"), data.rfind(b"\xff\xda"))
            decoded = _READERS["JPEG"](data[:whole] + b"\xff\xd9", limits)
    blank = np.asarray((np.abs(decoded.levels.astype(np.int16) - 128) <= 1).all((1, 2)))
    rows = len(blank) - 1 - int(np.flatnonzero(~blank).max(initial=-1))
    if rows == len(blank):
        raise ValueError("nothing of the picture is there")
    what = f"its last {rows} of {len(blank)} rows of pixels" if rows else "its end, and with it detail"
    return replace(decoded, about=replace(decoded.about, lacking=f"the file is cut short and lacks {what}"))


def _gif(stream: io.BytesIO) -> Image.Image:
    """Open a GIF, unless its first frame sticks out of its screen: Pillow would grow the screen, and warn."""
    data = stream.getvalue()
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 128 else 0)
    while data[at] == 0x21:
        at += 2
        while data[at]:
            at += 1 + data[at]
        at += 1
    left, top, width, height = struct.unpack_from("<4H", data, at + 1)
    screen = struct.unpack_from("<2H", data, 6)
    if left + width > screen[0] or top + height > screen[1] or screen[0] * screen[1] > 64_000_000:
        raise ValueError("first frame and screen do not fit")
    return GifImagePlugin.GifImageFile(stream)


def _read_avif(data: bytes, limits: Limits) -> Decoded:
    # The EXIF is read here and blanked, so that Pillow does not parse it; Pillow then reports only how the container
    # itself (which is what counts in this format) turns the picture.
    found = re.search(rb"\0\0\0(?:\0|\x06Exif\0\0)((?:II\*\0|MM\0\*).{10})", data, re.DOTALL)
    if found:
        tags = exif.unpack(data[found.start(1) :])
        data = data[: found.start(1)] + b"II*\0\x08\0\0\0" + bytes(6) + data[found.end(1) :]
    image = AvifImagePlugin.AvifImageFile(io.BytesIO(data))
    limits.check(*image.size)
    turned = exif.unpack(image.info.get("exif", b""))
    if found:
        turned = tags._replace(image=tags.image | {exif.ORIENTATION: exif.entry(3, exif.orientation(turned))})
    decoded = from_pil(image, limits, turned)
    return replace(decoded, about=replace(decoded.about, pages=getattr(image, "n_frames", 1)))


def _read_heic(data: bytes, limits: Limits) -> Decoded:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise ImageError(
            f"{limits.name} must be readable here, got HEIC without its reader; "
            "install the extra `heic` (the package pillow-heif), or export the photo as JPEG"
        ) from error
    return _simple(HeifImageFile)(data, limits)


_READERS: dict[str, Callable[[bytes, Limits], Decoded]] = {
    "JPEG": _simple(_Jpeg),
    "PNG": png.read,
    "GIF": _simple(_gif, gif_frames),
    "BMP": _simple(BmpImagePlugin.BmpImageFile),
    "TIFF": tiff.read,
    "WebP": _simple(WebPImagePlugin.WebPImageFile, webp_frames),
    "AVIF": _read_avif,
    "HEIC": _read_heic,
    "JPEG 2000": _simple(Jpeg2KImagePlugin.Jpeg2KImageFile),
    "PPM": plain.read_ppm,
    "TGA": plain.read_tga,
}


def encode(
    levels: np.ndarray, kind: str, icc: bytes | None, tags: exif.Tags, quality: int, about: About | None = None
) -> bytes:
    """(H,W,C) uint8 (PNG and TIFF: or uint16) to the bytes of a file, `kind` as Pillow names them.

    Resolution and texts go where the format has a place for them: JPEG, PNG and BMP of their own, the others in EXIF.
    """
    about = about or About()
    tags = with_dpi(tags, about.dpi, kind in ("TIFF", "WEBP", "AVIF"))
    if kind in ("TIFF", "WEBP", "AVIF") and about.texts and DESCRIPTION not in tags.image:
        tags = tags._replace(image=tags.image | {DESCRIPTION: exif.entry(2, *comment_of(about.texts), 0)})
    if kind == "TIFF":
        return tiff.write(levels, icc, tags)
    if levels.dtype == np.uint16:
        return png.write(levels, icc, tags, about.dpi, about.texts)
    options: dict[str, object] = {"icc_profile": icc} if icc else {}
    if kind == "AVIF":  # it stores the orientation in the container; said twice, readers differ
        tags = tags._replace(image={tag: item for tag, item in tags.image.items() if tag != exif.ORIENTATION})
    if block := exif.pack(tags):
        options["exif"] = block
    if about.dpi and kind in ("JPEG", "BMP"):
        options["dpi"] = about.dpi
    if about.texts and kind == "JPEG":
        options["comment"] = comment_of(about.texts)
    if kind in ("JPEG", "WEBP", "AVIF"):
        options["quality"] = quality
    if kind in ("JPEG", "AVIF") and quality >= 90 and levels.shape[2] >= 3:
        options["subsampling"] = "4:4:4"
    stream = io.BytesIO()
    Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels).save(stream, kind, **options)
    data = stream.getvalue()
    return png.stating(data, about.dpi, about.texts) if kind == "PNG" else data
