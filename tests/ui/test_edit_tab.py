"""The Edit tab with toy networks: what it writes, what it says, the likeness that is kept, and stopping."""

import time

import gradio as gr
import pytest
import torch
from PIL import Image

from pipelines import edit as pipelines_edit
from pipelines.edit import EditPipeline
from studio import images
from studio.errors import ImageError, InputError
from studio.ui import edit as edit_module
from studio.ui.common import STOPPED
from studio.ui.edit import Likeness, Runner, change, further_changes, missed, misses, tab, verdict
from tests import tiny
from tests.ui.toy import closed_loops

pytestmark = [
    pytest.mark.usefixtures("_loops"),
    # gradio asks pandas for an option that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:too small for the invisible mark"),  # a toy prior of 64 px
]


@pytest.fixture(scope="module")
def _loops():
    with closed_loops():
        yield


@pytest.fixture
def editor(monkeypatch):
    monkeypatch.setattr(pipelines_edit, "FaceFinder", tiny.SureFinder)
    return tiny.edit_pipeline()


@pytest.fixture
def photo(tmp_path):
    return images.save(tiny.image(72, 80, seed=7), tmp_path / "photo.png")


def silent(*given, **named):
    pass


def run(editor, source, folder, kept=None, **changes):
    who = 3 if source is None else None
    return change(editor, source, folder, "likeness", changes or {"smile": 1.0}, who, 2, kept, None)


def test_a_photo_its_likeness_and_the_edit(editor, photo, tmp_path):
    likeness, shown, report, lacking = run(editor, photo, tmp_path / "out", smile=1.0, age=60.0)
    assert lacking == ""
    assert [path.name for path, _ in shown] == ["face.png", "likeness.png", "edited.png"]
    with Image.open(shown[0][0]) as crop, Image.open(shown[2][0]) as edited:
        assert (crop.size, edited.size) == ((256, 256), (256, 256))
    assert report.asked == {"smile": 1.0, "age": 60.0}
    assert f"{report.likeness_distance:.2f} away" in shown[1][1]
    said = verdict(report)
    assert f"age {report.before['age']:.1f} to {report.after['age']:.1f} years" in said
    assert f"to the photo {report.identity_distance:.2f}" in said and "flatters" in said
    assert likeness.w.shape == (1, 12, 8)


def test_a_generated_person(editor, tmp_path):
    _, shown, report, _ = run(editor, None, tmp_path / "out", yaw=5.0)
    assert [caption.split(":")[0] for _, caption in shown] == ["Generated", "Edited"]
    assert report.identity_distance is None
    assert verdict(report).startswith("Synthetic: yaw ")


def test_the_likeness_is_searched_for_once(editor, photo, tmp_path, monkeypatch):
    searched = []
    search = EditPipeline.likeness
    monkeypatch.setattr(EditPipeline, "likeness", lambda self, *given: searched.append(1) or search(self, *given))
    kept = run(editor, photo, tmp_path / "a")[0]
    again, _, report, _ = run(editor, photo, tmp_path / "b", kept, smile=-1.0)
    assert again.key == kept.key and again.w.equal(kept.w)
    assert report.likeness_distance is not None
    assert len(searched) == 1
    other = images.save(tiny.image(72, 80, seed=3), tmp_path / "other.png")
    assert run(editor, other, tmp_path / "c", kept)[0].key != kept.key
    assert len(searched) == 2
    assert run(editor, None, tmp_path / "d", kept)[0] is None


def test_a_change_that_falls_short_is_said_and_more_is_offered():
    before, after = {"age": 48.0, "smile": 2.4, "light": 0.0}, {"age": 60.7, "smile": 2.5, "light": 1.0}
    asked = {"age": 70.0, "smile": 1.0, "light": 1.0}
    short = misses(asked, before, after)
    assert [one.name for one in short] == ["age", "smile"]
    said = missed(short)
    assert "age came to 60.7 years where 70.0 years was asked for (next: 79)" in said
    assert "smile came to 0.1 where 1.0 was asked for (next: 2)" in said and "Press" in said
    assert further_changes({"asked": asked, "before": before, "after": after}) == {"age": 79, "smile": 2}
    assert misses({"age": 35.0}, {"age": 48.0}, {"age": 33.0}) == [], "beyond it is not short of it"
    last = misses({"age": 80.0}, before, after)
    assert last[0].instead is None and "not in reach" in missed(last)
    assert further_changes({"asked": {"age": 80.0}, "before": before, "after": after}) == further_changes(None) == {}
    assert missed([]) == ""


def test_the_verdict_says_what_fell_short(editor, photo, tmp_path):
    report = run(editor, photo, tmp_path / "out", age=60.0)[2]
    report.before["age"], report.after["age"] = 40.0, 45.0
    assert "Not all of it was reached: age came to 45.0" in verdict(report)
    report.after["age"] = 59.0
    assert "Not all" not in verdict(report)


def test_a_likeness_that_is_somebody_else_is_refused(editor, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(pipelines_edit, "SAME_PERSON", 1e-6)
    with pytest.raises(InputError, match="must hold a likeness"):
        run(editor, photo, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_files_and_changes(editor, photo, tmp_path):
    with pytest.raises(InputError, match="a change is needed"):
        change(editor, photo, tmp_path, "likeness", {}, None, 2, None, None)
    with pytest.raises(InputError, match="age must be from 30 to 80 years"):
        run(editor, photo, tmp_path, age=10.0)
    both = images.save(tiny.image(72, 160, seed=7), tmp_path / "both.png")
    with pytest.raises(InputError, match="one face"):
        run(editor, both, tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ImageError):
        run(editor, tmp_path / "notes.txt", tmp_path)


def test_every_widget_reaches_the_editor_and_the_likeness_is_kept(editor, photo):
    runner = Runner(lambda: editor)
    given = (50, 1, -1, True, 5, False, -5, 0.5, -0.5, 1.5, -1.5, True, 0, 3, 2)
    pages = runner.edit(str(photo), *given, progress=silent)
    assert next(pages)[:2] == [[], None]
    shown, report, message = next(pages)
    assert len(shown) == 3 and all(path.is_file() for path, _ in shown)
    assert report["asked"] == {
        **{"age": 50, "smile": 1, "glasses": -1, "yaw": 5, "pitch": -5},
        **{"mouth": 0.5, "eyes": -0.5, "brow": 1.5, "light": -1.5},
    }
    assert "role" in message
    assert list(pages) == []
    kept = runner.kept[None]
    assert kept.key.startswith("likeness, face 0, 2 steps")
    list(runner.edit(str(photo), smile=1, in_photo=False, face=0, steps=2, progress=silent))
    assert runner.kept[None].w.equal(kept.w)
    *_, (_, report, _) = runner.edit(None, smile=2, yaw=9, pitch=9, seed=3, progress=silent)
    assert report["asked"] == {"smile": 2}  # what is not ticked is left as it is


def test_in_the_photo(editor, tmp_path):
    pixels = tiny.image(72, 160, seed=7)
    photo = images.save(pixels, tmp_path / "photo.png")

    def edit(name, changes, face, kept=None, on_step=None):
        return change(editor, photo, tmp_path / name, "photo", changes, face, 2, kept, on_step)

    kept, shown, report, _ = edit("a", {"smile": 4.0}, 1)
    assert [path.name for path, _ in shown] == ["face.png", "edited-face.png", "edited.png"]
    assert images.load(shown[2][0]).pixels.shape == pixels.shape
    assert f"{report.identity_distance:.2f} from there" in shown[1][1]
    said = verdict(report)
    assert f"smile {report.before['smile']:.1f} to {report.after['smile']:.1f}." in said and "same person" in said
    report.same_person = False
    assert "another person, to the encoder" in verdict(report)
    steps = []
    again = edit("b", {"eyes": 1.0}, 1, kept, lambda *given: steps.append(given))[0]
    assert steps == [] and again.w.equal(kept.w), "searched for once"
    other = edit("c", {"eyes": 1.0}, 0, kept, lambda *given: steps.append(given))
    assert len(steps) == 2 and other[2].face == 0


def test_the_tab_edits_in_the_photo_unless_the_head_is_turned(editor, photo):
    runner = Runner(lambda: editor)
    *_, (shown, report, message) = runner.edit(str(photo), smile=2, steps=2, progress=silent)
    assert [path.name for path, _ in shown] == ["face.png", "edited-face.png", "edited.png"]
    assert report["face"] == 0 and "The photo, changed" in message
    *_, (shown, report, _) = runner.edit(str(photo), turn=True, yaw=1, smile=2, steps=2, progress=silent)
    assert report["method"] == "likeness" and shown[1][0].name == "likeness.png"
    pages = runner.edit(str(photo), smile=2, face=4, steps=2, progress=silent)
    with pytest.raises(gr.Error, match="face must be from 0 to 0"):
        list(pages)


def test_only_the_last_visitors_likenesses_are_kept(editor, monkeypatch):
    monkeypatch.setattr(edit_module, "MOST_KEPT", 2)
    monkeypatch.setattr(edit_module, "HOUR", 0.05)
    likeness = Likeness("of a photo", torch.zeros(1, 12, 8))
    runner = Runner(lambda: editor)
    for visitor in ("a", "b", "c", "b"):
        runner.keep(visitor, likeness)
    assert list(runner.kept) == ["c", "b"]
    for _ in range(100):
        time.sleep(0.02)
        if not runner.kept:
            break
    assert runner.kept == {}


def test_an_error_empties_the_page_and_is_said(editor, photo):
    pages = Runner(lambda: editor).edit(str(photo), progress=silent)
    next(pages)
    shown, report, message = next(pages)
    assert (shown, report) == ([], None)
    assert "a change is needed" in message
    with pytest.raises(gr.Error, match="a change is needed"):
        next(pages)


def test_cancel_ends_the_search(editor, photo):
    runner = Runner(lambda: editor)

    def progress(*given, **named):
        if named.get("desc") == "Searching for the likeness":
            next(iter(runner.lane.stops.values())).set()

    pages = runner.edit(str(photo), smile=1.0, steps=10, progress=progress)
    next(pages)
    assert STOPPED in next(pages)[2]
    assert list(pages) == []
    assert not runner.lane._busy.locked()


def test_every_widget_has_a_label(editor):
    with gr.Blocks() as app:
        tab(lambda: editor)
    kinds = (gr.File, gr.Slider, gr.Checkbox, gr.Number, gr.Dropdown, gr.Gallery, gr.JSON)
    widgets = [block for block in app.blocks.values() if isinstance(block, kinds)]
    assert len(widgets) == 19
    assert all(widget.label for widget in widgets)
