"""The Album tab: people with their faces, a zip, and polite refusals."""

import csv
import io
import json
import zipfile

import gradio as gr
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError

from studio import images
from studio.ui import album
from studio.ui.album import MOST, Runner, group_photos, numbered, page, zipped
from studio.ui.common import STOPPED
from tests import tiny
from tests.ui.toy import MARKS, ToyAlbum

pytestmark = MARKS


@pytest.fixture
def photos(tmp_path):
    """The same photo twice under one name, and another one."""
    (tmp_path / "other").mkdir()
    paths = [tmp_path / "a.png", tmp_path / "other" / "a.png", tmp_path / "<b>.png"]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        images.save(images.load(tiny.sharp_photo(seed=seed)), path)
    return paths


def nothing(done, count):
    pass


def test_numbered():
    assert numbered(["a.png", "b.png", "a.png", "a.png"]) == ["a.png", "b.png", "a-2.png", "a-3.png"]


def test_page_and_zip(photos, text, tmp_path):
    found = group_photos(ToyAlbum(), [*map(str, photos), str(text)], 1e-3, nothing)
    shown = page(found)
    assert shown.count("<section") == len(found.people)
    assert shown.count("<img") == len(found.faces) == 6
    assert "<h3>Person 1: 2 photos</h3>" in shown
    assert "Face in &lt;b&gt;.png" in shown and "<b>" not in shown  # a name is text, not markup
    assert "Not in the album" in shown and "notes.jpg" in shown
    with zipfile.ZipFile(zipped(found, tmp_path / "album.zip")) as archive:
        names = archive.namelist()
        assert "person-001/001_a_0.png" in names and "person-001/002_a-2_0.png" in names
        assert not [name for name in names if ".." in name or name.startswith("/") or "<" in name]
        assert images.load(archive.read("person-001/001_a_0.png")).width == 192
        assert len(list(csv.DictReader(io.StringIO(archive.read("album.csv").decode())))) == 6
        document = json.loads(archive.read("album.json"))
    assert document == found.to_dict()
    assert str(tmp_path) not in json.dumps(document).replace(found.failed[3], "")


def test_set_aside_is_shown_with_the_reason(photos, tmp_path):
    found = group_photos(ToyAlbum(tiny.TinyFace), [str(photos[0])], 1e-3, nothing)
    assert "<h3>Set aside</h3>" in page(found)
    assert "too small: " in page(found)
    with zipfile.ZipFile(zipped(found, tmp_path / "album.zip")) as archive:
        assert "set-aside/001_a_2.png" in archive.namelist()


def test_a_large_album_is_not_shown_whole(photos, monkeypatch):
    monkeypatch.setattr(album, "SHOWN", 3)
    shown = page(group_photos(ToyAlbum(), list(map(str, photos)), 1e-3, nothing))
    assert shown.count("<img") == 3
    assert "3 more faces: in the zip." in shown


def test_cancel(photos):
    runner = Runner(ToyAlbum)

    def progress(*given, **named):
        if named.get("desc") == "Looking for faces":
            next(iter(runner.lane.stops.values())).set()

    pages = runner.album(list(map(str, photos)), progress=progress)
    next(pages)
    assert STOPPED in next(pages)[2]
    assert list(pages) == []


def test_refuses(photos):
    with pytest.raises(gr.Error, match="choose files first"):
        list(Runner(ToyAlbum).album(None))
    with pytest.raises(gr.Error, match=f"at most {MOST}"):
        list(Runner(ToyAlbum).album([str(photos[0])] * (MOST + 1)))


def test_endpoint(client, photos, black):
    file, report, message, people = client.predict(
        photos=[*map(handle_file, photos), handle_file(black)], threshold=0.3, api_name="/album"
    )
    assert zipfile.is_zipfile(file)
    assert report["photos"] == 4 and report["without_face"] == ["black.png"]
    assert report["sentence"] in message
    assert people.count("<section") == report["people"]
    file, report, *_ = client.predict(photos=[handle_file(black)], api_name="/album")
    assert file is None and report["faces"] == []
    with pytest.raises(AppError, match="minimum"):
        client.predict(photos=[handle_file(black)], threshold=0.1, api_name="/album")
