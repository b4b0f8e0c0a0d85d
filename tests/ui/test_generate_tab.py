"""The Generate tab with toy networks: consent, what it writes, what it says, and stopping."""

import gradio as gr
import pytest
from PIL import Image

from pipelines import generate
from studio import images
from studio.errors import ImageError, InputError
from studio.ui.common import STOPPED
from studio.ui.generate import Runner, make, tab, verdict
from tests import tiny
from tests.ui.toy import closed_loops

pytestmark = [
    pytest.mark.usefixtures("_loops"),
    # gradio asks pandas for an option that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:too small for the invisible mark"),  # a toy prior of 64 px
]
SETTINGS = {
    "num_images_per_prompt": 2,
    "guidance_scale": 2.0,
    "correction_steps": 1,
    "yaw": None,
    "smile": None,
    "age": None,
}


@pytest.fixture(scope="module")
def _loops():
    with closed_loops():
        yield


@pytest.fixture
def pipeline(monkeypatch):
    monkeypatch.setattr(generate, "FaceFinder", tiny.SureFinder)
    return tiny.generate_pipeline()


@pytest.fixture
def photo(tmp_path):
    return str(images.save(tiny.image(72, 80, seed=7), tmp_path / "aunt.png"))


def run(pipeline, photos, folder, consent=True, seed=1, **settings):
    return make(pipeline, photos, folder, consent, SETTINGS | settings, seed, lambda *given: {})


def test_shows_every_picture_with_its_distance(pipeline, photo, tmp_path):
    shown, report, lacking = run(pipeline, [photo], tmp_path / "out")
    assert "too small for the invisible mark" in lacking
    assert [path.name for path, _ in shown] == ["generated_1.png", "generated_2.png"]
    assert all("identity distance" in caption for _, caption in shown)
    with Image.open(shown[0][0]) as picture:
        assert picture.size == (64, 64)
    assert report.consent
    assert "2 synthetic pictures" in verdict(report)
    assert "flatters" in verdict(report)


def test_nobody(pipeline, tmp_path):
    shown, report, _ = run(pipeline, None, tmp_path / "out", consent=False)
    assert shown[0][1] == "Picture 1"
    assert verdict(report) == "2 synthetic pictures."


def test_no_consent_no_picture(pipeline, photo, tmp_path):
    with pytest.raises(InputError, match="consent"):
        run(pipeline, [photo], tmp_path / "out", consent=False)
    assert not (tmp_path / "out").exists()


def test_every_setting_reaches_the_pipeline(pipeline, photo, tmp_path):
    plain = run(pipeline, [photo], tmp_path / "a")[1]
    for name, value in {"guidance_scale": 4.0, "correction_steps": 0, "yaw": 10.0, "smile": 1.0, "age": 60.0}.items():
        assert run(pipeline, [photo], tmp_path / name, **{name: value})[1] != plain
    assert run(pipeline, [photo], tmp_path / "b", seed=2)[1] != plain
    assert run(pipeline, [photo], tmp_path / "c")[1] == plain


def test_bad_input(pipeline, tmp_path):
    with pytest.raises(InputError, match="1 to 8"):
        run(pipeline, None, tmp_path, num_images_per_prompt=9)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ImageError):
        run(pipeline, [str(tmp_path / "notes.txt")], tmp_path)


def test_a_run_empties_the_page_then_fills_it(pipeline, photo):
    pages = Runner(lambda: pipeline).generate(
        [photo], True, samples=1, correction=1, seed=1, progress=lambda *given, **named: None
    )
    assert next(pages)[:2] == [[], None]
    shown, report, message = next(pages)
    assert len(shown) == 1
    assert report["consent"] is True
    assert "role" in message
    assert list(pages) == []


def test_a_missing_consent_is_said(pipeline, photo):
    pages = Runner(lambda: pipeline).generate([photo], False, progress=lambda *given, **named: None)
    next(pages)
    assert "consent" in next(pages)[2]
    with pytest.raises(gr.Error, match="consent"):
        next(pages)


def test_cancel_ends_the_drawing(pipeline):
    runner = Runner(lambda: pipeline)

    def progress(*given, **named):
        if named.get("desc") == "Drawing":
            next(iter(runner.lane.stops.values())).set()

    pages = runner.generate(samples=1, progress=progress)
    next(pages)
    assert STOPPED in next(pages)[2]
    assert list(pages) == []
    assert not runner.lane.stops


def test_every_widget_has_a_label(pipeline):
    with gr.Blocks() as app:
        tab(lambda: pipeline)
    kinds = (gr.File, gr.Slider, gr.Checkbox, gr.Number, gr.Gallery, gr.JSON)
    widgets = [block for block in app.blocks.values() if isinstance(block, kinds)]
    assert len(widgets) == 12
    assert all(widget.label for widget in widgets)
