"""The Turn tab with toy networks: what it writes, what it says, and stopping."""

import gradio as gr
import pytest
from PIL import Image

from pipelines import frontalize
from studio import images
from studio.errors import ImageError, InputError
from studio.ui.common import STOPPED
from studio.ui.frontalize import Runner, tab, turn, verdict
from tests import tiny
from tests.ui.toy import closed_loops

pytestmark = [
    pytest.mark.usefixtures("_loops"),
    # gradio asks pandas for an option that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
]


@pytest.fixture(scope="module")
def _loops():
    with closed_loops():
        yield


@pytest.fixture
def pipeline(monkeypatch):
    monkeypatch.setattr(frontalize, "FaceFinder", tiny.SureFinder)
    return tiny.frontalize_pipeline()


@pytest.fixture
def photo(tmp_path):
    return images.save(tiny.image(72, 80, seed=7), tmp_path / "photo.png")


def silent(*given, **named):
    pass


def run(pipeline, source, folder, **settings):
    return turn(pipeline, source, folder, {"method": "network", "refinement_steps": 1, **settings}, silent)


def test_shows_the_face_before_and_after(pipeline, photo, tmp_path):
    shown, report, lacking = run(pipeline, photo, tmp_path / "out")
    assert "too small for the invisible mark" in lacking  # a toy prior of 64 px
    assert [path.name for path, _ in shown] == ["face.png", "turned.png"]
    with Image.open(shown[0][0]) as before, Image.open(shown[1][0]) as after:
        assert (before.size, after.size) == ((256, 256), (64, 64))
    assert "Synthetic: yaw" in shown[1][1]
    assert "synthetic likeness" in verdict(report)


def test_the_verdict_says_when_it_is_somebody_else(pipeline, photo, tmp_path):
    report = run(pipeline, photo, tmp_path)[1]
    report.same_person, report.identity_distance = False, 0.72
    assert "0.72 (0.6 and more: not this person any more)" in verdict(report)


def test_bad_files_and_settings(pipeline, photo, tmp_path):
    with pytest.raises(InputError, match="choose a file"):
        run(pipeline, None, tmp_path)
    with pytest.raises(InputError, match="yaw"):
        run(pipeline, photo, tmp_path, yaw=90)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ImageError):
        run(pipeline, tmp_path / "notes.txt", tmp_path)


@pytest.mark.filterwarnings("ignore:too small for the invisible mark")  # a toy prior of 64 px
def test_every_widget_reaches_the_pipeline(pipeline, photo, monkeypatch):
    given = []
    call = type(pipeline).__call__
    monkeypatch.setattr(
        type(pipeline),
        "__call__",
        lambda self, image, **named: given.append(named) or call(self, image, **{**named, "refinement_steps": 1}),
    )
    runner = Runner(lambda: pipeline)
    pages = runner.frontalize(str(photo), 5, False, -20, True, False, 0, 2, progress=silent)
    assert next(pages)[:2] == [[], None]
    shown, report, message = next(pages)
    assert len(shown) == 2 and all(path.is_file() for path, _ in shown)
    assert report["yaw"] == 5
    assert "role" in message
    assert list(pages) == []
    expected = {"yaw": 5, "pitch": -20, "expression": "neutral", "background": "generated", "face": 0}
    assert expected.items() <= given[0].items()
    assert given[0]["num_inference_steps"] == 2
    list(runner.frontalize(str(photo), progress=silent))
    expected = {
        "num_inference_steps": 20,
        "pitch": None,
        "expression": "keep",
        "background": "keep",
        "face": None,
    }
    assert expected.items() <= given[1].items()


def test_an_error_empties_the_page_and_is_said(pipeline, tmp_path):
    both = images.save(tiny.image(72, 160, seed=7), tmp_path / "both.png")
    pages = Runner(lambda: pipeline).frontalize(str(both), progress=silent)
    next(pages)
    shown, report, message = next(pages)
    assert (shown, report) == ([], None)
    assert "one face must be chosen" in message
    with pytest.raises(gr.Error, match="one face must be chosen"):
        next(pages)


def test_cancel_ends_the_search(pipeline, photo):
    runner = Runner(lambda: pipeline)

    def progress(*given, **named):
        if named.get("desc") == "Searching and turning":
            next(iter(runner.lane.stops.values())).set()

    pages = runner.frontalize(str(photo), steps=10, progress=progress)
    next(pages)
    assert STOPPED in next(pages)[2]
    assert list(pages) == []
    assert not runner.lane._busy.locked()


def test_every_widget_has_a_label(pipeline):
    with gr.Blocks() as app:
        tab(lambda: pipeline)
    kinds = (gr.File, gr.Slider, gr.Checkbox, gr.Number, gr.Dropdown, gr.Gallery, gr.JSON)
    widgets = [block for block in app.blocks.values() if isinstance(block, kinds)]
    assert len(widgets) == 11
    assert all(widget.label for widget in widgets)


def test_which_of_several_faces_is_said_as_the_page_has_it(pipeline, tmp_path, monkeypatch):
    """What a script would pass is no help to who looks at the page."""
    monkeypatch.setattr(frontalize, "FaceFinder", tiny.TwoFaces)
    steps = Runner(lambda: pipeline).frontalize(str(images.save(images.load(tiny.sharp_photo()), tmp_path / "two.png")))
    next(steps)
    message = next(steps)[2]
    assert "choose one at “Face”, under Options" in message and "face=0" not in message
    with pytest.raises(gr.Error, match="choose one at “Face”"):
        next(steps)
