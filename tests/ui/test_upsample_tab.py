"""The Upsample tab with toy networks: what it writes, what it says, and stopping."""

import gradio as gr
import pytest
from PIL import Image

from pipelines import upsample
from studio import images, provenance
from studio.errors import ImageError, InputError
from studio.ui.common import EXAMPLES, STOPPED
from studio.ui.upsample import Runner, load, search, tab, verdict
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
    monkeypatch.setattr(upsample, "FaceFinder", tiny.SureFinder)
    return tiny.upsample_pipeline()


def run(pipeline, source, folder, find=False, samples=2, steps=2, seed=0, reference=None, on_step=lambda *given: None):
    return search(pipeline, source, folder, find, samples, steps, seed, reference, on_step)


def test_shows_the_small_face_and_every_guess(pipeline, face, tmp_path):
    shown, report, lacking = run(pipeline, face, tmp_path / "out")
    assert "too small for the invisible mark" in lacking  # a toy prior of 128 px
    assert [path.name for path, _ in shown] == ["small.png", "guess_1.png", "guess_2.png"]
    assert "12 px" in shown[0][1]
    assert all("error 0." in caption for _, caption in shown[1:])
    with Image.open(shown[0][0]) as small, Image.open(shown[1][0]) as guess:
        assert small.size == (60, 60)
        assert guess.size == (128, 128)
    assert "guesses, not the person" in verdict(report)
    assert "between them" in verdict(report)


def test_every_setting_reaches_the_pipeline(pipeline, face, tmp_path):
    photo = images.save(tiny.image(72, 80, seed=7), tmp_path / "photo.png")
    plain = run(pipeline, face, tmp_path / "a")[1]
    assert run(pipeline, face, tmp_path / "b", seed=3)[1] != plain
    assert len(run(pipeline, face, tmp_path / "c", samples=3)[1].samples) == 3
    assert run(pipeline, face, tmp_path / "d", reference=photo)[1].samples[0].reference_distance > 0
    assert run(pipeline, photo, tmp_path / "e", find=True)[1].size > 12


@pytest.mark.parametrize("settings", [{"samples": 9}, {"samples": 0}, {"steps": 0}])
def test_bad_settings(pipeline, face, tmp_path, settings):
    with pytest.raises(InputError):
        run(pipeline, face, tmp_path, **settings)


def test_bad_files(pipeline, tmp_path):
    with pytest.raises(InputError, match="choose a file"):
        run(pipeline, None, tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ImageError):
        run(pipeline, tmp_path / "notes.txt", tmp_path)


@pytest.mark.filterwarnings("ignore:too small for the invisible mark")  # a toy prior of 128 px
def test_a_run_empties_the_page_then_fills_it(pipeline, face):
    pages = Runner(lambda: pipeline).upsample(str(face), steps=2, samples=2, progress=lambda *given, **named: None)
    assert next(pages)[:2] == [[], None]
    shown, report, message = next(pages)
    assert len(shown) == 3
    assert all(path.is_file() for path, _ in shown)
    assert len(report["samples"]) == 2
    assert "role" in message
    assert list(pages) == []
    assert not shown[0][0].exists()


def test_an_error_empties_the_page_and_is_said(pipeline, tmp_path):
    broad = images.save(tiny.image(12, 20), tmp_path / "broad.png")
    pages = Runner(lambda: pipeline).upsample(str(broad), progress=lambda *given, **named: None)
    next(pages)
    shown, report, message = next(pages)
    assert (shown, report) == ([], None)
    assert "must be square" in message
    with pytest.raises(gr.Error, match="must be square"):
        next(pages)


def test_cancel_ends_the_search(pipeline, face):
    runner = Runner(lambda: pipeline)
    stopped = []

    def progress(*given, **named):
        if named.get("desc") == "Searching":
            stopped.append(1)
            next(iter(runner.lane.stops.values())).set()

    pages = runner.upsample(str(face), steps=50, samples=1, progress=progress)
    next(pages)
    assert STOPPED in next(pages)[2]
    assert list(pages) == []
    assert len(stopped) == 1
    assert not runner.lane.stops
    assert not runner.lane._busy.locked()


def test_every_widget_has_a_label(pipeline):
    with gr.Blocks() as app:
        tab(lambda: pipeline)
    kinds = (gr.File, gr.Slider, gr.Checkbox, gr.Number, gr.Gallery, gr.JSON)
    widgets = [block for block in app.blocks.values() if isinstance(block, kinds)]
    assert len(widgets) == 8
    assert all(widget.label for widget in widgets)


@pytest.mark.weights
@pytest.mark.slow
def test_a_guess_is_signed_and_marked_and_the_mark_survives_jpeg_85(tmp_path):
    """On by default, with the committed prior: credentials are intact in the file, and gone after a re-encoding."""
    pytest.importorskip("c2pa", reason="the extra `provenance` is not installed")
    small = images.save(images.resize(images.load(EXAMPLES / "portrait.jpg").pixels, 32, 32), tmp_path / "face.png")
    shown, _, lacking = run(load(), small, tmp_path / "out", samples=1, steps=4)
    assert lacking == ""
    found = provenance.verify(shown[1][0])
    assert (found.credentials, found.source_type) == (provenance.INTACT, provenance.GENERATED)
    assert (found.mark.found, found.mark.kind) == (True, "upsample")
    again = images.save(images.load(shown[1][0]), tmp_path / "again.jpg", quality=85)
    found = provenance.verify(again)
    assert found.credentials == provenance.NONE
    assert (found.ok, found.mark.kind) == (True, "upsample")
