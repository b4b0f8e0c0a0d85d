"""Content Credentials: what they say, that they break when the file changes, and what happens without them."""

import io
import json
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from studio import images, provenance, watermark
from studio.errors import CredentialsError, InputError
from studio.images import Photo
from studio.provenance import BROKEN, EDITED, GENERATED, INTACT, NONE, UNREAD, Operation
from tests import tiny

c2pa = pytest.importorskip("c2pa", reason="the extra `provenance` is not installed")

RESTORED = Operation("restore", "1 face restored", {"fidelity": 0.5, "faces": [0, 2], "identity_guard": None})
FORMATS = [".png", ".jpg", ".webp", ".tiff", ".avif"]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))
    for name in ("STUDIO_CERTIFICATE", "STUDIO_PRIVATE_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def photo():
    return Photo(tiny.image(40, 60), tiny.image(40, 60, seed=1)[:1], bits=16)


def written(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_signs_and_reads_back(photo, suffix, tmp_path):
    data = images.encode(photo, suffix)
    signed = provenance.sign(data, suffix, [RESTORED])
    before, after = images.load(data), images.load(signed)
    assert np.array_equal(before.pixels, after.pixels)
    assert (before.bits, before.alpha is None) == (after.bits, after.alpha is None)
    assert len(signed) - len(data) < 8000
    found = provenance.verify(written(tmp_path / f"x{suffix}", signed))
    assert (found.credentials, found.ok, found.problems) == (INTACT, True, ())
    assert (found.signer, found.signer_known) == (provenance.SELF_MADE, True)
    assert found.made_by.startswith("face-studio 0.")
    assert found.source_type == EDITED
    assert [step["action"] for step in found.operations] == ["opened", "edited"]
    edited = found.operations[1]
    assert edited["description"] == "1 face restored"
    assert edited["settings"] == {"pipeline": "restore", "fidelity": 0.5, "faces": "[0, 2]", "identity_guard": None}
    assert edited["when"].endswith("Z")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_changed_picture_is_broken(photo, suffix, tmp_path):
    signed = bytearray(provenance.sign(images.encode(photo, suffix), suffix, [RESTORED]))
    at = {".png": signed.find(b"IDAT") + 20, ".tiff": 20}.get(suffix, len(signed) - 20)
    signed[at] ^= 1
    found = provenance.verify(written(tmp_path / "x", bytes(signed)))
    assert (found.credentials, found.ok) == (BROKEN, False)
    assert found.problems
    assert "BROKEN" in provenance.lines(found)[0]


def test_changed_words_are_broken(photo, tmp_path):
    signed = provenance.sign(images.encode(photo, ".jpg"), ".jpg", [RESTORED])
    changed = signed.replace(b"1 face restored", b"0 face restored")
    assert changed != signed
    assert provenance.verify(written(tmp_path / "x.jpg", changed)).credentials == BROKEN


def test_a_new_encoding_has_no_credentials(photo, tmp_path):
    signed = provenance.sign(images.encode(photo, ".png"), ".png", [RESTORED])
    found = provenance.verify(images.save(images.load(signed), tmp_path / "again.jpg"))
    assert (found.credentials, found.ok) == (NONE, False)


def test_synthetic_pictures(tmp_path):
    marked = watermark.embed(tiny.image(512, 512), "generate")
    data = provenance.sign(images.encode(marked, ".png"), ".png", [Operation("generate", "made")], synthetic=True)
    found = provenance.verify(written(tmp_path / "new.png", data))
    assert [step["action"] for step in found.operations] == ["created", "edited"]
    assert found.source_type == GENERATED
    assert (found.mark.found, found.mark.kind) == (True, "generate")
    again = provenance.verify(images.save(images.load(data), tmp_path / "again.jpg", quality=85))
    assert (again.credentials, again.mark.kind, again.ok) == (NONE, "generate", True)  # the mark outlives them


def test_what_a_model_made_is_written_with_the_mark(tmp_path):
    picture, made = tiny.image(512, 512), Operation("edit", "made")
    assert not provenance.save_synthetic(picture, tmp_path / "new.png", made, credentials=False)
    found = provenance.verify(tmp_path / "new.png")
    assert (found.mark.found, found.mark.kind) == (True, "edit")
    assert "too small" in provenance.save_synthetic(picture[:, :200, :200], tmp_path / "a.png", made, credentials=False)
    with pytest.raises(InputError, match=r"one picture.*\(1, 3, 512, 512\)"):
        provenance.save_synthetic(picture[None], tmp_path / "b.png", made)
    assert not (tmp_path / "b.png").exists()


def test_the_source_keeps_its_credentials_and_gives_away_nothing_else(tmp_path):
    exif = Image.Exif()
    exif[315] = "Aunt Agatha"
    exif.get_ifd(34853)[2] = (51.0, 30.0, 12.0)
    stream = io.BytesIO()
    Image.new("RGB", (64, 48), "gray").save(stream, "JPEG", exif=exif)
    first = provenance.sign(stream.getvalue(), ".jpg", [Operation("restore", "the first time")])
    assert b"Agatha" in first
    second = provenance.sign(
        images.encode(tiny.image(48, 64), ".png"), ".png", [Operation("restore", "the second time")], source=first
    )
    assert b"Agatha" not in second
    found = provenance.verify(written(tmp_path / "x.png", second))
    assert found.credentials == INTACT
    manifests = json.loads(c2pa.Reader("image/png", io.BytesIO(second)).json())["manifests"]
    assert len(manifests) == 2
    assert any("the first time" in json.dumps(manifest) for manifest in manifests.values())


@pytest.mark.parametrize("source", [b"BM junk", b"\x89PNG\r\n\x1a\n junk", b""])
def test_a_source_that_c2pa_cannot_read_is_still_one(photo, source, tmp_path):
    signed = provenance.sign(images.encode(photo, ".png"), ".png", [RESTORED], source=source)
    assert provenance.verify(written(tmp_path / "x.png", signed)).credentials == INTACT


def test_the_self_made_certificate_is_made_once_and_private(photo):
    first = provenance.self_made_certificate()
    assert provenance.self_made_certificate() == first
    place = provenance._place()
    assert [path.name for path in place.parent.iterdir()] == ["self-made.pem"]
    if sys.platform != "win32":
        assert place.stat().st_mode & 0o077 == 0
    place.write_text("damaged")
    assert provenance.self_made_certificate() != first


def test_another_machines_certificate_is_unknown(photo, tmp_path, monkeypatch):
    path = written(tmp_path / "x.png", provenance.sign(images.encode(photo, ".png"), ".png", [RESTORED]))
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "another"))
    found = provenance.verify(path)
    assert (found.credentials, found.signer, found.signer_known) == (INTACT, provenance.SELF_MADE, False)
    assert any("NOT known" in line for line in provenance.lines(found))


def test_own_certificate(photo, tmp_path, monkeypatch):
    own = provenance._made()
    chain, key = written(tmp_path / "chain.pem", own.chain), written(tmp_path / "key.pem", own.key)
    monkeypatch.setenv("STUDIO_CERTIFICATE", str(chain))
    with pytest.raises(CredentialsError, match="together"):
        provenance.own_certificate()
    monkeypatch.setenv("STUDIO_PRIVATE_KEY", str(key))
    path = written(tmp_path / "x.png", provenance.sign(images.encode(photo, ".png"), ".png", [RESTORED]))
    assert not provenance._place().exists()
    assert provenance.verify(path).signer_known
    key.write_text("no key")
    with pytest.raises(CredentialsError, match="check the certificate"):
        provenance.sign(images.encode(photo, ".png"), ".png", [RESTORED])
    key.unlink()
    with pytest.raises(CredentialsError, match="check both names"):
        provenance.sign(images.encode(photo, ".png"), ".png", [RESTORED])


def test_refuses(photo, tmp_path):
    data = images.encode(photo, ".png")
    with pytest.raises(InputError, match="at least one operation"):
        provenance.sign(data, ".png", [])
    with pytest.raises(InputError, match="another format"):
        provenance.sign(images.encode(photo, ".bmp"), ".bmp", [RESTORED])
    with pytest.raises(CredentialsError, match="take credentials"):
        provenance.sign(b"no picture", ".png", [RESTORED])
    with pytest.raises(InputError, match="check its name"):
        provenance.verify(tmp_path / "gone.png")


def test_without_the_extra(photo, tmp_path, monkeypatch):
    path = written(tmp_path / "x.png", provenance.sign(images.encode(photo, ".png"), ".png", [RESTORED]))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "c2pa-python" in provenance.reason_not(".png")
    with pytest.raises(CredentialsError, match="c2pa-python"):
        provenance.sign(images.encode(photo, ".png"), ".png", [RESTORED])
    found = provenance.verify(path)
    assert (found.credentials, found.ok) == (UNREAD, False)
    assert "not installed" in provenance.lines(found)[0]


def test_reason_not():
    assert provenance.reason_not(".PNG") == ""
    assert provenance.reason_not(".bmp") == "a .bmp file holds none"


@pytest.mark.parametrize("data", [b"", b"text", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**31)])
def test_files_that_are_no_pictures(data, tmp_path):
    found = provenance.verify(written(tmp_path / "x", data))
    assert found.mark is None
    assert not found.ok
    assert any("not a picture" in line for line in provenance.lines(found))


def test_videos(tmp_path):
    av = pytest.importorskip("av", reason="the extra `video` is not installed")
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        for shade in (0, 90, 180):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), shade, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    signed = provenance.sign(path.read_bytes(), ".mp4", [Operation("reenact", "moved", {"consent": True})])
    path.write_bytes(signed)
    found = provenance.verify(path)
    assert (found.credentials, found.mark.found) == (INTACT, False)
    assert found.operations[1]["settings"]["consent"] is True
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 3


def test_a_file_on_disk_is_signed_where_it_is(photo, tmp_path):
    path = images.save(photo, tmp_path / "x.png")
    plain = path.read_bytes()
    provenance.sign_file(path, [RESTORED], source=plain, synthetic=True)
    found = provenance.verify(path)
    assert (found.credentials, found.source_type) == (INTACT, provenance.GENERATED)
    assert images.load(path).pixels.equal(images.load(plain).pixels)
    assert not list(tmp_path.glob(".*.part"))


def test_a_file_that_cannot_be_signed_stays_as_it_was(tmp_path):
    path = written(tmp_path / "x.mp4", b"no video")
    with pytest.raises(CredentialsError):
        provenance.sign_file(path, [RESTORED])
    assert path.read_bytes() == b"no video"
    assert not list(tmp_path.glob(".*.part"))
    with pytest.raises(InputError, match="at least one operation"):
        provenance.sign_file(path, [])
