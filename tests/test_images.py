"""Reading and writing photos: every format, what must survive, and what must be refused."""

from __future__ import annotations

import io
import random
import struct
import sys
import threading
import warnings
import zlib
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageDraw, ImageFile, TiffImagePlugin

from studio.codecs import exif, png
from studio.errors import ImageError, InputError
from studio.images import SUFFIXES, Photo, encode, enlarge, find_images, load, resize, save, to_numpy, to_pil

WIDTH, HEIGHT = 48, 36
WRITTEN = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".avif")
LOSSLESS = (".png", ".tif", ".bmp")
DEEP = (".png", ".tif")


def picture(channels=3, bits=8, height=HEIGHT, width=WIDTH):
    """A smooth (H,W,C) picture without symmetry, so that a turned one is told from the original."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    bands = [x / width, y / height, (x + 2 * y) / (width + 2 * height), 0.25 + 0.5 * x / width][:channels]
    if channels == 2:
        bands = [x / width, 0.25 + 0.5 * y / height]
    top = 255 if bits == 8 else 65535
    return np.rint(np.stack(bands, -1) * top).astype(np.uint8 if bits == 8 else np.uint16)


def bytes_of(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def camera_exif(turned=1):
    """EXIF as a telephone writes it: place, maker note, owner, serial number, old size, and tags worth keeping."""
    block = Image.Exif()
    block[0x010F], block[0x0110], block[0x0112] = "Maker", "Model", turned
    block[0x0132], block[0x013B] = "1999:12:31 23:59:58", "Ana"
    photo = block.get_ifd(0x8769)
    photo[0x829A], photo[0x9003], photo[0xA002] = 1 / 250, "1999:12:31 23:59:58", WIDTH
    photo[0x927C], photo[0xA430], photo[0xA431] = b"SECRETPLACE" * 3, "SECRETOWNER", "SECRETSERIAL"
    place = block.get_ifd(0x8825)
    place[1], place[2] = "N", (52.0, 31.0, 12.5)
    return block.tobytes()


def tags_of(data):
    """The EXIF of an encoded photo as an independent reader sees it."""
    return Image.open(io.BytesIO(data)).getexif()


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY = SRGB[:16] + b"GRAY" + SRGB[20:]


# --- round trips ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", WRITTEN)
def test_colour_survives(tmp_path, suffix):
    photo = load(picture())
    saved = save(photo, tmp_path / f"new folder/deep/photo{suffix}")
    again = load(saved)
    assert again.pixels.shape == (3, HEIGHT, WIDTH) and again.pixels.dtype == torch.float32
    limit = 0 if suffix in LOSSLESS or suffix == ".tiff" else 0.06
    assert float((again.pixels - photo.pixels).abs().max()) <= limit
    assert not again.grey and again.bits == 8 and again.alpha is None and again.name == f"photo{suffix}"
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]  # no temporary file stays


@pytest.mark.parametrize(("suffix", "channels", "bits"), list(product(DEEP, (1, 2, 3, 4), (8, 16))))
def test_every_level_survives(tmp_path, suffix, channels, bits):
    levels = picture(channels, bits)
    if bits == 16:
        levels ^= np.random.default_rng(0).integers(0, 256, levels.shape, np.uint16)
    colours = levels[..., : channels - (channels + 1) % 2]
    photo = load(colours)
    if channels in (2, 4):
        top = 255 if bits == 8 else 65535
        photo = Photo(
            photo.pixels, torch.from_numpy(levels[None, ..., -1] / np.float32(top)), None, None, bits, channels == 2
        )
    again = load(save(photo, tmp_path / f"a{suffix}"))
    assert torch.equal(again.pixels, photo.pixels) and again.bits == bits
    assert again.alpha is None if photo.alpha is None else torch.equal(again.alpha, photo.alpha)
    # readers do not know 16-bit grey with alpha in TIFF: it is written as colour
    assert again.grey == (channels <= 2 and (suffix, channels, bits) != (".tif", 2, 16))


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp", ".avif"])
def test_sixteen_bits_become_eight_elsewhere(suffix):
    again = load(encode(load(picture(bits=16)), suffix))
    assert again.bits == 8 and float((again.pixels - load(picture()).pixels).abs().max()) < 0.06


@pytest.mark.parametrize("suffix", WRITTEN)
def test_alpha_survives_or_is_dropped(suffix):
    photo = load(picture(4))
    again = load(encode(photo, suffix))
    if suffix in (".jpg", ".jpeg", ".bmp"):
        assert again.alpha is None
        assert float((again.pixels - photo.pixels).abs().max()) < 0.06  # nothing was laid behind it
    else:
        assert float((again.alpha - photo.alpha).abs().max()) < 0.02


def test_webp_keeps_hidden_alpha_when_fully_transparent():
    levels = picture(4)
    levels[..., 3] = 0
    assert float(load(encode(load(levels), ".webp")).alpha.max()) == 0


@pytest.mark.parametrize("suffix", WRITTEN)
def test_grey_stays_grey_until_coloured(suffix):
    photo = load(picture(1))
    assert photo.grey
    again = load(encode(photo, suffix))
    assert again.grey and torch.equal(again.pixels[0], again.pixels[2])
    coloured = load(encode(photo.with_pixels(load(picture(3)).pixels), suffix))
    assert not coloured.grey


def test_grey_files_have_one_channel():
    for suffix, mode in ((".png", "L"), (".jpg", "L"), (".tif", "L"), (".bmp", "L")):
        assert Image.open(io.BytesIO(encode(load(picture(1)), suffix))).mode == mode


@pytest.mark.parametrize("suffix", [s for s in WRITTEN if s != ".bmp"])
@pytest.mark.parametrize("bits", [8, 16])
def test_profile_survives_and_pixels_stay_in_it(suffix, bits):
    photo = Photo(load(picture()).pixels, icc=SRGB, bits=bits)
    again = load(encode(photo, suffix))
    assert again.icc == SRGB
    assert float((again.pixels - photo.pixels).abs().max()) < 0.06


def test_profile_of_the_wrong_kind_is_dropped():
    grey = load(encode(Photo(load(picture(1)).pixels, icc=GREY, grey=True), ".png"))
    assert grey.icc == GREY
    coloured = grey.with_pixels(load(picture(3)).pixels)
    assert load(encode(coloured, ".png")).icc is None
    assert load(encode(Photo(load(picture(1)).pixels, icc=SRGB, grey=True), ".png")).icc is None
    assert load(encode(Photo(load(picture()).pixels, icc=b"not a profile"), ".png")).icc is None


# --- EXIF ----------------------------------------------------------------------------------------------------------


def turned_file(kind, turned):
    """`picture()` stored the way a camera held with orientation `turned` stores it."""
    image = Image.fromarray(picture())
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = image.transpose(undo[turned]) if turned > 1 else image
    options = {"quality": 95} if kind in ("JPEG", "WEBP", "AVIF") else {}
    return bytes_of(stored, kind, exif=camera_exif(turned), **options)


@pytest.mark.parametrize(("kind", "turned"), list(product(("JPEG", "PNG", "WEBP", "TIFF", "AVIF"), range(1, 9))))
def test_orientation_is_applied_once(kind, turned):
    photo = load(turned_file(kind, turned))
    assert float((photo.pixels - load(picture()).pixels).abs().max()) < 0.1
    again = encode(photo, ".jpg")
    assert tags_of(again).get(0x0112, 1) == 1
    assert load(again).pixels.shape == (3, HEIGHT, WIDTH)
    assert load(encode(photo, ".avif")).pixels.shape == (3, HEIGHT, WIDTH)


def test_orientation_of_sixteen_bit_files():
    levels = picture(3, 16)
    stored = np.ascontiguousarray(np.rot90(levels))  # orientation 6 asks to turn it back, clockwise
    tags = exif.Tags({exif.ORIENTATION: exif.entry(3, 6)}, {}, {})
    from studio.codecs import tiff

    for data in (png.write(stored, None, tags), tiff.write(stored, None, tags)):
        photo = load(data)
        assert torch.equal(photo.pixels, load(levels).pixels) and photo.bits == 16


def test_a_pillow_image_is_turned_too():
    image = Image.open(io.BytesIO(turned_file("JPEG", 6)))
    assert load(image).pixels.shape == (3, HEIGHT, WIDTH)
    assert load(Image.open(io.BytesIO(turned_file("TIFF", 6)))).pixels.shape == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("suffix", [s for s in WRITTEN if s != ".bmp"])
def test_exif_survives_without_the_place(kind, suffix):
    photo = load(turned_file(kind, 6))
    data = encode(photo, suffix)
    block = tags_of(data)
    assert (block[0x010F], block[0x0110], block[0x013B]) == ("Maker", "Model", "Ana")
    inner = block.get_ifd(0x8769)
    assert float(inner[0x829A]) == 1 / 250 and inner[0x9003].startswith("1999")
    assert 0xA002 not in inner  # the old width would be a lie after scaling
    assert not block.get_ifd(0x8825) and b"SECRET" not in data
    kept = encode(photo, suffix, keep_gps=True)
    assert tags_of(kept).get_ifd(0x8825)[2] == (52.0, 31.0, 12.5) and b"SECRETPLACE" in kept


def test_exif_of_sixteen_bit_files_survives():
    photo = load(turned_file("JPEG", 1))
    photo = Photo(photo.pixels, exif=photo.exif, bits=16)
    for suffix in DEEP:
        again = load(encode(photo, suffix))
        assert again.exif and again.bits == 16
        assert not exif.unpack(again.exif).gps and exif.unpack(again.exif).photo.keys() >= {0x829A, 0x9003}


def test_big_endian_exif_is_read():
    block = Image.Exif()
    block.endian = ">"
    block[0x0110], block[0x0112] = "Model", 6
    photo = load(bytes_of(Image.fromarray(picture()), "JPEG", exif=block.tobytes()))
    assert photo.pixels.shape == (3, WIDTH, HEIGHT)
    assert tags_of(encode(photo, ".png"))[0x0110] == "Model"


def test_thumbnails_and_other_metadata_go():
    image = Image.fromarray(picture())
    block = Image.Exif()
    block[0x0110] = "Model"
    data = bytes_of(image, "JPEG", exif=block, xmp=b"<x:xmpmeta>SECRETXMP</x:xmpmeta>")
    assert b"SECRET" in data
    for suffix in WRITTEN:
        assert b"SECRET" not in encode(load(data), suffix, keep_gps=True)


@pytest.mark.parametrize("seed", range(30))
def test_damaged_exif_does_not_cost_the_photo(seed):
    draw = random.Random(seed)
    block = bytearray(camera_exif(1))
    for _ in range(12):
        block[draw.randrange(14, len(block))] = draw.randrange(256)
    data = bytes_of(Image.fromarray(picture()), "JPEG", exif=bytes(block))
    assert_silent(lambda: [encode(load(data), suffix, keep_gps=True) for suffix in (".jpg", ".avif", ".tif")])


# --- other kinds of file -------------------------------------------------------------------------------------------


def draw_gif():
    frames = [Image.new("P", (WIDTH, HEIGHT)) for _ in range(2)]
    for index, frame in enumerate(frames):
        frame.putpalette([255, 0, 0, 0, 0, 255])
        ImageDraw.Draw(frame).rectangle((0, 0, 9, 9), fill=1 - index)
    return bytes_of(frames[0], "GIF", save_all=True, append_images=frames[1:])


def test_gif_gives_its_first_frame():
    photo = load(draw_gif())
    assert photo.pixels[:, 0, 0].tolist() == [0, 0, 1] and photo.pixels[:, -1, -1].tolist() == [1, 0, 0]


def test_palettes_and_transparency():
    image = Image.fromarray(picture()).quantize(16)
    photo = load(bytes_of(image, "PNG", transparency=3))
    clear = torch.from_numpy(np.asarray(image) == 3)
    assert torch.equal(photo.alpha[0] == 0, clear) and not photo.grey
    grey = Image.fromarray(picture(1)[..., 0]).quantize(16)
    assert load(bytes_of(grey, "PNG")).grey
    white = load(bytes_of(Image.new("L", (8, 8), 255), "PNG", transparency=255))
    assert white.grey and float(white.alpha.max()) == 0


def test_one_bit_images():
    image = Image.fromarray(picture(1)[..., 0]).convert("1")
    for kind in ("PNG", "TIFF", "BMP"):
        photo = load(bytes_of(image, kind))
        assert photo.grey and set(photo.pixels.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile(kind):
    data = bytes_of(Image.fromarray(picture()).convert("CMYK"), kind)
    photo = load(data)
    assert not photo.grey and photo.icc is None
    assert float((photo.pixels - load(picture()).pixels).abs().mean()) < 0.03


def test_cmyk_profile_is_used_only_when_it_is_one():
    image = Image.fromarray(picture()).convert("CMYK")
    assert load(bytes_of(image, "JPEG", icc_profile=SRGB)).icc is None  # an RGB profile cannot describe CMYK


def test_lab_becomes_srgb():
    lab = ImageCms.profileToProfile(
        Image.fromarray(picture()), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    photo = load(bytes_of(lab, "TIFF"))
    assert float((photo.pixels - load(picture()).pixels).abs().mean()) < 0.03


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr", "HSV", "I;16"]
)
def test_pillow_modes(mode):
    base = Image.fromarray(picture())
    if mode == "I;16":
        image = Image.fromarray(picture(1, 16)[..., 0])
    elif mode in ("La", "RGBa"):
        image = base.convert("LA" if mode == "La" else "RGBA").convert(mode)
    else:
        image = base.convert(mode) if mode != "PA" else base.convert("P").convert("PA")
    photo = load(image)
    assert photo.pixels.shape == (3, HEIGHT, WIDTH) and 0 <= float(photo.pixels.min()) <= float(photo.pixels.max()) <= 1
    assert photo.grey == (mode in ("1", "L", "LA", "La", "I;16"))
    assert photo.bits == (16 if mode == "I;16" else 8)


def test_number_images_need_a_known_range():
    ramp = np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    photo = load(Image.fromarray(ramp))
    assert photo.bits == 16 and np.allclose(to_numpy(photo.pixels)[..., 0], ramp, atol=1e-5)
    assert load(Image.fromarray((ramp * 65535).astype(np.int32))).bits == 16
    for bad in (ramp * 300, ramp - 0.5, np.where(ramp > 0.5, np.nan, ramp)):
        with pytest.raises(ImageError, match="numbers from 0 to 1"):
            load(bytes_of(Image.fromarray(bad.astype(np.float32)), "TIFF"))


def interlaced_png16(levels):
    """An Adam7 PNG, which Pillow cannot write."""
    height, width, channels = levels.shape
    body = b""
    for x, y, dx, dy in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        for row in levels[y::dy, x::dx]:
            body += b"\0" + row.astype(">u2").tobytes()
    header = struct.pack(">IIBBBBB", width, height, 16, (0, 4, 2, 6)[channels - 1], 0, 0, 1)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_interlaced_deep_png(channels):
    levels = picture(channels, 16)
    photo = load(interlaced_png16(levels))
    assert photo.bits == 16 and photo.grey == (channels < 3)
    found = torch.cat([photo.pixels[: 1 if channels < 3 else 3], *([photo.alpha] if channels in (2, 4) else [])])
    assert np.array_equal(np.rint(found.permute(1, 2, 0).numpy() * 65535).astype(np.uint16), levels)


def test_deep_png_with_a_transparent_colour():
    levels = picture(3, 16)
    data = interlaced_png16(levels)
    body = levels[5, 7].astype(">u2").tobytes()
    chunk = struct.pack(">I", 6) + b"tRNS" + body + struct.pack(">I", zlib.crc32(b"tRNS" + body))
    photo = load(data[:33] + chunk + data[33:])
    assert float(photo.alpha[0, 5, 7]) == 0 and float(photo.alpha.sum()) == WIDTH * HEIGHT - 1


def tiff16(levels, order="<", planar=1, predictor=1, compression=1, extra=2, photometric=None):
    """A 16-bit TIFF of any layout, two strips per plane."""
    height, width, channels = levels.shape
    planes = [levels] if planar == 1 else [levels[..., k : k + 1] for k in range(channels)]
    strips = []
    for plane in planes:
        for part in (plane[: height // 2], plane[height // 2 :]):
            stored = part.copy()
            if predictor == 2:
                stored[:, 1:] -= part[:, :-1]
            raw = stored.astype(order + "u2").tobytes()
            strips.append(zlib.compress(raw) if compression == 8 else raw)
    starts = np.cumsum([8, *map(len, strips)])
    image = {
        256: exif.entry(3, width),
        257: exif.entry(3, height),
        258: exif.entry(3, *[16] * channels),
        259: exif.entry(3, compression),
        262: exif.entry(3, photometric if photometric is not None else 2 if channels > 2 else 1),
        273: exif.entry(4, *starts[:-1]),
        277: exif.entry(3, channels),
        278: exif.entry(3, height // 2),
        279: exif.entry(4, *map(len, strips)),
        284: exif.entry(3, planar),
        317: exif.entry(3, predictor),
    }
    if channels == 4:
        image[338] = exif.entry(3, extra)
    at = int(starts[-1] + starts[-1] % 2)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    head = magic + struct.pack(order + "I", at) + b"".join(strips)
    return head.ljust(at, b"\0") + exif.write(exif.Tags(image, {}, {}), at, order)


@pytest.mark.parametrize(
    ("channels", "order", "planar", "layout"),
    list(product((1, 3, 4), "<>", (1, 2), ((1, 1), (8, 1), (8, 2)))),
)
def test_deep_tiff_of_every_layout(channels, order, planar, layout):
    levels = picture(channels, 16)
    levels ^= np.random.default_rng(1).integers(0, 256, levels.shape, np.uint16)
    photo = load(tiff16(levels, order, planar, layout[1], layout[0]))
    assert photo.bits == 16 and photo.grey == (channels == 1)
    found = torch.cat([photo.pixels[: 1 if channels == 1 else 3], *([photo.alpha] if channels == 4 else [])])
    assert np.array_equal(np.rint(found.permute(1, 2, 0).numpy() * 65535).astype(np.uint16), levels)


def test_deep_tiff_oddities():
    levels = picture(1, 16)
    white_is_zero = load(tiff16(65535 - levels, photometric=0))
    assert torch.equal(white_is_zero.pixels, load(levels).pixels)
    assert load(tiff16(picture(4, 16), extra=0)).alpha is None  # a fourth channel of no stated meaning
    rgba = picture(4, 16)
    multiplied = rgba.copy()
    multiplied[..., :3] = np.rint(rgba[..., :3] * (rgba[..., 3:] / 65535))
    photo = load(tiff16(multiplied, extra=1))
    assert float((photo.pixels - load(rgba[..., :3]).pixels).abs().max()) < 1e-4


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_ordinary_tiff(compression):
    photo = load(bytes_of(Image.fromarray(picture()), "TIFF", compression=compression))
    assert float((photo.pixels - load(picture()).pixels).abs().max()) < (0.3 if compression == "jpeg" else 1e-6)


def test_camera_raw_is_not_taken_for_its_thumbnail():
    image = Image.fromarray(picture())
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[254] = 1
    with pytest.raises(ImageError, match="camera raw"):
        load(bytes_of(image, "TIFF", tiffinfo=tags))


def test_heic():
    pillow_heif = pytest.importorskip("pillow_heif")
    image = Image.fromarray(picture(3, 8, 64, 96))
    data = io.BytesIO()
    pillow_heif.from_pillow(image).save(data, quality=95, exif=camera_exif(6))
    photo = load(data.getvalue())  # the container says how it is turned; the tag must not turn it again
    assert sorted(photo.pixels.shape[1:]) == [64, 96] and not photo.grey
    assert tags_of(encode(photo, ".jpg"))[0x0110] == "Model"


def test_heic_without_its_reader_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match="extra `heic`"):
        load(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))


# --- sources -------------------------------------------------------------------------------------------------------


def test_sources_agree(tmp_path):
    path = save(load(picture()), tmp_path / "a.png")
    data = path.read_bytes()
    spent = io.BytesIO(data)
    spent.read()
    with path.open("rb") as stream:
        sources = [path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), spent, stream]
        photos = [load(source) for source in [*sources, Image.open(path), picture(), picture() / 255.0]]
        assert load(stream).name == "a.png"
    photos.append(load(load(picture()).pixels[None].double()))
    for photo in photos:
        assert torch.equal(photo.pixels, photos[0].pixels)
    assert load(photos[0]) is photos[0]
    assert photos[0].name == "a.png" and photos[2].name == "image"


def test_arrays():
    assert load(picture(1)[..., 0]).grey and load(picture(1)).grey
    assert load(picture(4)).alpha.shape == (1, HEIGHT, WIDTH)
    assert load(picture(3, 16)).bits == 16
    assert load(picture(3, 16).astype(">u2")).bits == 16
    assert load(picture()[::-1, ::-1] / np.float16(255)).pixels.is_contiguous()
    assert load((picture(4) / 255).astype(np.float32)).alpha is not None


def test_suffix_does_not_decide(tmp_path):
    path = tmp_path / "really a png.jpg"
    path.write_bytes(encode(load(picture()), ".png"))
    assert torch.equal(load(path).pixels, load(picture()).pixels)


def test_the_input_is_never_changed():
    for source in (picture(), (picture() / 255).astype(np.float32), load(picture()).pixels):
        before = source.copy() if isinstance(source, np.ndarray) else source.clone()
        photo = load(source)
        photo.pixels.mul_(0)
        same = np.array_equal(source, before) if isinstance(source, np.ndarray) else torch.equal(source, before)
        assert same


# --- refusals ------------------------------------------------------------------------------------------------------


def refused(source, match, **options):
    with pytest.raises(ImageError, match=match) as caught:
        load(source, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_ordinary_tiff_in_planes():
    levels = picture()
    strips = b"".join(levels[..., k].tobytes() for k in range(3))
    image = {tag: exif.entry(3, value) for tag, value in ((256, WIDTH), (257, HEIGHT), (262, 2), (277, 3), (284, 2))}
    image |= {258: exif.entry(3, 8, 8, 8), 273: exif.entry(4, *(8 + k * WIDTH * HEIGHT for k in range(3)))}
    image |= {278: exif.entry(3, HEIGHT), 279: exif.entry(4, *[WIDTH * HEIGHT] * 3)}
    at = 8 + len(strips)
    data = b"II*\0" + struct.pack("<I", at) + strips + exif.write(exif.Tags(image, {}, {}), at)
    assert torch.equal(load(data).pixels, load(levels).pixels)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "empty file"),
        (b"just some words, saved as a photo", "text"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
        (b"\xef\xbb\xbf<!DOCTYPE html><p>", "web page"),
        (b"%PDF-1.7\n%\xe2", "PDF"),
        (b"PK\3\4" + bytes(40), "zip"),
        (b"8BPS\0\1" + bytes(40), "Photoshop"),
        (b"II+\0\x08\0\0\0" + bytes(40), "BigTIFF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + bytes(40), "video"),
        (b"\0\1\2\3" * 20, "unknown format"),
        (b"\xff\xd8\xff", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"GIF89a", "GIF"),
        (b"II*\0", "at least 4 px"),
    ],
)
def test_what_is_not_a_photo(tmp_path, data, match):
    refused(data, match)
    path = tmp_path / "upload.jpg"
    path.write_bytes(data)
    refused(path, match)


def test_polyglots():
    photo = load(picture())
    comment = bytes_of(Image.fromarray(picture()), "JPEG", comment=b"<script>alert(1)</script>")
    refused(comment, "nothing else")
    refused(bytes_of(Image.fromarray(picture()), "JPEG", comment=b"%PDF-1.4"), "nothing else")
    archive = b"PK\3\4" + bytes(26) + b"PK\5\6" + bytes(18)
    for suffix in WRITTEN:
        refused(encode(photo, suffix) + archive, "zip archive")
    load(encode(photo, ".jpg") + b"a telephone appends a film here")


def test_bombs_are_refused_before_decoding(monkeypatch):
    def explode(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", explode)
    monkeypatch.setattr(zlib, "decompressobj", explode)
    for size in ((20_000, 20_000), (65_535, 65_535)):
        header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
        refused(
            b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 13, b"IHDR") + header + bytes(40), "at most 100000000 pixels"
        )
        image = {256: exif.entry(4, size[0]), 257: exif.entry(4, size[1])}
        refused(b"II*\0\x08\0\0\0" + exif.write(exif.Tags(image, {}, {}), 8), "at most 100000000 pixels")
    small = Image.fromarray(picture())
    bmp = bytearray(bytes_of(small, "BMP"))
    bmp[18:26] = struct.pack("<ii", 30_000, 30_000)
    refused(bytes(bmp), "at most 100000000 pixels")
    jpeg = bytearray(bytes_of(small, "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    refused(bytes(jpeg), "at most 100000000 pixels")
    for kind in ("WEBP", "GIF", "AVIF", "PNG"):
        refused(bytes_of(small, kind), "at most 1000 pixels", max_pixels=1000)


def test_gif_frame_outside_its_screen():
    data = bytearray(draw_gif())
    data[6:10] = struct.pack("<HH", 8, 8)
    refused(bytes(data), "GIF")


def test_limit_can_be_raised_over_that_of_pillow():
    data = bytes_of(Image.new("1", (9_600, 9_600)), "TIFF", compression="group4")  # 92 million: Pillow would warn
    assert_silent(lambda: load(data, max_pixels=91_000_000))
    assert Image.MAX_IMAGE_PIXELS == 89_478_485 and not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("suffix", WRITTEN)
def test_truncated_files(suffix):
    data = encode(load(picture(height=120, width=160)), suffix)
    for share in (0.1, 0.5, 0.9):
        refused(data[: int(len(data) * share)], "copy it again|at least 4 px")


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.full((8, 8, 3), np.nan), "NaN"),
        (np.full((8, 8, 3), np.inf), "infinity"),
        (np.full((8, 8, 3), 200.0), r"\[0,1\]"),
        (np.full((8, 8, 3), -1.0), r"\[0,1\]"),
        (np.zeros((8, 8, 3), np.int64), "int64"),
        (np.zeros((8, 8, 3), bool), "bool"),
        (np.zeros((8, 8, 3), complex), "complex"),
        (np.zeros((8, 8, 3), object), "object"),
        (np.zeros((3, 8, 8), np.uint8), "transpose"),
        (np.zeros((1, 8, 8, 3), np.uint8), "index it"),
        (np.zeros(8, np.uint8), "must be"),
        (np.zeros((8, 8, 2), np.uint8), "must be"),
        (np.zeros((0, 8, 3), np.uint8), "at least 4 px"),
        (np.zeros((3, 300, 3), np.uint8), "at least 4 px"),
        (torch.full((3, 8, 8), torch.nan), "NaN"),
        (torch.full((3, 8, 8), -torch.inf), "infinity"),
        (torch.full((3, 8, 8), 2.0), r"\[0,1\]"),
        (-torch.ones(3, 8, 8), r"\[0,1\]"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "float"),
        (torch.zeros(8, 8, 3), "permute"),
        (torch.zeros(2, 3, 8, 8), "index the batch"),
        (torch.zeros(8, 8), "must be a tensor"),
        (torch.zeros(3, 0, 0), "at least 4 px"),
        (torch.zeros(3, 8, 2), "at least 4 px"),
        (Image.new("RGB", (3, 9)), "at least 4 px"),
        (Image.new("RGB", (0, 0)), "at least 4 px"),
        (None, "NoneType"),
        (7, "int"),
        ([[1]], "list"),
        (io.StringIO("text"), "binary"),
    ],
)
def test_arrays_that_are_not_photos(array, match):
    refused(array, match)


def test_paths_that_cannot_be_read(tmp_path, monkeypatch):
    refused(tmp_path, "a folder")
    refused(tmp_path / "absent.png", "nothing")
    refused("https://example.org/a.png", "nothing")
    refused("a\0b.png", "must be")
    refused("x" * 5000, "must be")
    path = save(load(picture()), tmp_path / "a.png")

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    refused(path, "Permission denied")
    closed = io.BytesIO(b"x")
    closed.close()
    refused(closed, "readable")


def test_a_file_too_long_for_any_photo_is_not_read_whole():
    refused(io.BytesIO(encode(load(picture()), ".png") + bytes(3 << 20)), "bytes", max_pixels=WIDTH * HEIGHT)


def test_a_broken_lazy_pillow_image():
    data = encode(load(picture(height=120, width=160)), ".jpg")
    refused(Image.open(io.BytesIO(data[:-600])), "Pillow image")


def test_saving_refuses(tmp_path):
    photo = load(picture())
    for name in ("photo", "photo.gif", "photo.psd", "photo.heic"):
        with pytest.raises(ImageError, match="must end in"):
            save(photo, tmp_path / name)
    for quality in (0, 101, 9.5, "high"):
        with pytest.raises(InputError, match="1 to 100"):
            save(photo, tmp_path / "a.jpg", quality=quality)
    with pytest.raises(ImageError, match="finite"):
        save(Photo(torch.full((3, 8, 8), torch.nan)), tmp_path / "a.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("x")
    for target in ("folder.png", "file/a.png", "a\0.png", "n" * 300 + ".png"):
        with pytest.raises(ImageError, match="target"):
            save(photo, tmp_path / target)
    with pytest.raises(ImageError, match="16383"):
        save(Photo(torch.zeros(3, 4, 16_400)), tmp_path / "a.webp")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = save(load(picture()), tmp_path / "a.png")
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ImageError, match="No space left"):
        save(load(picture(1)), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_quality_and_case_of_the_suffix(tmp_path):
    photo = load(picture(height=200, width=200))
    assert save(photo, tmp_path / "A.JPG") == tmp_path / "A.JPG"
    for suffix in (".jpg", ".webp", ".avif"):
        assert len(encode(photo, suffix, quality=10)) < len(encode(photo, suffix))


def test_photo_parts_must_fit():
    for parts in (
        {"pixels": torch.zeros(1, 8, 8)},
        {"pixels": torch.zeros(3, 8, 8, dtype=torch.float64)},
        {"pixels": torch.zeros(3, 8, 8), "alpha": torch.zeros(1, 9, 8)},
        {"pixels": torch.zeros(3, 8, 8), "bits": 12},
    ):
        with pytest.raises(ImageError):
            Photo(**parts)


# --- malformed uploads ---------------------------------------------------------------------------------------------


def assert_silent(call):
    """Run it; let nothing but ImageError out, and no warning either."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            call()
        except ImageError as error:
            assert "\n" not in str(error)
    assert not seen, [str(one.message) for one in seen]


def malformed(seed):
    draw = random.Random(seed)
    source = fuzz_sources()[seed % len(fuzz_sources())]
    data = bytearray(source)
    if draw.random() < 0.3:
        data = data[: draw.randrange(len(data))]
    for _ in range(draw.choice((0, 1, 3, 30))):
        if data:
            near = min(len(data), draw.choice((64, 400, len(data) + 1)))
            data[draw.randrange(near)] = draw.choice((0, 255, draw.randrange(256)))
    if draw.random() < 0.1:
        data = bytearray(source[: draw.choice((4, 16, 40))] + draw.randbytes(400))
    return bytes(data)


@cache
def fuzz_sources():
    deep = Photo(load(picture(4, 16)).pixels, load(picture(4)).alpha, SRGB, load(turned_file("JPEG", 6)).exif, 16)
    files = [encode(deep, suffix, keep_gps=True) for suffix in (".png", ".tif", ".jpg", ".webp", ".avif", ".bmp")]
    files += [turned_file(kind, 6) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")]
    files += [draw_gif(), tiff16(picture(3, 16), ">", 2), interlaced_png16(picture(3, 16))]
    frames = [Image.fromarray(picture()), Image.fromarray(picture()[::-1])]
    files += [bytes_of(frames[0], kind, save_all=True, append_images=frames[1:]) for kind in ("PNG", "WEBP", "TIFF")]
    files += [bytes_of(frames[0].quantize(8), kind) for kind in ("PNG", "BMP", "TIFF")]
    files += [bytes_of(frames[0].convert("CMYK"), kind) for kind in ("JPEG", "TIFF")]
    files += [bytes_of(frames[0], "TIFF", compression=name) for name in ("tiff_lzw", "jpeg")]
    return files


@pytest.mark.parametrize("first", range(0, 400, 20))
def test_malformed_uploads(first, capfd):
    for seed in range(first, first + 20):
        assert_silent(lambda seed=seed: load(malformed(seed)))
    printed = capfd.readouterr()
    assert not printed.out and "Warning" not in printed.err  # libtiff itself prints a line on damaged data


def test_threads_agree():
    files = [encode(load(picture(3, bits)), suffix) for bits in (8, 16) for suffix in WRITTEN]
    expected = [load(data).pixels for data in files]
    wrong = []

    def work(index):
        for data, pixels in zip(files[index:] + files[:index], expected[index:] + expected[:index], strict=True):
            if not torch.equal(load(data).pixels, pixels):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- pixels --------------------------------------------------------------------------------------------------------


def test_with_pixels_resizes_the_alpha():
    photo = load(picture(4))
    bigger = photo.with_pixels(resize(photo.pixels, 2 * HEIGHT, 2 * WIDTH))
    assert bigger.alpha.shape == (1, 2 * HEIGHT, 2 * WIDTH) and (bigger.height, bigger.width) == (72, 96)
    same = photo.with_pixels(photo.pixels[None] * 3 - 1)
    assert same.alpha is photo.alpha and float(same.pixels.min()) == 0 and float(same.pixels.max()) == 1
    with pytest.raises(ImageError, match="finite"):
        photo.with_pixels(photo.pixels / 0)


def test_to_pil_and_to_numpy():
    pixels = load(picture()).pixels
    assert np.array_equal(np.asarray(to_pil(pixels)), picture())
    assert np.array_equal(np.asarray(to_pil(pixels[None].half())), picture())
    array = to_numpy(pixels[None])
    assert array.shape == (HEIGHT, WIDTH, 3) and array.dtype == np.float32
    assert torch.equal(load(array).pixels, pixels)


def test_resize():
    pixels = load(picture()).pixels
    assert resize(pixels, HEIGHT, WIDTH) is pixels
    assert resize(pixels.expand(2, 5, -1, -1, -1), 9, 7).shape == (2, 5, 3, 9, 7)
    checks = (torch.arange(64) % 2).float().expand(3, 64, 64)
    assert float((resize(checks, 16, 16) - 0.5).abs().max()) < 0.1  # averaged, not sampled
    assert float((resize(checks, 23, 23, antialiased=False) - 0.5).abs().max()) > 0.3
    leaf = pixels.clone().requires_grad_()
    resize(leaf, 10, 10).sum().backward()
    assert leaf.grad.abs().sum() > 0
    with pytest.raises(InputError, match="at least 1x1"):
        resize(pixels, 0, 5)


# --- finding files -------------------------------------------------------------------------------------------------


def test_find_images(tmp_path):
    for name in (
        "b.JPG",
        "a.png",
        "notes.txt",
        "sub/c.webp",
        "sub/.hidden.png",
        ".thumbs/d.png",
        "e[1].png",
        "odd.dat",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()

    def names(*paths):
        return [str(path.relative_to(tmp_path)) for path in find_images([tmp_path / path for path in paths])]

    assert names(".") == ["a.png", "b.JPG", "e[1].png", "sub/c.webp"]
    assert names("b.JPG", ".") == ["b.JPG", "a.png", "e[1].png", "sub/c.webp"]
    assert names("odd.dat", "e[1].png") == ["odd.dat", "e[1].png"]
    assert names("*.*") == ["a.png", "b.JPG", "e[1].png"]
    assert names("**/*.webp") == ["sub/c.webp"]
    assert names("folder.png") == [] and find_images([]) == []
    assert find_images([str(tmp_path / "a.png")]) == [tmp_path / "a.png"]
    for absent in ("absent", "absent/*.png", "*.gif"):
        with pytest.raises(InputError, match="existing"):
            names(absent)
    for odd in ("", "a\0b"):
        with pytest.raises(InputError):
            find_images([odd])
    assert all(suffix == suffix.lower() for suffix in SUFFIXES) and set(WRITTEN) < set(SUFFIXES)


def test_lanczos_draws_a_wave_better_than_bicubic_does_and_keeps_grey_grey():
    def wave(x):
        return (0.5 + 0.4 * torch.sin(x * 2 * torch.pi / 5)).expand(3, 40, -1)

    small, true = wave(torch.arange(40.0)), wave((torch.arange(160) + 0.5) / 4 - 0.5)
    larger = enlarge(small, 4)
    assert larger.shape == (3, 160, 160)
    assert larger.dtype == torch.float32
    assert torch.equal(larger[0], larger[2])
    errors = [float((x[0, 0] - true[0, 0])[20:-20].abs().max()) for x in (larger, resize(small, 160, 160))]
    assert errors[0] < 0.75 * errors[1]
    assert enlarge(small, 1) is small
    assert float(enlarge(torch.eye(8)[None], 2).min()) == 0  # ringing is cut off
