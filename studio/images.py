"""The only place where pixels change type: files, bytes, Pillow images, arrays and tensors in; photos and files out.

Everything in the studio works on float32 RGB in [0,1], (3,H,W), upright. What a photo has besides its pixels (alpha,
colour profile, EXIF, bit depth, being grey) travels beside them in `Photo` and is put back by `save`. The pixels stay
in the photo's own RGB colour space; only CMYK and LAB are converted (to sRGB). XMP and IPTC blocks are never kept:
they can repeat the place and the names that were dropped elsewhere.
"""

from __future__ import annotations

import math
import os
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from studio import codecs
from studio.codecs import exif
from studio.errors import ImageError, InputError
from studio.folders import SUFFIXES, find_images

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "Photo",
    "Source",
    "as_type",
    "batch",
    "encode",
    "enlarge",
    "find_images",
    "is_batch",
    "load",
    "resize",
    "save",
    "scaled_size",
    "to_numpy",
    "to_pil",
    "write",
]

MAX_PIXELS = 100_000_000

_KINDS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".avif": "AVIF",
}
_LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383, "AVIF": 65_536}

Source = str | Path | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray | Tensor


@dataclass(frozen=True, eq=False)
class Photo:
    """One upright photo and what must survive its editing.

    Attributes:
        pixels: (3,H,W) float32 RGB in [0,1], on the CPU, in the colour space of `icc`.
        alpha: (1,H,W) float32 in [0,1], 0 transparent; None where the photo has no alpha.
        icc: Colour profile; None means sRGB.
        exif: EXIF block with orientation 1, without thumbnail; it still holds the place, which `save` drops.
        bits: 8 or 16 per channel in the source.
        grey: Whether the source had no colour channels.
        name: For messages and reports: the file's name, or "image".
        dpi: Pixels an inch of the scan, across and down; None where the source does not say.
        texts: Keyword and text of PNG text chunks; a JPEG or GIF comment is "Comment".
        pages: Pages or frames of the source, of which this is the first.
        lacking: What a salvaged source lacks, one line; empty for a whole one.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    bits: int = 8
    grey: bool = False
    name: str = "image"
    dpi: tuple[float, float] | None = None
    texts: codecs.Texts = ()
    pages: int = 1
    lacking: str = ""

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other."""
        shape = tuple(self.pixels.shape)
        if len(shape) != 3 or shape[0] != 3 or self.pixels.dtype != torch.float32:
            raise ImageError(f"pixels must be (3,H,W) float32, got {shape} {self.pixels.dtype}; use load()")
        if self.alpha is not None and tuple(self.alpha.shape) != (1, *shape[1:]):
            raise ImageError(f"alpha must be (1,{shape[1]},{shape[2]}), got {tuple(self.alpha.shape)}; resize it")
        for part, values in (("pixels", self.pixels), ("alpha", self.alpha)):
            if values is not None and values.numel():
                _in_unit(values, f"{part} of {self.name}")
        if self.bits not in (8, 16):
            raise ImageError(f"bits must be 8 or 16, got {self.bits}; use 16 for deep photos")

    @property
    def height(self) -> int:
        """Height in px."""
        return self.pixels.shape[1]

    @property
    def width(self) -> int:
        """Width in px."""
        return self.pixels.shape[2]

    def with_pixels(self, pixels: Tensor) -> Photo:
        """The same photo with other pixels; where the size changed, the alpha is resized and the dpi follows.

        So a scan prints at the size of the original, however much it is enlarged.

        Args:
            pixels: (3,H,W) or (1,3,H,W), any float type and device, RGB; values beyond [0,1] are cut off.

        Raises:
            ImageError: Another shape or type, or not finite.
        """
        pixels = _checked(pixels, self.name).clamp(0, 1)
        alpha = self.alpha
        if alpha is not None and alpha.shape[1:] != pixels.shape[1:]:
            alpha = resize(alpha, *pixels.shape[1:])
        dpi, (_, height, width) = self.dpi, pixels.shape
        if dpi:
            dpi = round(dpi[0] * width / self.width, 2), round(dpi[1] * height / self.height, 2)
        return replace(self, pixels=pixels, alpha=alpha, dpi=dpi)


def load(source: Source | Photo, *, max_pixels: int = MAX_PIXELS, salvage: bool = False) -> Photo:
    """Read a photo from wherever it is.

    Args:
        source: A path, the bytes of a file, a binary file object, a Pillow image, an array (H,W), (H,W,1), (H,W,3) or
            (H,W,4) of uint8, uint16 or float in [0,1], a tensor (3,H,W) or (1,3,H,W) of uint8 or float in [0,1], or a
            Photo (returned as it is). Files may be JPEG, PNG, WebP, TIFF, BMP, AVIF, HEIC (extra `heic`), GIF,
            JPEG 2000, PPM or TGA; of several pages or frames the first is taken. The content counts, not the suffix.
        max_pixels: Larger images are refused; for files, before anything is decoded.
        salvage: Take what is there of a JPEG that lacks its end, and say so in `Photo.lacking`.

    Returns:
        The photo, upright: an EXIF orientation was applied, and is 1 in what is kept.

    Raises:
        ImageError: Not readable, not a photo, damaged, wrong type or shape, not finite, under 4 px, or too large.
    """
    if isinstance(source, Photo):
        return source
    name = _name(source)
    limits = codecs.Limits(repr(name), max_pixels)
    if isinstance(source, Tensor):
        pixels = _checked(source if source.dtype != torch.uint8 else source / 255, name)
        limits.check(pixels.shape[2], pixels.shape[1])
        return Photo(_unit(pixels, name), name=name)
    if isinstance(source, np.ndarray):
        return _from_array(source, limits, name)
    if isinstance(source, Image.Image):
        limits.check(*source.size)
        return _photo(_from_pil(source, limits), name)
    return _photo(codecs.decode(_read(source, limits), limits, salvage=salvage), name)


def is_batch(source: object) -> bool:
    """Whether it is several photos: a list or tuple, an array (B,H,W,C) or a tensor (B,3,H,W)."""
    return isinstance(source, list | tuple) or (isinstance(source, np.ndarray | Tensor) and source.ndim == 4)


def batch(source: Source | Photo | Sequence[Source | Photo] | np.ndarray | Tensor) -> list[Source | Photo]:
    """The photos that a caller hands over, each as `load` takes it; of an array or tensor, one for each of its first.

    Raises:
        ImageError: there is none in it.
    """
    photos: list[Any] = list(cast(Any, source)) if is_batch(source) else [source]
    if not photos:
        raise ImageError("there must be at least one photo, got an empty list: give one")
    return photos


def save(photo: Photo | Source, path: str | Path, *, keep_gps: bool = False, quality: int = 95) -> Path:
    """Write a photo, all of it or nothing (a file of that name is replaced only when the new one is complete).

    Args:
        photo: A Photo, or anything `load` takes.
        path: The suffix says the format, as for `encode`. A missing folder is made.
        keep_gps: As for `encode`.
        quality: As for `encode`.

    Returns:
        The path.

    Raises:
        ImageError: As for `encode`, or the file cannot be written there.
        InputError: A quality outside 1 to 100.
    """
    path = Path(path)
    return write(encode(photo, path.suffix, keep_gps=keep_gps, quality=quality), path)


def write(data: bytes, path: str | Path, part: Path | None = None) -> Path:
    """Write the bytes of a photo, as `encode` makes them: all of them or nothing; a missing folder is made.

    The bytes are on the disk before the file has its name, so that not even a power cut leaves half a file.

    Args:
        data: The file.
        path: Where it goes.
        part: What it is called until it is complete; None takes a name that nobody else has.

    Raises:
        ImageError: The file cannot be written there.
    """
    path = Path(path)
    part = part or path.parent / f".{uuid.uuid4().hex}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(path)
            _settle(path.parent)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise ImageError(
            f"the target must be a file that can be written, got {str(path)!r} ({_reason(error)}); choose another place"
        ) from error
    return path


def _settle(folder: Path) -> None:
    """Have a folder's names on the disk, where the system can be asked for that (Windows cannot)."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def encode(photo: Photo | Source, suffix: str, *, keep_gps: bool = False, quality: int = 95) -> bytes:
    """A photo as the bytes of a file.

    PNG and TIFF keep everything, 16 bits included; the others have 8 bits. JPEG and BMP have no alpha: it is dropped,
    the colours under it stay as they are (nothing is laid behind). BMP has neither profile nor EXIF. A photo that came
    grey goes out grey where the format can, provided that its pixels still are (to 1/255). The resolution (dpi) is
    stated in every format; texts become text chunks in PNG, a comment in JPEG, and the description elsewhere.

    Args:
        photo: A Photo, or anything `load` takes.
        suffix: ".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp" or ".avif", in any case.
        keep_gps: Keep what may say where or by whom it was taken: GPS, maker note, owner's name, serial numbers.
        quality: 1 to 100, for JPEG, WebP and AVIF.

    Raises:
        ImageError: Another suffix, not finite, or more pixels than the format can hold.
        InputError: A quality outside 1 to 100.
    """
    kind = _KINDS.get(suffix.lower())
    if kind is None:
        raise ImageError(f"the file name must end in one of {', '.join(_KINDS)}, got {suffix!r}; rename the target")
    if not isinstance(quality, int) or not 1 <= quality <= 100:
        raise InputError(f"quality must be a whole number from 1 to 100, got {quality!r}; 95 is a good one")
    photo = load(photo)
    if max(photo.height, photo.width) > _LONGEST_SIDE.get(kind, 1 << 31):
        raise ImageError(
            f"a {kind} must be at most {_LONGEST_SIDE[kind]} px a side, got {photo.width}x{photo.height}; save as .png"
        )
    levels = _levels(photo, 16 if photo.bits == 16 and kind in ("PNG", "TIFF") else 8, kind not in ("JPEG", "BMP"))
    tags = exif.unpack(photo.exif or b"")
    tags = exif.kept(tags if keep_gps else exif.public(tags))
    icc = codecs.profile_for(levels.shape[2], photo.icc)
    try:
        texts = photo.texts if keep_gps else codecs.public_texts(photo.texts)
        return codecs.encode(levels, kind, icc, tags, quality, codecs.About(photo.dpi, texts))
    except (OSError, ValueError, KeyError, OverflowError, struct.error) as error:
        raise ImageError(f"{photo.name!r} must fit a {kind} file, got {_reason(error)}; save as .png") from error


def to_pil(pixels: Tensor) -> Image.Image:
    """(3,H,W) or (1,3,H,W) float RGB to an 8-bit Pillow image; values beyond [0,1] are cut off."""
    photo = Photo(_checked(pixels, "image").clamp(0, 1))
    return Image.fromarray(_levels(photo, 8, alpha=False))


def as_type(pixels: Tensor, output_type: str) -> Any:
    """Pixels (3,H,W) as a pipeline's caller wants them: "pil", "np" (see `to_numpy`) or "pt" (as they are).

    Returns:
        A PIL image, an array or a tensor; which one, only the text says.
    """
    if output_type == "pil":
        return to_pil(pixels)
    return to_numpy(pixels) if output_type == "np" else pixels


def to_numpy(pixels: Tensor) -> np.ndarray:
    """(3,H,W) or (1,3,H,W) float RGB to (H,W,3) float32, values as they are."""
    return np.ascontiguousarray(_checked(pixels, "image").permute(1, 2, 0).numpy())


def resize(pixels: Tensor, height: int, width: int, *, antialiased: bool = True) -> Tensor:
    """Resize by bicubic interpolation, differentiable; cut to [0,1], which bicubic edges would leave.

    Args:
        pixels: (...,C,H,W) float in [0,1].
        height: New height in px.
        width: New width in px.
        antialiased: Average over what a new pixel covers when shrinking; without it, details turn into noise.

    Returns:
        (...,C,height,width), same type and device; `pixels` itself where nothing changes.

    Raises:
        InputError: A size under 1 px.
    """
    if height < 1 or width < 1:
        raise InputError(f"a size must be at least 1x1 px, got {width}x{height}; use a larger one")
    if pixels.shape[-2:] == (height, width):
        return pixels
    flat = pixels.reshape(-1, *pixels.shape[-3:])
    resized = functional.interpolate(
        flat, (height, width), mode="bicubic", align_corners=False, antialias=antialiased
    ).clamp(0, 1)
    return resized.reshape(*pixels.shape[:-2], height, width)


def scaled_size(pixels: Tensor, scale: float) -> tuple[int, int]:
    """Height and width of a picture (...,H,W) made `scale` times as large; half a pixel counts as a whole one."""
    return math.floor(pixels.shape[-2] * scale + 0.5), math.floor(pixels.shape[-1] * scale + 0.5)


def enlarge(pixels: Tensor, scale: float) -> Tensor:
    """Enlarge a picture by Lanczos interpolation (three lobes), cut to [0,1].

    Args:
        pixels: (C,H,W) float in [0,1].
        scale: how many times; 1 gives `pixels` itself.

    Returns:
        (C,H·scale,W·scale), see `scaled_size`; same type and device; without gradients.
    """
    if scale == 1:
        return pixels
    size = scaled_size(pixels, scale)[::-1]
    planes = [Image.fromarray(plane).resize(size, Image.Resampling.LANCZOS) for plane in pixels.float().cpu().numpy()]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes])).clamp(0, 1).to(pixels)


def _name(source: object) -> str:
    if isinstance(source, str | Path):
        return (Path(source).name or str(source))[:100]
    given = getattr(source, "filename", None) or getattr(source, "name", None)
    return Path(given).name if isinstance(given, str) and given else "image"


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:100]


def _read(source: object, limits: codecs.Limits) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    most = 16 * limits.max_pixels + (1 << 20)  # no format spends more on a pixel: the rest is not a photo
    try:
        if isinstance(source, str | Path):
            if str(source) == "-":
                raise ImageError(
                    "the path must be an existing photo file, got '-': standard input is not read, save the photo to a "
                    "file first"
                )
            if not Path(source).is_file():
                what = "a folder" if Path(source).is_dir() else "a special file" if Path(source).exists() else "nothing"
                raise ImageError(
                    f"the path must be an existing photo file, got {str(source)[:200]!r}, where there is {what}; "
                    "check its spelling"
                )
            with Path(source).open("rb") as file:
                data = file.read(most + 1)
        elif hasattr(source, "read"):
            stream: Any = source
            if hasattr(stream, "seekable") and stream.seekable():
                stream.seek(0)
            data = stream.read(most + 1)
        else:
            data = None
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(
            f"{limits.name} must be readable, got {_reason(error)}; check that it is there and that you may read it"
        ) from error
    if not isinstance(data, bytes):
        raise ImageError(
            f"a photo must be a path, bytes, a binary file, a Pillow image, an array or a tensor, got "
            f"{type(source).__name__}; open files in binary mode"
        )
    if len(data) > most:
        raise ImageError(f"{limits.name} must be at most {most} bytes, got more; raise max_pixels if you trust it")
    return data


def _from_pil(image: Image.Image, limits: codecs.Limits) -> codecs.Decoded:
    try:
        return codecs.from_pil(image, limits)
    except ImageError:
        raise
    except Exception as error:  # a file opened lazily fails only now, and in any way
        raise ImageError(
            f"{limits.name} must be a whole Pillow image, got one that does not load ({_reason(error)}); open it anew"
        ) from error


def _photo(decoded: codecs.Decoded, name: str) -> Photo:
    levels = decoded.levels
    top = 255 if levels.itemsize == 1 else 65535
    values = torch.from_numpy(np.ascontiguousarray(levels.transpose(2, 0, 1), dtype=np.float32)).div_(top)
    colours = values.shape[0] - (values.shape[0] + 1) % 2  # 1 or 3: an even count has alpha last
    return Photo(
        pixels=values[:colours].expand(3, -1, -1).contiguous(),
        alpha=values[colours:].clone() if colours < values.shape[0] else None,
        icc=decoded.icc,
        exif=exif.pack(decoded.tags),
        bits=8 * levels.itemsize,
        grey=colours == 1,
        name=name,
        dpi=decoded.about.dpi,
        texts=decoded.about.texts,
        pages=decoded.about.pages,
        lacking=decoded.about.lacking,
    )


def _from_array(array: np.ndarray, limits: codecs.Limits, name: str) -> Photo:
    shape, kind = array.shape, array.dtype
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise ImageError(f"an array must be (H,W), (H,W,1), (H,W,3) or (H,W,4), got {shape}; transpose or index it")
    limits.check(shape[1], shape[0])
    levels = array.reshape(*shape[:2], -1)
    if kind.kind == "u" and kind.itemsize <= 2:
        return _photo(codecs.Decoded(levels, None, exif.Tags({}, {}, {})), name)
    if kind.kind != "f":
        raise ImageError(f"an array must be uint8, uint16 or float in [0,1], got {kind}; convert it with astype")
    values = _unit(torch.from_numpy(np.ascontiguousarray(levels.transpose(2, 0, 1), dtype=np.float32)), name)
    alpha = values[3:].clone() if len(values) == 4 else None
    return Photo(values[:3].expand(3, -1, -1).contiguous(), alpha, grey=len(values) == 1, name=name)


def _checked(pixels: Tensor, name: str) -> Tensor:
    """(3,H,W) or (1,3,H,W) float of any kind to (3,H,W) float32 on the CPU, finite."""
    shape = tuple(pixels.shape)
    if shape[:-3] not in ((), (1,)) or shape[-3:-2] != (3,):
        raise ImageError(f"{name!r} must be a tensor (3,H,W) or (1,3,H,W), got {shape}; permute it, or index the batch")
    if not pixels.is_floating_point():
        raise ImageError(
            f"{name!r} must be a tensor of uint8 or float in [0,1], got {pixels.dtype}; divide by its largest level"
        )
    pixels = pixels.detach().reshape(shape[-3:]).to("cpu", torch.float32)
    _finite(pixels, name)
    return pixels


def _finite(values: Tensor, name: str) -> None:
    if not torch.isfinite(values).all():
        raise ImageError(f"{name!r} must have finite pixels, got NaN or infinity; check the step that made them")


def _in_unit(values: Tensor, name: str) -> None:
    """Refuse values that are not in [0,1] up to rounding: one pass over them, and no copy."""
    low, high = (float(value) for value in values.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        _finite(values, name)
    if low < -1e-3 or high > 1 + 1e-3:
        raise ImageError(f"{name!r} must have values in [0,1], got {low:.4g} to {high:.4g}; rescale or clamp it")


def _unit(values: Tensor, name: str) -> Tensor:
    """Values in [0,1], without what rounding added; see `_in_unit`."""
    _in_unit(values, name)
    return values.clamp(0, 1)


def _levels(photo: Photo, bits: int, alpha: bool = True) -> np.ndarray:
    """(H,W,C) uint8 or uint16; C = 1 or 3, and one more for the alpha."""
    values = photo.pixels
    _finite(values, photo.name)
    if photo.grey and float((values.amax(0) - values.amin(0)).max()) <= 1.001 / 255:
        values = values.mean(0, keepdim=True)
    if alpha and photo.alpha is not None:
        values = torch.cat([values, photo.alpha])
    top = 255 if bits == 8 else 65535
    rounded = values.clamp(0, 1).mul(top).round_().permute(1, 2, 0).numpy()
    return np.ascontiguousarray(rounded.astype(np.uint8 if bits == 8 else np.uint16))
