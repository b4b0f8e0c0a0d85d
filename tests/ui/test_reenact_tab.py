"""The Reenact tab with toy networks: what it writes, what it says, and stopping."""

import time

import gradio as gr
import httpx
import pytest
import torch
from gradio_client import Client, handle_file

from pipelines import reenact as pipelines_reenact
from studio import images, provenance, video
from studio.errors import ImageError, InputError
from studio.ui import reenact_call
from studio.ui.app import build, options
from studio.ui.common import FACES, STOPPED, Lane
from studio.ui.reenact import Runner, tab
from studio.ui.reenact_call import check, make_up, move, numbers, verdict
from tests import tiny
from tests.ui.toy import MARKS, closed_loops

# The toy photo has 80 px, of which the whole is too small for the mark.
pytestmark = [*MARKS, pytest.mark.filterwarnings("ignore:too small for the invisible mark")]

SETTINGS = {
    "consent": True,
    "relative": True,
    "region": "all",
    "expression_scale": 1.0,
    "stitch": False,
    "size": 256,
    "face": None,
}


@pytest.fixture(scope="module")
def _loops():
    with closed_loops():
        yield


@pytest.fixture
def pipeline(monkeypatch):
    monkeypatch.setattr(pipelines_reenact, "FaceFinder", tiny.SureFinder)
    return tiny.reenact_pipeline()


@pytest.fixture
def photo(tmp_path):
    grain = torch.rand(3, 72, 80, generator=torch.Generator().manual_seed(0))
    return images.save(0.7 * tiny.image(72, 80, seed=7) + 0.3 * grain, tmp_path / "photo.png")


@pytest.fixture
def clip(tmp_path):
    """Three frames with a face, as the toy finder has it."""
    with video.Writer(tmp_path / "driver.mp4", (72, 80), 25) as writer:
        for k in range(3):
            writer.write(tiny.image(72, 80, seed=8) * (1 - 0.05 * k), k / 25)
    return tmp_path / "driver.mp4"


def silent(*given, **named):
    pass


def short():
    return make_up("0,10", "0,1", "", 0.12)


def test_a_made_up_motion_becomes_a_marked_video(pipeline, photo, tmp_path):
    file, report, lacking = move(pipeline, photo, tmp_path, SETTINGS, short(), None, None, True, None)
    assert file.suffix == ".mp4"
    frames = list(video.read(file))
    assert len(frames) == len(report.frames) == 3
    assert frames[0].pixels.shape == (3, 256, 256)
    assert provenance.verify(file).mark.kind == "reenact"
    assert lacking == "" or "Content Credentials" in lacking
    assert "A synthetic video: 3 frames, identity distance" in verdict(report)


def test_a_driving_video_is_followed(pipeline, photo, clip, tmp_path):
    said = []
    file, report, _ = move(
        pipeline, photo, tmp_path, SETTINGS | {"stitch": True}, None, clip, None, True, lambda *now: said.append(now)
    )
    assert next(video.read(file)).pixels.shape == (3, 72, 80)
    assert len(report.frames) == 3
    both = [(doing, k, 3) for doing in ("Following the driver", "Drawing") for k in (1, 2, 3)]
    assert said == both


def test_a_photo_without_a_face_is_told_before_the_video_is_followed(pipeline, clip, tmp_path):
    black = images.save(tiny.image(72, 80) * 0, tmp_path / "black.png")
    with pytest.raises(InputError, match="none was found in black"):
        move(pipeline, black, tmp_path, SETTINGS, None, clip, None, True, lambda *now: pytest.fail("followed"))


def test_what_cannot_be_done_is_refused_first(clip, tmp_path, monkeypatch):
    for settings, by, driving, said in (
        (SETTINGS | {"consent": False}, "made up", None, "consent"),
        (SETTINGS | {"region": "nose"}, "made up", None, "region must be"),
        (SETTINGS | {"expression_scale": 3.0}, "made up", None, "expression_scale"),
        (SETTINGS, "chance", None, "by must be one of"),
        (SETTINGS, "video", None, "a driving video is needed"),
    ):
        with pytest.raises(InputError, match=said):
            check(settings, by, driving)
    check(SETTINGS, "video", clip)
    monkeypatch.setattr(reenact_call, "MOST", 2)
    with pytest.raises(InputError, match="at most 2 frames"):
        check(SETTINGS, "video", clip)


def test_a_video_that_hides_its_length_is_stopped_on_the_way(pipeline, photo, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(reenact_call, "MOST", 2)
    with pytest.raises(InputError, match="at most 2 frames"):
        move(pipeline, photo, tmp_path, SETTINGS, None, clip, None, True, None)
    assert not (tmp_path / "reenacted.mp4").exists()


def test_an_upload_that_is_no_video_is_deleted(photo, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "files"))
    upload = tmp_path / "files" / "one" / "notes.mp4"
    upload.parent.mkdir(parents=True)
    upload.write_text("no video")
    elsewhere = tmp_path / "notes.mp4"
    elsewhere.write_text("no video")
    for path in (upload, elsewhere):
        with pytest.raises(ImageError, match="must be a whole video"):
            check(SETTINGS, "video", str(path))
    assert not upload.exists()
    assert elsewhere.exists()


def test_key_frames_as_they_are_written():
    assert numbers("yaw", " 0, 20,-20 ") == (0, 20, -20)
    assert numbers("yaw", "") == (0,)
    with pytest.raises(InputError, match="yaw must be numbers"):
        numbers("yaw", "left")
    with pytest.raises(InputError, match="at most 20"):
        make_up("0", "0", "", 21)
    assert len(make_up("0,20", "", " hello ", 1)) == 25


def test_every_widget_reaches_the_pipeline(pipeline, photo, clip, monkeypatch):
    given, made = [], []
    call = type(pipeline).__call__

    def recorded(self, image, motion, **named):
        given.append(named)
        made.append(motion)
        return call(self, image, motion, **named)

    monkeypatch.setattr(type(pipeline), "__call__", recorded)
    runner = Runner(lambda: pipeline)
    rest = (False, "pose", 0.5, 512, False, 0, -1, True)
    pages = runner.reenact(str(photo), True, "made up", None, "0,10", "0,1", "oh", 0.12, *rest, progress=silent)
    assert next(pages)[:2] == [None, None]
    shown, report, message = next(pages)
    assert shown.is_file()
    assert report["consent"] is True
    assert 'data-state="done"' in message  # which shows the result
    assert list(pages) == []
    expected = {"consent": True, "relative": False, "region": "pose", "expression_scale": 0.5, "size": 512}
    assert (expected | {"stitch": False, "face": 0}).items() <= given[0].items()
    assert made[0].angles[-1, 0] - made[0].angles[0, 0] == pytest.approx(10, abs=1.5)  # and sways
    list(runner.reenact(str(photo), True, "video", str(clip), progress=silent))
    expected = {"relative": True, "region": "all", "expression_scale": 1.0, "size": 256, "stitch": True, "face": None}
    assert expected.items() <= given[1].items()
    assert len(made[1]) == 3


def test_an_error_empties_the_page_and_is_said(pipeline, photo):
    pages = Runner(lambda: pipeline).reenact(str(photo), progress=silent)
    next(pages)
    shown, report, message = next(pages)
    assert (shown, report) == (None, None)
    assert "consent" in message
    with pytest.raises(gr.Error, match="consent"):
        next(pages)


@pytest.mark.parametrize("doing", ["Following the driver", "Drawing"])
def test_cancel_ends_it(pipeline, photo, clip, doing):
    runner, seen = Runner(lambda: pipeline), []

    def progress(*given, **named):
        if named.get("desc") == doing:
            seen.append(given)
            next(iter(runner.lane.stops.values())).set()

    pages = runner.reenact(str(photo), True, "video", str(clip), progress=progress)
    next(pages)
    assert STOPPED in next(pages)[2]
    assert list(pages) == []
    assert len(seen) == 1
    assert not runner.lane._busy.locked()


def test_every_widget_has_a_label(pipeline):
    with gr.Blocks() as app:
        tab(lambda: pipeline)
    kinds = (gr.File, gr.Slider, gr.Checkbox, gr.Dropdown, gr.Radio, gr.Textbox, gr.Video, gr.JSON)
    widgets = [block for block in app.blocks.values() if isinstance(block, kinds)]
    assert len(widgets) == 21
    assert all(widget.label for widget in widgets)


def test_the_endpoint_over_http(pipeline, photo, clip):
    """As a script asks: uploads in, a video and a report out."""
    with gr.Blocks() as app:
        tab(lambda: pipeline)
    _, url, _ = app.launch(prevent_thread_lock=True, quiet=True)
    client = Client(url, verbose=False, analytics_enabled=False)
    try:
        shown, report, message = client.predict(
            photo=handle_file(photo), consent=True, by="video", driving=handle_file(clip), api_name="/reenact"
        )
        assert len(list(video.read(shown["video"] if isinstance(shown, dict) else shown))) == 3
    finally:
        client.close()
        app.close()
    assert report["summary"]["frames"] == 3
    assert "A synthetic video" in message


@pytest.fixture
def served(_loops, pipeline):
    """The whole app, with its rules."""
    app = build({"Reenact": pipeline})
    _, url, _ = app.launch(prevent_thread_lock=True, quiet=True, **options({}))
    yield url
    app.close()


def test_a_visitor_who_leaves_while_frames_are_drawn_frees_the_lane(served, pipeline, photo):
    drawn, stitched = [], pipeline.stitched

    def slowly(*given):
        drawn.append(1)
        time.sleep(0.05)
        return stitched(*given)

    pipeline.stitched = slowly
    client = Client(served, verbose=False, analytics_enabled=False)
    job = client.submit(photo=handle_file(photo), consent=True, seconds=20, api_name="/reenact")
    until(lambda: drawn, 60)
    assert Lane._busy.locked()
    job.cancel()
    until(lambda: not Lane._busy.locked(), 10)
    client.close()
    assert len(drawn) < 400  # of 500


def until(wanted, seconds):
    start = time.perf_counter()
    while not wanted():
        assert time.perf_counter() - start < seconds, "it went on"
        time.sleep(0.02)


def test_the_page_counts_faces_from_1_and_scripts_from_0(pipeline):
    with gr.Blocks() as app:
        tab(lambda: pipeline)
    choices = {one.label: one.choices for one in app.blocks.values() if isinstance(one, gr.Dropdown)}
    assert set(choices) == {"Face in the photo", "Face in the video"}
    for found in choices.values():
        assert found[0][1] == -1
        assert found[1:] == [(str(k + 1), k) for k in range(FACES)]


def test_a_wrong_kind_is_refused(served):
    right = [None, True, "made up", None, "0", "0", "", 1, True, "all", 1, 256, True, -1, -1, True]
    wrong = {1: 1, 2: "chance", 3: "clip.mp4", 4: 20, 7: "long", 9: 3, 11: 300, 13: 77, 14: True, 15: "on"}
    for place, value in wrong.items():
        given = [*right[:place], value, *right[place + 1 :]]
        answer = httpx.post(f"{served}gradio_api/call/reenact", json={"data": given})
        assert answer.status_code == 422, (place, answer.text)
        assert f"value {place + 1} (" in answer.json()["detail"]
    assert httpx.post(f"{served}gradio_api/call/reenact", json={"data": right}).status_code == 200
