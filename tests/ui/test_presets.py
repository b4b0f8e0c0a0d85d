"""The strip of the three presets: from one reading, without a network, and a click restores."""

import pytest
import torch

from pipelines import restore
from studio import images
from studio.ui.restore_call import restore_photo
from studio.ui.restore_options import LOOKS
from tests import tiny
from tests.ui.toy import MARKS

pytestmark = MARKS


@pytest.fixture
def pipeline(monkeypatch):
    monkeypatch.setattr(restore, "FaceFinder", tiny.TwoFaces)
    return tiny.restore_pipeline()


@pytest.fixture
def photo(tmp_path):
    return images.save(images.load(tiny.sharp_photo()), tmp_path / "aunt.png")


def test_the_three_ways_are_those_that_restoring_gives(pipeline, photo, tmp_path):
    """Each is what `join` makes of the largest face, and they differ."""
    result = restore_photo(pipeline, photo, tmp_path / "out", identity_guard=0)
    assert [name for _, name in result.ways] == list(LOOKS)
    shown = [images.load(path).pixels for path, _ in result.ways]
    assert all(one.shape == (3, 256, 256) for one in shown)
    assert not torch.equal(shown[0], shown[2])
    loaded = images.load(photo)
    faces = pipeline.settle(loaded, pipeline.find(loaded), [0, 1])[[0]]
    reading = pipeline.read(pipeline.crop(loaded, faces)[0])
    for picture, fidelity in zip(shown, LOOKS.values(), strict=True):
        aim = images.resize(pipeline.join(reading, fidelity).picture[0], 256, 256)
        assert (picture - aim).abs().max() < 1 / 255


def test_no_network_runs_for_them(pipeline, photo, tmp_path, monkeypatch):
    """As many calls of the cleaner as without the strip."""
    calls = []
    pipeline.cleaner.register_forward_pre_hook(lambda *_: calls.append(1))
    restore_photo(pipeline, photo, tmp_path / "with", region="face")
    with_strip = len(calls)
    monkeypatch.setattr("studio.ui.restore_call.LOOKS", {})
    restore_photo(pipeline, photo, tmp_path / "without", region="face")
    assert with_strip and len(calls) == 2 * with_strip


def test_there_is_none_of_a_photo_without_a_face(pipeline, tmp_path):
    plain = images.save(torch.full((3, 64, 64), 0.5), tmp_path / "plain.png")
    assert restore_photo(pipeline, plain, tmp_path / "out").ways == []


@pytest.mark.slow
def test_a_click_restores_in_that_way(browser, photo, monkeypatch, _loops):
    from studio.ui import app
    from tests.ui.visitor import Visitor

    monkeypatch.setattr(restore, "FaceFinder", tiny.TwoFaces)
    made = app.build({"Restore": tiny.restore_pipeline()})
    _, address, _ = made.launch(prevent_thread_lock=True, quiet=True, **app.options({}))
    visitor = Visitor(browser, address)
    page = visitor.page
    strip = page.locator(".strip")
    visitor.upload(photo)
    assert not strip.is_visible()
    page.get_by_role("button", name="Restore", exact=True).click()
    visitor.say("2 faces found")
    strip.get_by_text("Sharpest").click()
    page.get_by_role("radio", name="Sharpest").and_(page.locator(":checked")).wait_for()
    page.get_by_text('"fidelity"').or_(page.locator("[data-state=working]")).first.wait_for(state="attached")
    visitor.say("2 faces found")
    page.get_by_role("button", name="Report (JSON)").first.click()
    page.get_by_text("0.2").first.wait_for()
    visitor.close()
    made.close()
