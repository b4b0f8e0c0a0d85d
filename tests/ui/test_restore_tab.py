import contextlib
import inspect
import json
import threading

import gradio as gr
import httpx
import numpy as np
import pytest
import torch
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from pipelines.restore import RestorePipeline
from studio import images, provenance
from studio.errors import ImageError, InputError
from studio.faces.draw import draw_choice
from studio.images import Photo
from studio.ui import lane
from studio.ui.app import Lazy, build
from studio.ui.common import QUEUED, Models, line, rows
from studio.ui.lane import Stopped, watched
from studio.ui.restore import Runner, tab
from studio.ui.restore_call import restore_photo
from studio.ui.restore_choice import Found, click, indices, mark, named, preview, toggle, toggled
from studio.ui.restore_result import COLUMNS, row
from tests import tiny
from tests.ui.toy import MARKS, ToyRestore

pytestmark = MARKS


def size(path):
    with Image.open(path) as image:
        return image.size


def test_the_toy_is_called_like_the_real_one():
    assert list(inspect.signature(ToyRestore.__call__).parameters) == list(
        inspect.signature(RestorePipeline.__call__).parameters
    )


def test_restores(pipeline, photo, tmp_path):
    result = restore_photo(pipeline, photo, tmp_path / "out", scale=2)
    assert result.report.status == "restored"
    assert result.file.name == result.report.output == "aunt_restored.png"
    whole = images.load(result.file)
    assert (whole.height, whole.width, whole.bits) == (80, 120, 16)
    assert whole.alpha is not None
    assert [size(path) for path in result.shown] == [(120, 80)] * 2
    assert "2 faces found, 1 restored. Left as they were: 1 too small." in result.message
    assert "below 0.6 counts as the same person; the encoder took part in training" in result.message
    assert [caption.split(":")[0] for _, caption in result.strip] == ["Face 1", "Face 2"]
    assert all(path.is_file() for path, _ in result.strip)
    first, second = result.report.faces
    assert row(first) == [1, "yes", "0.31", ""]
    assert row(second)[:3] == [2, "no", "–"]
    assert rows("Faces", COLUMNS, map(row, result.report.faces)).count("<td>") == 2 * len(COLUMNS)
    assert json.dumps(result.report.faces)


def test_a_reference_is_said_and_its_steps_can_be_stopped(pipeline, photo, tmp_path):
    result = restore_photo(pipeline, photo, tmp_path, reference=photo)
    assert "Face 1 went from 0.60 to 0.40 from the person of the other photo." in result.message
    assert "other photo" not in restore_photo(pipeline, photo, tmp_path / "alone").message
    with pytest.raises(InputError, match="stopped"):
        restore_photo(pipeline, photo, tmp_path / "stopped", reference=photo, on_step=stop)
    assert not (tmp_path / "stopped").exists()


def stop(*given):
    raise InputError("stopped")


def test_large_photos_are_shown_small_and_downloaded_whole(pipeline, tmp_path):
    path = images.save(Photo(tiny.image(30, 2000)), tmp_path / "wide.png")
    result = restore_photo(pipeline, path, tmp_path, scale=1)
    assert size(result.shown[1]) == (1600, 24)
    assert size(result.file) == (2000, 30)


def test_a_photo_that_was_enlarged_says_so(pipeline, photo, tmp_path):
    result = restore_photo(pipeline, photo, tmp_path)
    assert size(result.file) == (120, 80)
    assert result.report.scale == 2
    assert result.message.endswith("The result is 2 times as large as the photo, to show its faces.")
    assert "times as large" not in restore_photo(pipeline, photo, tmp_path / "same", scale=2).message


def test_no_face_is_no_result(pipeline, black, tmp_path):
    result = restore_photo(pipeline, black, tmp_path)
    assert result.report.status == "no face"
    assert result.message.startswith("No face was found")
    assert "A face is missing?" in result.message and "--box" in result.report.reason
    assert (result.file, result.shown, result.strip) == (None, None, [])


def test_nothing_restored_is_no_result(pipeline, photo, tmp_path):
    result = restore_photo(pipeline, photo, tmp_path, faces="1")
    assert result.report.status == "unchanged"
    assert result.message == "2 faces found, none restored: 1 not selected, 1 too small."
    assert (result.file, result.shown) == (None, None)
    assert len(result.report.faces) == 2


def test_bad_input(pipeline, text, photo, tmp_path):
    with pytest.raises(InputError, match="choose a file"):
        restore_photo(pipeline, None, tmp_path)
    with pytest.raises(ImageError, match=r"notes\.jpg"):
        restore_photo(pipeline, text, tmp_path)
    with pytest.raises(ImageError, match="existing photo file"):
        restore_photo(pipeline, tmp_path / "gone.png", tmp_path)
    with pytest.raises(InputError, match="fidelity"):
        restore_photo(pipeline, photo, tmp_path, fidelity=2)
    with pytest.raises(InputError, match="numbers such as 0,2"):
        restore_photo(pipeline, photo, tmp_path, faces="everybody")


def test_a_result_too_large_for_memory_is_refused(pipeline, photo, tmp_path, monkeypatch):
    monkeypatch.setattr("studio.ui.common.MAX_PIXELS", 40 * 60 * 4)
    restore_photo(pipeline, photo, tmp_path, scale=2)
    with pytest.raises(ImageError, match="pixels"):
        restore_photo(pipeline, photo, tmp_path, scale=4)


def test_an_error_empties_the_page_and_is_said(pipeline, text):
    steps = Runner(lambda: pipeline).restore(str(text))
    next(steps)
    file, report, message, slider, faces, strip, invented, ways = next(steps)
    assert (file, report, slider, faces, strip, invented, ways) == (None, None, None, "", [], None, [])
    assert "notes.jpg" in message
    with pytest.raises(gr.Error, match="notes"):
        next(steps)


def test_messages_are_text_not_markup(pipeline, tmp_path):
    path = tmp_path / "<b>x.png"
    path.write_text("no")
    steps = Runner(lambda: pipeline).restore(str(path))
    next(steps)
    assert "<b>" not in next(steps)[2]
    with pytest.raises(gr.Error) as error:
        next(steps)
    assert "<b>" not in error.value.message


def test_files_of_a_run_are_gone_after_it(pipeline, photo):
    steps = Runner(lambda: pipeline).restore(str(photo))
    next(steps)
    before, _ = next(steps)[3]
    assert before.is_file()
    assert list(steps) == []
    assert not before.exists()


def test_cancel_ends_the_call_between_networks(pipeline, photo):
    stop, said = threading.Event(), []
    with watched(pipeline, stop, lambda *args, **words: said.append(words["desc"])):
        pipeline(photo)
        stop.set()
        with pytest.raises(Stopped):
            pipeline(photo)
    assert said == ["Looking for faces", "Restoring face 1"]
    pipeline(photo)  # the hooks are gone


def test_progress_has_an_end(monkeypatch):
    """Faces done of faces to do, and the seconds that are left."""
    now, said = [100.0], []
    monkeypatch.setattr(lane.time, "monotonic", lambda: now[0])
    net = tiny.tiny_net()

    class Reading:
        components = {"restorer": net}  # noqa: RUF012 - as a pipeline has it

        def read(self, crops):
            for crop in crops:
                net(crop[None])
                now[0] += 2

    pipeline = Reading()
    with watched(pipeline, threading.Event(), lambda at, desc, unit="": said.append((at, desc))):
        pipeline.read(tiny.image(32, 32)[None].expand(3, -1, -1, -1))
    assert said[1:] == [
        ((0, 3), "Restoring face 1 of 3"),
        ((1, 3), "Restoring face 2 of 3, about 4 s left"),
        ((2, 3), "Restoring face 3 of 3, about 2 s left"),
    ]
    assert "read" not in vars(pipeline)
    steps = lane.follow(threading.Event(), lambda at, desc: said.append(desc), 10, lambda given: "Searching")
    now[0] += 3
    steps(None, 1, None, {})
    assert said[-1] == "Searching, about 12 s left"


def test_cancel_reaches_the_run_of_the_same_visitor(photo):
    visitor, other = (gr.Request(session_hash=name) for name in ("me", "somebody else"))
    runner = Runner(None)

    def load():  # called in the middle of a run
        runner.lane.stop(other)
        assert not runner.lane.stops["me"].is_set()
        assert "Stopped" in runner.lane.stop(visitor)
        assert "Stopped" in runner.lane.stop(other, line(QUEUED))  # whose turn has not come
        return ToyRestore(tiny.tiny_net())

    runner.models = Models(Lazy(load), load)
    *_, last = runner.restore(str(photo), request=visitor)
    assert "Stopped" in last[2]
    assert last[3] is None
    assert runner.lane.stops == {}
    runner.lane.stop(visitor)  # nothing runs: nothing happens


def test_preview(photo, text):
    _, shown, faces, picked, found, boxes, aligned, examples = preview(str(photo))
    assert (boxes, aligned) == ("", False)
    assert shown.visible and faces == "all"
    assert not picked.visible and not examples.visible
    assert found.pixels.shape == (3, 40, 60)
    assert not preview(None)[1].visible
    with pytest.warns(UserWarning, match=r"notes\.jpg"):  # outside of a server, gr.Warning is a Python one
        taken_off, shown, _, _, found, *_, examples = preview(str(text))
    assert (taken_off, shown.visible, found, examples.visible) == (None, False, None, True)
    assert text.exists()  # not an upload: not ours to delete


def test_unreadable_uploads_are_deleted_and_nothing_else(text, photo, tmp_path, monkeypatch, pipeline):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    bad, good = tmp_path / "uploads" / "a" / "bad.jpg", tmp_path / "uploads" / "b" / "good.png"
    for path, source in ((bad, text), (good, photo)):
        path.parent.mkdir(parents=True)
        path.write_bytes(source.read_bytes())
    for upload in (bad, good, text):
        with contextlib.suppress(gr.Error):
            list(Runner(lambda: pipeline).restore(str(upload), fidelity=3))
    assert not bad.parent.exists()
    assert good.exists() and text.exists()


# ---- choosing faces


@pytest.fixture
def found(pipeline, photo):
    return Runner(lambda: pipeline).look(str(photo), preview(str(photo))[4])[3]


def test_faces_of_an_upload_are_found(pipeline, photo):
    shown, faces, picked, found = Runner(lambda: pipeline).look(str(photo), preview(str(photo))[4])
    assert found.boxes.shape == (2, 4)
    assert (faces, picked.visible) == ("all", True)
    assert (picked.choices, picked.value) == ([("Face 1", 0), ("Face 2", 1)], [0, 1])
    assert shown.value is not None
    assert Runner(lambda: pipeline).look(None, found)[3] is None


def test_one_face_is_no_choice(found):
    alone = Found(found.pixels, found.boxes[:1], np.zeros(1, bool))
    assert not mark("all", alone)[1].visible
    assert mark("all", found)[1].visible


def test_ticked_faces(found):
    assert named([1], found) == "1"
    assert named([0, 1], found) == named([], found) == "all"
    assert mark("1", found)[1].value == [1]


def at(x, y):
    return gr.SelectData(None, {"index": [x, y], "value": None})


def test_a_click_takes_a_face_out_and_in(found):
    boxes = found.boxes
    assert boxes[0].tolist() == [0, 0, 30, 40]
    assert toggle("all", found, at(10, 10)) == "1"
    assert toggle("1", found, at(10, 10)) == "all"
    assert toggle("all", found, at(45, 20)) == "0"
    assert isinstance(toggle("all", found, at(200, 10)), dict)  # beside every face: nothing changes
    assert isinstance(toggle("all", None, at(1, 1)), dict)


def test_the_smaller_face_is_meant(found):
    nested = Found(found.pixels, np.array([[0, 0, 60, 40], [20, 10, 30, 20.0]]), np.zeros(2, bool))
    assert toggle("all", nested, at(25, 15)) == "0"
    assert toggle("all", nested, at(5, 15)) == "1"


def test_two_clicks_mark_a_face(pipeline, tmp_path):
    path = images.save(Photo(torch.zeros(3, 400, 1600)), tmp_path / "wide.png")  # shown half as large
    runner = Runner(lambda: pipeline)
    found = runner.look(str(path), preview(str(path))[4])[3]
    assert len(found.boxes) == 0 and found.scale == 2
    assert click("all", found, False, "", at(5, 5))[2] == gr.skip()  # not marking: a click beside every face
    _, picture, found, _, _ = click("all", found, True, "", at(300, 40))
    with Image.open(picture.value["path"]) as shown:
        assert (np.asarray(shown)[40, 296:304, 0] > 200).all()  # a cross in a black photo
    assert found.corner == (300, 40)
    *_, again, marking, boxes = click("all", found, True, "1,2,30,40", at(200, 150))
    assert (again.corner, marking, boxes) == (None, False, "1,2,30,40; 400,80,600,300")
    shown, _, faces, found = runner.look(str(path), again, boxes)
    np.testing.assert_allclose(found.boxes, [[0.5, 1, 15, 20], [200, 40, 300, 150]], rtol=1e-5)
    assert [choice for choice, _ in faces.choices] == ["Face 1", "Face 2"]
    # A corner clicked twice is no box.
    *_, once, _, _ = click("all", found, True, boxes, at(9, 9))
    assert click("all", once, True, boxes, at(9, 9))[4] == gr.skip()


def test_marked_faces_and_cut_out_ones_are_restored(pipeline, black, tmp_path):
    assert restore_photo(pipeline, black, tmp_path / "a").report.status == "no face"
    assert restore_photo(pipeline, black, tmp_path / "b", boxes="1,2,30,40").report.status == "restored"
    assert restore_photo(pipeline, black, tmp_path / "c", aligned=True).report.status == "restored"
    with pytest.raises(InputError, match="a box must be x0,y0,x1,y1"):
        restore_photo(pipeline, black, tmp_path / "d", boxes="1,2,30")


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("all", [0, 1, 2]),
        ("largest", [1]),
        ("given", [2]),
        ("2,0", [2, 0]),
        ("7", []),
        ("nobody", []),
        (None, [0, 1, 2]),
    ],
)
def test_what_a_choice_means(choice, expected):
    assert indices(choice, three()) == expected


def three():
    """The second is the largest, the third was marked by hand."""
    boxes = np.array([[0, 0, 10, 10], [20, 0, 32, 12], [40, 0, 50, 10.0]])
    return Found(torch.zeros(3, 40, 60, dtype=torch.uint8), boxes, np.array([False, False, True]))


def test_the_last_face_stays():
    assert toggled("1", 1, three()) == "all"
    assert toggled("0", 2, three()) == "0,2"


def test_chosen_faces_stand_out():
    """Frames of the same boxes: yellow and thick where chosen."""
    boxes = np.array([[20, 30, 120, 160], [200, 30, 290, 160.0]])
    yellow = np.array([255, 210, 30])
    for chosen, expected in ([0, 1], (True, True)), ([1], (False, True)), ([], (False, False)):
        picture = np.asarray(draw_choice(torch.full((3, 200, 320), 0.5), boxes, chosen))
        found = (picture == yellow).all(2)
        assert picture.shape == (200, 320, 3)
        assert (found[:, :160].any(), found[:, 160:].any()) == expected
        assert (picture[30:160, [20, 200]] != 127).any()  # every face has a frame


# ---- files


@pytest.mark.parametrize(
    ("file_format", "suffix", "bits"), [("png", ".png", 16), ("tiff", ".tif", 16), ("jpg", ".jpg", 8)]
)
def test_formats(pipeline, photo, tmp_path, file_format, suffix, bits):
    result = restore_photo(pipeline, photo, tmp_path / "out", file_format=file_format)
    assert result.file.suffix == suffix
    whole = images.load(result.file)
    assert (whole.bits, whole.alpha is None) == (bits, file_format == "jpg")
    assert whole.icc == images.load(photo).icc and whole.icc
    with pytest.raises(InputError, match="file_format"):
        restore_photo(pipeline, photo, tmp_path / "out", file_format="gif")


def test_credentials(pipeline, photo, tmp_path, monkeypatch):
    pytest.importorskip("c2pa", reason="the extra `provenance` is not installed")
    signed = restore_photo(pipeline, photo, tmp_path / "signed", faces="0")
    found = provenance.verify(signed.file)
    assert (signed.report.credentials, found.credentials) == ("written", "intact")
    assert found.operations[-1]["settings"]["faces"] == "[0]"
    plain = restore_photo(pipeline, photo, tmp_path / "plain", faces="0", credentials=False)
    assert (plain.report.credentials, provenance.verify(plain.file).credentials) == ("not wanted", "none")
    assert torch.equal(images.load(plain.file).pixels, images.load(signed.file).pixels)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    unsigned = restore_photo(pipeline, photo, tmp_path / "unsigned")
    assert "No Content Credentials: the extra `provenance` is not installed" in unsigned.message


def test_works_without_examples(pipeline, monkeypatch, tmp_path):
    monkeypatch.setattr("studio.ui.common.EXAMPLES", tmp_path / "none")
    with gr.Blocks(analytics_enabled=False) as blocks:
        tab(lambda: pipeline)
    assert not [block for block in blocks.blocks.values() if "Examples" in str(getattr(block, "label", ""))]


def test_every_widget_has_a_label(pipeline):
    for block in build({"Restore": pipeline}).blocks.values():
        if isinstance(block, gr.components.FormComponent):
            assert block.label, block


# ---- over HTTP


def test_the_page_asks_no_other_server(url):
    page = httpx.get(url).text
    assert "googleapis" not in page
    assert "fonts.gstatic" not in page


def test_endpoint(client, photo):
    file, report, message, slider, faces, strip, invented, ways = client.predict(
        handle_file(photo), "all", 0.5, 1.0, 2, 0.6, False, "tiff", False, api_name="/restore"
    )
    whole = images.load(file)
    assert file.endswith("aunt_restored.tif")
    assert (whole.width, whole.bits, whole.alpha is None) == (120, 16, False)
    assert report["status"] == "restored"
    assert [face["restored"] for face in report["faces"]] == [True, False]
    assert report["output"] == "aunt_restored.tif"
    assert "2 faces found" in message
    assert [size(path) for path in slider] == [(120, 80)] * 2
    assert all(path.endswith(".png") for path in slider)
    assert ways == []  # the toy has no step `read`
    assert "<td>0.31</td>" in faces
    assert len(strip) == 2
    assert size(invented) == (120, 80)


def test_endpoint_has_defaults(client, photo):
    assert client.predict(photo=handle_file(photo), api_name="/restore")[1]["status"] == "restored"


def test_endpoints_and_their_arguments(client):
    """Others call these from their scripts: a change belongs into the changelog."""
    known = client.view_api(return_format="dict")["named_endpoints"]
    assert {name: [one["parameter_name"] for one in known[name]["parameters"]] for name in known} == {
        "/restore": [
            "photo",
            "faces",
            "fidelity",
            "strength",
            "scale",
            "identity_guard",
            "colorize",
            "file_format",
            "credentials",
            "reference",
            "background",
            "boxes",
            "aligned",
            "region",
            "seed",
            "model",
        ],
        "/restore_many": ["photos", "fidelity", "scale", "file_format", "credentials", "background", "model"],
        "/upsample": ["photo", "find", "samples", "steps", "seed", "reference"],
        "/frontalize": ["photo", "yaw", "keep_pitch", "pitch", "neutral", "background", "face", "steps"],
        "/edit": [
            *("photo", "age", "smile", "glasses", "turn", "yaw", "keep_pitch", "pitch"),
            *("mouth", "eyes", "brow", "light", "in_photo", "face", "seed", "steps"),
        ],
        "/generate": [
            "photos",
            "consent",
            "samples",
            "guidance",
            "correction",
            "turn",
            "yaw",
            "smile",
            "age",
            "seed",
        ],
        "/reenact": [
            *("photo", "consent", "by", "driving", "yaw", "smile", "talk", "seconds"),
            *("relative", "region", "expression", "size", "stitch", "face", "driving_face", "sound"),
        ],
        "/compare": ["first", "second"],
        "/album": ["photos", "threshold"],
    }


def test_endpoint_without_a_face(client, black):
    file, report, message, slider, *_ = client.predict(photo=handle_file(black), api_name="/restore")
    assert (file, slider) == (None, None)
    assert report["status"] == "no face"
    assert "No face was found" in message


def test_endpoint_says_errors_in_one_line(client, text):
    with pytest.raises(AppError, match=r"notes\.jpg") as error:
        client.predict(photo=handle_file(text), api_name="/restore")
    assert "\n" not in str(error.value)


def test_endpoint_reads_only_uploads(url, repository):
    """A path of the server is no upload."""
    stolen = {"path": str(repository / "pyproject.toml"), "meta": {"_type": "gradio.FileData"}}
    data = [stolen, "all", 0.5, 1, 1, 0.6, False, "png", False, None, "lanczos", "", False, "auto", 0, "restore"]
    event = httpx.post(f"{url}gradio_api/call/restore", json={"data": data}).json()["event_id"]
    answer = httpx.get(f"{url}gradio_api/call/restore/{event}").text
    assert "event: error" in answer
    assert "face-studio" not in answer


def test_endpoint_fetches_nothing(url):
    """An address in place of an upload would make the server ask another one."""
    photo = {"path": "http://example.com/aunt.jpg", "meta": {"_type": "gradio.FileData"}}
    data = [photo, "all", 0.5, 1, 1, 0.6, False, "png", False, None, "lanczos", "", False, "auto", 0, "restore"]
    event = httpx.post(f"{url}gradio_api/call/restore", json={"data": data}).json()["event_id"]
    answer = httpx.get(f"{url}gradio_api/call/restore/{event}", timeout=60).text
    assert "event: error" in answer
    assert "this machine fetches nothing" in answer


def test_uploads_have_a_limit(url):
    answer = httpx.post(f"{url}gradio_api/upload", files={"files": ("big.jpg", bytes(41 * 2**20))})
    assert answer.status_code == 413


# ---- real weights


@pytest.mark.weights
@pytest.mark.slow
def test_a_generated_face(tmp_path, rng):
    from studio import Generator, weights

    generator = Generator.from_pretrained(weights.path("generator"))
    with torch.inference_mode():
        face = generator(generator.latents(torch.randn(1, 512, generator=rng), truncation=0.7))[0] / 2 + 0.5
    canvas = torch.full((3, 480, 640), 0.5)
    canvas[:, 100:300, 200:400] = images.resize(face.clamp(0, 1), 200, 200)
    path = images.save(Photo(canvas), tmp_path / "generated.jpg", quality=60)
    pipe = RestorePipeline.from_pretrained("restore")
    result = restore_photo(pipe, path, tmp_path / "out", scale=2, region="head")
    assert result.report.status == "restored", result.message
    after = images.load(result.file).pixels
    assert after.shape == (3, 960, 1280)
    doubled = images.resize(images.load(path).pixels, 960, 1280)
    assert (after - doubled)[:, 300:500, 500:700].abs().mean() > 0.005  # the face is another
    assert torch.allclose(after[:, :100], doubled[:, :100], atol=1 / 255)  # what is not a face is not


def test_only_the_guard_is_called_the_guard():
    from pipelines.restore import FaceReport
    from studio.batch import FileReport
    from studio.ui.restore_call import verdict

    def face(reason):
        return FaceReport(0, [0, 0, 9, 9], [0, 0, 0], 1.0, True, reason, 1.0, 0.5, 0.2, None, None, False, 90.0)

    said = verdict(FileReport("a.jpg"), [face("tiny: fidelity 0.75"), face("identity guard: strength 0.50"), face("")])
    assert "Blended back by the identity guard: 1." in said
    assert "Restored with care, as the report says: 1." in said
    assert "guard" not in verdict(FileReport("a.jpg"), [face("profile: fidelity 0.75")])
