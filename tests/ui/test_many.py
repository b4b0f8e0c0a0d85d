"""Many photos: one zip with what was restored, a report with every file, and polite refusals."""

import json
import zipfile

import pytest
from gradio_client import handle_file
from PIL import Image

from studio import images, provenance
from studio.errors import InputError
from studio.ui.restore_many import MOST, restore_photos
from tests import tiny
from tests.ui.toy import MARKS, ToyRestore

pytestmark = MARKS


@pytest.fixture
def album(tmp_path, photo, black, text):
    """Two photos of one name, one without a face, and a file that is no photo."""
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / photo.name
    images.save(images.load(tiny.image(40, 60, seed=5)), twin)
    return [photo, twin, black, text]


def test_one_zip(album, tmp_path):
    archive, reports = restore_photos(ToyRestore(tiny.tiny_net()), album, tmp_path / "out", scale=2)
    assert [report.status for report in reports] == ["restored", "restored", "no face", "failed"]
    assert [report.input for report in reports] == ["aunt.png", "aunt-2.png", "black.png", "notes.jpg"]
    with zipfile.ZipFile(archive) as stream:
        assert sorted(stream.namelist()) == ["aunt-2.png", "aunt.png", "report.json"]
        whole = images.load(stream.read("aunt.png"))
        assert (whole.width, whole.bits, whole.alpha is None) == (120, 16, False)
        document = json.loads(stream.read("report.json"))
        stream.extractall(tmp_path / "unpacked")
    assert document["settings"] == {"fidelity": 0.5, "scale": 2, "background": "lanczos"}
    assert str(tmp_path) not in json.dumps(document["files"])
    if not provenance.reason_not(".png"):
        assert provenance.verify(tmp_path / "unpacked" / "aunt.png").credentials == "intact"
    assert not (tmp_path / "out" / "photos").exists()


def test_the_pixels_are_those_of_a_single_run(photo, tmp_path):
    pipeline = ToyRestore(tiny.tiny_net())
    archive, _ = restore_photos(pipeline, [photo], tmp_path / "out", credentials=False)
    with zipfile.ZipFile(archive) as stream:
        assert stream.read("aunt.png") == images.encode(pipeline(photo, scale="auto").photos[0], ".png")


def test_formats(photo, tmp_path):
    archive, reports = restore_photos(ToyRestore(tiny.tiny_net()), [photo], tmp_path / "out", file_format="jpg")
    with zipfile.ZipFile(archive) as stream:
        assert "aunt.jpg" in stream.namelist()
    assert reports[0].output == "aunt.jpg"


def test_nothing_restored_is_no_zip(black, tmp_path):
    archive, reports = restore_photos(ToyRestore(tiny.tiny_net()), [black], tmp_path / "out")
    assert archive is None
    assert reports[0].status == "no face"


def test_refuses(photo, tmp_path):
    pipeline = ToyRestore(tiny.tiny_net())
    with pytest.raises(InputError, match="choose files first"):
        restore_photos(pipeline, [], tmp_path / "out")
    with pytest.raises(InputError, match=f"at most {MOST}"):
        restore_photos(pipeline, [photo] * (MOST + 1), tmp_path / "out")
    with pytest.raises(InputError, match="file_format"):
        restore_photos(pipeline, [photo], tmp_path / "out", file_format="psd")


def test_too_large_a_result_fails_alone(photo, tmp_path, monkeypatch):
    monkeypatch.setattr("studio.ui.common.MAX_PIXELS", 40 * 60 * 4)
    small = tmp_path / "small.png"
    Image.new("RGB", (20, 20), "red").save(small)
    _, reports = restore_photos(ToyRestore(tiny.tiny_net()), [photo, small], tmp_path / "out", scale=4)
    assert [report.status for report in reports] == ["failed", "restored"]


def test_endpoint(client, photo, black):
    archive, report, message, table = client.predict([handle_file(photo), handle_file(black)], api_name="/restore_many")
    assert zipfile.is_zipfile(archive)
    assert [one["status"] for one in report] == ["restored", "no face"]
    assert "1 restored, 1 no face." in message
    assert table.count("<tr>") == 3
