"""The report as a page: whole in itself, and harmless whatever the files are called."""

from __future__ import annotations

import re

import torch

from studio import images
from studio.batch import FAILED, RESTORED, FileReport, write_page
from studio.batch.page import reason_of


def reports(folder):
    before = images.save(images.Photo(torch.rand(3, 60, 40)), folder / 'a "<b>.png')
    after = images.save(images.Photo(torch.rand(3, 120, 80)), folder / "out.png")
    faces = [
        {"index": 0, "restored": True, "reason": "", "identity_distance": 0.2},
        {"index": 1, "restored": True, "reason": "identity guard: strength 0.50", "identity_distance": 0.55},
    ]
    return [
        FileReport(str(before), str(after), RESTORED, faces=faces),
        FileReport("</article><script>alert(1)</script>.jpg", status=FAILED, reason="no photo & no more"),
    ]


def test_the_page_holds_everything_itself(tmp_path):
    write_page(tmp_path / "pages" / "page.html", reports(tmp_path))
    text = (tmp_path / "pages" / "page.html").read_text()
    assert text.count("<article") == 2 and text.count("<img") == 2
    assert 'data-distance="0.55"' in text and 'data-distance="-1"' in text
    assert not re.search(r"(?:src|href)=[\"'](?!data:image/jpeg;base64,)", text)
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")
    assert text.count("<script>") == 1 and "alert(1)</script>" not in text
    assert "no photo &amp; no more" in text
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["page.html"]


def test_what_photos_are_filtered_by(tmp_path):
    first, second = reports(tmp_path)
    assert reason_of(first) == "restored, identity guard" and reason_of(second) == "failed"
    first.duplicate_of = "x.png"
    assert reason_of(first) == "restored, the same as another"
