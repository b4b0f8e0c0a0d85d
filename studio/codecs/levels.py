"""Levels: photos as (H,W,C) arrays of whole numbers, and how any Pillow image becomes one."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from studio.codecs import exif
from studio.codecs.about import About, commented, dpi_of, kept_texts, resolution
from studio.errors import ImageError

SMALLEST = 4  # px; nothing in the studio has a use for less


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded photo, upright.

    Attributes:
        levels: (H,W,C) uint8 or uint16; C = 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha.
        icc: the colour profile the levels are in, None for sRGB.
        tags: what is kept of the EXIF, the place included.
        about: what else the file says.
    """

    levels: np.ndarray
    icc: bytes | None
    tags: exif.Tags
    about: About = field(default_factory=About)


@dataclass(frozen=True)
class Limits:
    """What an image called `name` must fit; `check` is called as soon as the size is known, before decoding."""

    name: str
    max_pixels: int

    def check(self, width: int, height: int) -> None:
        """Raise ImageError unless `width` x `height` px is a size we work with."""
        if min(width, height) < SMALLEST:
            raise ImageError(
                f"{self.name} must be at least {SMALLEST} px on each side, got {width}x{height}; use a larger photo"
            )
        if width * height > self.max_pixels:
            raise ImageError(
                f"{self.name} must have at most {self.max_pixels} pixels, got {width}x{height}; "
                "make it smaller, or raise max_pixels if you trust it"
            )


def from_pil(image: Image.Image, limits: Limits, tags: exif.Tags | None = None) -> Decoded:
    """Levels, profile and EXIF of an opened Pillow image of any mode; stands upright afterwards."""
    about = about_pil(image)
    levels, icc = levels_of(image, image.info.get("icc_profile"), limits)
    block = image.info.get("exif")
    if image.format in ("WEBP", "AVIF", "HEIF", "GIF", "BMP") and icc is None:
        levels = _without_equal_colours(levels)  # these have no grey of their own
    return upright(levels, icc, tags or exif.unpack(block if isinstance(block, bytes) else b""), about)


def about_pil(image: Image.Image) -> About:
    """Resolution and comment of an opened Pillow image. Its pages are counted by who reads the format."""
    dpi, comment = image.info.get("dpi"), image.info.get("comment")
    return About(
        resolution(*dpi) if isinstance(dpi, tuple) and len(dpi) == 2 else None,
        kept_texts(commented(comment)) if isinstance(comment, bytes) else (),
    )


def levels_of(image: Image.Image, icc: bytes | None, limits: Limits) -> tuple[np.ndarray, bytes | None]:
    """(H,W,C) levels of an image as it is stored, and the profile they are in (none where they were converted)."""
    image.load()
    mode, clear = image.mode, image.has_transparency_data
    if mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint16)
    elif mode in ("I", "F"):
        levels = _from_numbers(np.asarray(image), limits)
    elif mode in ("CMYK", "LAB"):
        levels, icc = np.asarray(_to_srgb(image, icc)), None
    elif mode in ("1", "L", "La", "LA"):
        levels = np.asarray(image.convert("LA" if clear else "L"))
    else:
        levels = np.asarray(image.convert("RGBA" if clear else "RGB"))
        if mode in ("P", "PA") and icc is None:
            levels = _without_equal_colours(levels.reshape(*levels.shape[:2], -1))
    return levels.reshape(*levels.shape[:2], -1), icc


def _from_numbers(values: np.ndarray, limits: Limits) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    top = 65535 if values.dtype.kind == "i" else 1
    if not (low >= 0 and high <= top):  # also refuses NaN
        raise ImageError(
            f"{limits.name} must hold numbers from 0 to {top}, got {low:g} to {high:g}; save it as 16-bit PNG"
        )
    return np.rint(values * (65535 / top)).astype(np.uint16)


def _to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    srgb = ImageCms.createProfile("sRGB")
    convert: Any = ImageCms.profileToProfile  # gives a picture: its None is for `inPlace`
    if image.mode == "LAB":
        return convert(image, ImageCms.createProfile("LAB"), srgb, outputMode="RGB")
    if icc:
        try:
            relative = ImageCms.Intent.RELATIVE_COLORIMETRIC
            return convert(image, io.BytesIO(icc), srgb, relative, "RGB")
        except (ImageCms.PyCMSError, OSError):
            pass  # a damaged profile: the plain formula below is what a viewer without colour management shows
    return image.convert("RGB")


def _without_equal_colours(levels: np.ndarray) -> np.ndarray:
    if levels.shape[2] < 3 or (levels[..., :1] != levels[..., 1:3]).any():
        return levels
    return np.concatenate([levels[..., :1], levels[..., 3:]], -1)


def upright(levels: np.ndarray, icc: bytes | None, tags: exif.Tags, about: About) -> Decoded:
    """Turn the levels upright, and keep what fits them of the profile and the EXIF."""
    turned = exif.orientation(tags)
    if about.dpi in (None, (72, 72)):  # 72 is what programs write that do not know
        about = replace(about, dpi=dpi_of(tags) or about.dpi)
    if turned >= 5:
        levels = levels.swapaxes(0, 1)
        about = replace(about, dpi=about.dpi and about.dpi[::-1])
    if turned in (2, 3, 6, 7):
        levels = levels[:, ::-1]
    if turned in (3, 4, 7, 8):
        levels = levels[::-1]
    return Decoded(levels, profile_for(levels.shape[2], icc), exif.kept(tags), about)


def profile_for(channels: int, icc: bytes | None) -> bytes | None:
    """`icc` if it is a colour profile that an image with this many channels can carry, else None."""
    space = b"RGB " if channels >= 3 else b"GRAY"
    return icc if icc and len(icc) >= 128 and icc[36:40] == b"acsp" and icc[16:20] == space else None


def joined(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """The high and the low bytes of 16-bit samples, put together."""
    levels = high.astype(np.uint16)
    levels <<= 8
    levels |= low
    return levels


def deflated(levels: np.ndarray) -> bytes:
    """Compress; run lengths only, which on noisy photos is as small as slow searching."""
    packer = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return packer.compress(np.ascontiguousarray(levels).tobytes()) + packer.flush()
