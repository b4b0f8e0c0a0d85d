"""Files, folders and patterns: what is taken, from where names are mirrored, and what is left aside."""

from __future__ import annotations

import os

import pytest

from studio.errors import InputError
from studio.folders import gather


@pytest.fixture
def box(tmp_path):
    box = tmp_path / "box"
    for name in ("a.jpg", "b.JFIF", "c.jpe", "d.jp2", "e.tga", "f.ppm", "1900/g.png"):
        (box / name).parent.mkdir(parents=True, exist_ok=True)
        (box / name).write_bytes(b"")
    return box


def test_formats_of_scanners_are_taken(box):
    assert [path.name for path in gather([box]).files] == [
        *("g.png", "a.jpg", "b.JFIF", "c.jpe", "d.jp2", "e.tga", "f.ppm")
    ]


def test_what_is_not_read_is_listed_with_the_reason(box):
    for name in ("h.pdf", "i.cr2", "j.jxl", "k.txt", "scan0001", ".hidden", "1900/l.docx"):
        (box / name).write_bytes(b"")
    (box / "gone.jpg").symlink_to(box / "nothing")
    (box / "other").symlink_to(box.parent, target_is_directory=True)
    (box / "queue.jpg").unlink(missing_ok=True)
    os.mkfifo(box / "queue.jpg")
    found = dict(gather([box]).unread)
    assert {path.name: reason for path, reason in found.items()} == {
        "h.pdf": "a PDF: export its pages as TIFF or PNG",
        "i.cr2": "camera raw data: export it as 16-bit TIFF or PNG",
        "j.jxl": "JPEG XL: export it as PNG or TIFF",
        "k.txt": ".txt is no kind of photo that is read here",
        "scan0001": "no suffix: rename it, or give it by name",
        "l.docx": ".docx is no kind of photo that is read here",
        "gone.jpg": "a link that leads nowhere",
        "other": "a link to a folder, which is not followed",
        "queue.jpg": "neither a file nor a folder",
    }
    assert gather([box, box / "scan0001"]).files[-1].name == "scan0001"
    assert box / "scan0001" not in dict(gather([box, box / "scan0001"]).unread)


def test_folders_that_cannot_be_opened_are_said(box, monkeypatch):
    def walk(folder, onerror):
        onerror(PermissionError(13, "Permission denied", str(box / "shut")))
        yield str(folder), [], []

    monkeypatch.setattr(os, "walk", walk)
    assert gather([box]).unread == [(box / "shut", "a folder that cannot be opened (Permission denied)")]


def test_names_are_mirrored_from_what_was_given(box):
    assert gather([box]).root == box
    assert gather([box / "1900", box]).root == box
    assert gather([box / "1900" / "g.png", box / "a.jpg"]).root == box
    assert gather([box / "1900"]).root == box / "1900"
    assert gather([f"{box}/*/*.png"]).root == box
    assert gather([f"{box}/19*"]).root == box
    assert gather([]).root is None


def test_standard_input_is_refused(box):
    with pytest.raises(InputError, match="standard input is not read"):
        gather(["-"])
