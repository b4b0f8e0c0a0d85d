"""What the net throws at a server: two hundred malformed uploads, and more visitors than the queue holds."""

import io
import json
import random
import struct
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from studio import images
from studio.ui.app import build, options
from studio.ui.common import EXAMPLES, MAX_PIXELS
from studio.ui.rush import peak, run, rush
from tests import tiny
from tests.ui.toy import MARKS, Slow, ToyRestore, files_in

# A client that is refused leaves a socket of its own open.
leftover = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
pytestmark = [*MARKS, pytest.mark.slow, leftover]


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def served(_loops, uploads):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        pipeline = Slow(ToyRestore(tiny.tiny_net()))
        app = build({"Restore": pipeline})
        _, address, _ = app.launch(prevent_thread_lock=True, quiet=True, **options({}))
        yield address, pipeline
        app.close()


def png(width, height, body=b"", bits=8):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def encoded(kind, size=(64, 48), **options):
    stream = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(stream, kind, **options)
    return stream.getvalue()


def malformed():
    """(name, bytes): 200 files of which none is a whole, plain photograph."""
    draw = random.Random(0)
    whole = {kind: encoded(kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")}
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    page = b"<!doctype html><script>alert(1)</script>"
    bomb = zlib.compress(bytes(60_000_000))
    files = [
        ("empty.jpg", b""),
        ("one.png", b"\x89"),
        ("drawing.svg", svg),
        ("drawing.png", svg),
        ("page.jpg", page),
        ("letter.jpg", b"%PDF-1.7 not a photo"),
        ("office.png", b"PK\x03\x04" + bytes(100)),
        ("program.png", b"\x7fELF" + bytes(200)),
        ("script.jpg", b"#!/bin/sh\nrm -rf nothing\n"),
        ("pickle.png", b"\x80\x04\x95" + bytes(50)),
        ("bomb.png", png(60_000, 60_000, bomb)),
        ("wide.png", png(2**31 - 1, 1, b"")),
        ("flat.png", png(0, 0, b"")),
        ("thin.png", png(1, 50_000_001, bomb)),
        ("short.png", png(400, 400, zlib.compress(b"too little"))),
        ("huge.bmp", b"BM" + struct.pack("<IHHIIiiHH", 0, 0, 0, 54, 40, 100_000, 100_000, 1, 24) + bytes(24)),
        ("huge.gif", b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(20)),
        ("tiff.tif", b"II*\0" + struct.pack("<I", 2**31)),
        ("loop.tif", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0\x08\0\0\0"),
        ("../../escape.png", b"no photo"),
        ("..%2f..%2fescape.jpg", b"no photo"),
        ("con\u202egpj.exe", b"MZ" + bytes(60)),
        ("a" * 300 + ".jpg", b"no photo"),
        ("video.jpg", b"\0\0\0\x20ftypisom" + bytes(40)),
    ]
    files += [(f"zip{i}.{kind.lower()}", data + zipped()) for i, (kind, data) in enumerate(whole.items())]
    files += [(f"svg{i}.jpg", data[:20] + svg + data[20:]) for i, data in enumerate(whole.values())]
    while len(files) < 130:  # cut short
        kind, data = draw.choice(list(whole.items()))
        files.append((f"cut{len(files)}.{kind.lower()}", data[: draw.randrange(4, len(data) // 2)]))
    while len(files) < 200:  # damaged at the front, where the structure is
        kind, data = draw.choice(list(whole.items()))
        broken = bytearray(data)
        for _ in range(12):
            broken[draw.randrange(min(80, len(broken)))] = draw.randrange(256)
        files.append((f"bad{len(files)}.{kind.lower()}", bytes(broken)))
    return files


def zipped():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("payload.txt", "hello")
    return stream.getvalue()


def send(address, name, data):
    """Upload and restore as a script does -> "refused upload", "error" or the report's status."""
    with httpx.Client(timeout=300) as http:
        answer = http.post(f"{address}gradio_api/upload", files={"files": (name, data)})
        if answer.status_code != 200:
            return "refused upload"
        upload = {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}
        arguments = [upload, "all", 0.5, 1, 1, 0.6, False, "png", False, None]
        arguments += ["lanczos", "", False, "auto", 0, "restore"]
        event = http.post(f"{address}gradio_api/call/restore", json={"data": arguments}).json()["event_id"]
        said = http.get(f"{address}gradio_api/call/restore/{event}").text
    if "event: complete" not in said:
        assert "event: error" in said, said
        return "error"
    last = [line for line in said.splitlines() if line.startswith("data: ")][-1]
    return json.loads(last.removeprefix("data: "))[1]["status"]


def test_two_hundred_malformed_uploads(served, uploads, photo):
    address, _ = served
    files = malformed()
    assert len(files) == 200
    names = {}
    with ThreadPoolExecutor(4) as pool:
        # Four at a time never fill the queue.
        for (name, data), outcome in zip(files, pool.map(lambda file: send(address, *file), files), strict=True):
            names.setdefault(outcome, []).append((name, data))
    for outcome, found in names.items():
        if outcome not in ("error", "refused upload"):
            for name, data in found:  # damage that a decoder can live with: a whole photo after all
                assert images.load(data, max_pixels=MAX_PIXELS).pixels.isfinite().all(), (outcome, name)
    assert len(names["error"]) > 150
    kept = {path.read_bytes() for path in files_in(uploads)}
    left = [name for name, data in names["error"] if data in kept]
    assert left == []
    assert not list(uploads.parent.rglob("*escape*"))
    assert send(address, "aunt.png", photo.read_bytes()) == "restored"  # and it is well


def test_twenty_visitors_at_once_are_served_one_by_one(served):
    """And together they cost far less than twenty times one; the twenty clients, in this process too, are counted."""
    address, pipeline = served
    rush(address, EXAMPLES / "portrait.jpg", 1)
    before = peak()
    found = rush(address, EXAMPLES / "portrait.jpg", 20)
    assert (found["finished"], found["failed"]) == (20, {}), found
    assert pipeline.most == 1
    assert peak() - before < 400


def test_more_than_the_queue_holds_are_refused_politely(_loops, monkeypatch):
    monkeypatch.setattr("studio.ui.app.QUEUE", 3)
    pipeline = Slow(ToyRestore(tiny.tiny_net()), seconds=2)  # the queue is full before the first is done
    app = build({"Restore": pipeline})
    _, address, _ = app.launch(prevent_thread_lock=True, quiet=True, **options({}))
    try:
        found = rush(address, EXAMPLES / "portrait.jpg", 10)
    finally:
        app.close()
    assert found["failed"] == {}
    assert found["finished"] + found["refused"] == 10
    assert found["finished"] >= 3
    assert pipeline.most == 1


def test_the_documented_command():
    found = run(2, 64, {"Restore": ToyRestore(tiny.tiny_net())})
    assert (found["visitors"], found["finished"], found["refused"], found["failed"]) == (2, 2, 0, {})
    assert found["photo"] == [64, 64]
    assert found["peak_mb"] >= found["peak_mb_one"] > 0


@pytest.mark.alone
def test_a_bomb_is_refused_before_it_is_unpacked():
    start = time.perf_counter()
    with pytest.raises(images.ImageError, match="pixels"):
        images.load(png(60_000, 60_000, zlib.compress(bytes(1_000_000))))
    assert time.perf_counter() - start < 1
