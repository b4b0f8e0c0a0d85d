"""What scans have besides pixels, and the formats that scanners and archives write."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin

from studio.errors import ImageError
from studio.images import Photo, encode, load, resize

WIDTH, HEIGHT = 48, 36
WRITTEN = (".png", ".jpg", ".webp", ".tif", ".bmp", ".avif")


def picture(bits=8, width=WIDTH, height=HEIGHT):
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    bands = np.stack([x / width, y / height, (x + 2 * y) / (width + 2 * height)], -1)
    return np.rint(bands * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def file_of(kind, *, image=None, **options):
    stream = io.BytesIO()
    (image or Image.fromarray(picture())).save(stream, kind, **options)
    return stream.getvalue()


def dpi_of(data):
    """As an independent reader sees it."""
    image = Image.open(io.BytesIO(data))
    found = image.info.get("dpi") or (image.getexif()[282], image.getexif()[283])
    return tuple(round(float(value)) for value in found)


# ---- resolution


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("suffix", WRITTEN)
def test_dpi_survives_and_grows_with_the_picture(kind, suffix):
    photo = load(file_of(kind, dpi=(600, 300)))
    assert photo.dpi == pytest.approx((600, 300), abs=0.1)
    assert dpi_of(encode(photo, suffix)) == (600, 300)
    larger = photo.with_pixels(resize(photo.pixels, 2 * HEIGHT, 2 * WIDTH))
    assert dpi_of(encode(larger, suffix)) == (1200, 600)
    assert load(encode(larger, suffix)).dpi == pytest.approx((1200, 600), abs=0.1)


def test_dpi_of_a_jpeg_that_states_it_in_its_exif_alone():
    block = Image.Exif()
    block[282], block[283], block[296] = 600.0, 600.0, 2
    photo = load(file_of("JPEG", exif=block))
    assert photo.dpi == (600, 600)
    data = encode(photo.with_pixels(resize(photo.pixels, 2 * HEIGHT, 2 * WIDTH)), ".jpg")
    assert dpi_of(data) == (1200, 1200)
    assert Image.open(io.BytesIO(data)).getexif()[282] == 1200


def test_dpi_in_centimetres_turned_and_deep():
    data = file_of("TIFF", tiffinfo={282: 200.0, 283: 100.0, 296: 3})
    assert load(data).dpi == (508, 254)
    block = Image.Exif()
    block[274] = 6
    turned = load(file_of("JPEG", dpi=(600, 300), exif=block))
    assert (turned.dpi, turned.width) == ((300, 600), HEIGHT)
    deep = Photo(load(picture(16)).pixels, bits=16, dpi=(600, 600))
    for suffix in (".png", ".tif"):
        assert load(encode(deep, suffix)).dpi == pytest.approx((600, 600), abs=0.1)


def test_no_dpi_is_stated_where_none_is_known():
    for kind in ("JPEG", "PNG"):
        assert "dpi" not in Image.open(io.BytesIO(encode(load(file_of(kind)), ".png"))).info
    odd = Image.Exif()
    odd[282], odd[283], odd[296] = TiffImagePlugin.IFDRational(1, 0), 0.0, 2
    assert load(file_of("JPEG", exif=odd)).dpi is None


# ---- texts


def test_png_texts_and_jpeg_comments_survive():
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "Wedding, 1921")
    info.add_itxt("Comment", "Łódź, box 7")
    info.add_text("Description", "long " * 100, zip=True)
    info.add_text("XML:com.adobe.xmp", "<x:xmpmeta>SECRET</x:xmpmeta>")
    photo = load(file_of("PNG", pnginfo=info))
    assert dict(photo.texts) == {"Title": "Wedding, 1921", "Comment": "Łódź, box 7", "Description": "long " * 100}
    again = Image.open(io.BytesIO(encode(photo, ".png")))
    again.load()
    assert {"Title", "Comment", "Description"} == set(again.text)
    assert again.text["Comment"] == "Łódź, box 7"
    deep = Photo(load(picture(16)).pixels, bits=16, texts=photo.texts)
    assert load(encode(deep, ".png")).texts == photo.texts
    comment = load(file_of("JPEG", comment="Box 7, leaf 12é".encode()))
    assert Image.open(io.BytesIO(encode(comment, ".jpg"))).info["comment"] == "Box 7, leaf 12é".encode()
    assert load(encode(comment, ".png")).texts == (("Comment", "Box 7, leaf 12é"),)
    assert Image.open(io.BytesIO(encode(comment, ".tif"))).tag_v2[270].startswith("Box 7")
    assert b"Title: Wedding, 1921" in encode(photo, ".jpg")


def test_texts_that_tell_the_place_or_make_two_files_of_one_go():
    info = PngImagePlugin.PngInfo()
    for keyword, text in (("Note", "x" * 20_000), ("GPS Position", "SECRET"), ("Comment", "<script>x</script>")):
        info.add_text(keyword, text)
    photo = load(file_of("PNG", pnginfo=info))
    assert photo.texts == (("GPS Position", "SECRET"),)
    assert b"SECRET" not in encode(photo, ".png")
    assert b"SECRET" in encode(photo, ".png", keep_gps=True)
    bomb = b"Note\0\0" + zlib.compress(bytes(50_000_000))
    data = file_of("PNG")
    chunk = struct.pack(">I", len(bomb)) + b"zTXt" + bomb + struct.pack(">I", zlib.crc32(b"zTXt" + bomb))
    assert load(data[:33] + chunk + data[33:]).texts == ()


# ---- pages


@pytest.mark.parametrize(
    ("kind", "options"), [("TIFF", {}), ("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("AVIF", {})]
)
def test_pages_and_frames_are_counted(kind, options):
    frames = [Image.fromarray(np.ascontiguousarray(np.roll(picture(), 9 * i, 1))) for i in range(3)]
    assert load(file_of(kind, image=frames[0], save_all=True, append_images=frames[1:], **options)).pages == 3
    assert load(file_of(kind)).pages == 1


def test_a_reduced_copy_is_no_page():
    small = Image.fromarray(picture()).resize((12, 9))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    data = file_of("TIFF", save_all=True, append_images=[small])
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert load(data).pages == 1


# ---- formats


def test_jpeg_2000():
    for options in ({}, {"no_jp2": True}):
        photo = load(file_of("JPEG2000", quality_mode="dB", **options))
        assert float((photo.pixels - load(picture()).pixels).abs().max()) < 0.02
    grey = Image.fromarray(picture(16)[..., 0])
    assert load(file_of("JPEG2000", image=grey)).bits == 16


def test_ppm_and_its_relatives():
    assert (load(file_of("PPM")).pixels == load(picture()).pixels).all()
    grey = load(file_of("PPM", image=Image.fromarray(picture()[..., 0])))
    assert grey.grey and (grey.pixels[0] == load(picture()).pixels[0]).all()
    levels = picture(16)
    deep = load(b"P6\n# a scanner\n%d %d\n65535\n" % (WIDTH, HEIGHT) + levels.astype(">u2").tobytes())
    assert deep.bits == 16 and (deep.pixels == load(levels).pixels).all()
    assert load(b"P1\n4 4\n0 1 0 1 1 0 1 0 0 0 0 0 1 1 1 1\n").pixels.shape == (3, 4, 4)
    for wrong in (b"P6\n48 36\n255\n" + bytes(40), b"P6\n48 36\n0\n" + bytes(6000), b"P5\n99999 99999\n255\n"):
        with pytest.raises(ImageError):
            load(wrong)


@pytest.mark.parametrize("options", [{}, {"compression": "tga_rle"}])
def test_tga(options):
    for image in (
        Image.fromarray(picture()),
        Image.fromarray(picture()[..., 0]),
        Image.fromarray(picture()).quantize(),
    ):
        photo = load(file_of("TGA", image=image, **options))
        assert photo.pixels.shape == (3, HEIGHT, WIDTH)
        expected = load(np.asarray(image.convert("RGB"))).pixels
        assert float((photo.pixels - expected).abs().max()) == 0


# ---- salvage


def test_a_jpeg_without_its_end_is_salvaged_and_says_what_is_missing():
    image = Image.fromarray(picture(width=160, height=128))
    whole = file_of("JPEG", image=image, quality=95)
    cut = whole[: len(whole) // 2]
    with pytest.raises(ImageError, match="copy it again"):
        load(cut)
    found = load(cut, salvage=True)
    assert found.pixels.shape == (3, 128, 160)
    rows = int(found.lacking.removeprefix("the file is cut short and lacks its last ").split()[0])
    assert 32 <= rows <= 96
    top = 128 - rows - 24  # a row of blocks that is there in part, and colours that reach into the next one
    assert float((found.pixels - load(whole).pixels)[:, :top].abs().max()) == 0
    assert load(whole, salvage=True).lacking == ""
    progressive = file_of("JPEG", image=image, quality=95, progressive=True)
    for share in (0.4, 0.6, 0.75, 0.9):  # three quarters end within the head of a scan
        assert "detail" in load(progressive[: int(len(progressive) * share)], salvage=True).lacking
    with pytest.raises(ImageError):
        load(whole[:500], salvage=True)
