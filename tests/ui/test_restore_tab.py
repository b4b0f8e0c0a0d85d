import inspect
import json
import threading

import gradio as gr
import httpx
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from pipelines.restore import RestorePipeline
from studio import images
from studio.errors import ImageError, InputError
from studio.images import Photo
from studio.ui.app import build, options
from studio.ui.restore import (
    COLUMNS,
    Runner,
    Stopped,
    choice_of_faces,
    preview,
    restore_photo,
    row,
    tab,
    table,
    watched,
)
from tests import tiny
from tests.ui.toy import ToyRestore, closed_loops

# gradio asks pandas for an option that pandas is about to drop
pytestmark = [
    pytest.mark.usefixtures("_loops"),
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
]


@pytest.fixture(scope="module")
def _loops():
    with closed_loops():
        yield


@pytest.fixture
def pipeline():
    return ToyRestore(tiny.tiny_net())


@pytest.fixture
def photo(tmp_path):
    """16 bits, alpha: what a viewer's format would lose."""
    pixels, alpha = tiny.image(40, 60), tiny.image(40, 60, seed=1)[:1]
    return images.save(Photo(pixels, alpha, bits=16), tmp_path / "aunt.png")


@pytest.fixture
def black(tmp_path):
    path = tmp_path / "black.png"
    Image.new("RGB", (32, 32)).save(path)
    return path


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("not a photo")
    return path


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
    assert [caption.split(":")[0] for _, caption in result.strip] == ["Face 0", "Face 1"]
    assert all(path.is_file() for path, _ in result.strip)
    first, second = result.report.faces
    assert row(first) == [0, "yes", "0.31", 12, 80, ""]
    assert row(second)[:3] == [1, "no", "–"]
    assert table(result.report.faces).count("<td>") == 2 * len(COLUMNS)
    assert json.dumps(result.report.faces)


def test_large_photos_are_shown_small_and_downloaded_whole(pipeline, tmp_path):
    path = images.save(Photo(tiny.image(30, 2000)), tmp_path / "wide.png")
    result = restore_photo(pipeline, path, tmp_path)
    assert size(result.shown[1]) == (1600, 24)
    assert size(result.file) == (2000, 30)


def test_no_face_is_no_result(pipeline, black, tmp_path):
    result = restore_photo(pipeline, black, tmp_path)
    assert result.report.status == "no face"
    assert result.message.startswith("No face was found")
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
    monkeypatch.setattr("studio.ui.restore.MAX_PIXELS", 40 * 60 * 4)
    restore_photo(pipeline, photo, tmp_path, scale=2)
    with pytest.raises(ImageError, match="pixels"):
        restore_photo(pipeline, photo, tmp_path, scale=4)


@pytest.mark.parametrize(("text", "choice"), [(" All ", "all"), ("largest", "largest"), ("0, 2", [0, 2]), (1, [1])])
def test_choice_of_faces(text, choice):
    assert choice_of_faces(text) == choice


def test_an_error_empties_the_page_and_is_said(pipeline, text):
    steps = Runner(lambda: pipeline).run(str(text))
    next(steps)
    file, report, message, slider, faces, strip = next(steps)
    assert (file, report, slider, faces, strip) == (None, None, None, "", [])
    assert "notes.jpg" in message
    with pytest.raises(gr.Error, match="notes"):
        next(steps)


def test_messages_are_text_not_markup(pipeline, tmp_path):
    path = tmp_path / "<b>x.png"
    path.write_text("no")
    steps = Runner(lambda: pipeline).run(str(path))
    next(steps)
    assert "<b>" not in next(steps)[2]
    with pytest.raises(gr.Error) as error:
        next(steps)
    assert "<b>" not in error.value.message


def test_files_of_a_run_are_gone_after_it(pipeline, photo):
    steps = Runner(lambda: pipeline).run(str(photo))
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
    assert said == ["Looking for faces", "Restoring"]
    pipeline(photo)  # the hooks are gone


def test_cancel_reaches_the_run_of_the_same_visitor(photo):
    visitor, other = (gr.Request(session_hash=name) for name in ("me", "somebody else"))
    runner = Runner(None)

    def load():  # called in the middle of a run
        runner.stop(other)
        assert not runner._stops["me"].is_set()
        assert "Stopped" in runner.stop(visitor)
        return ToyRestore(tiny.tiny_net())

    runner._pipeline = load
    *_, last = runner.run(str(photo), request=visitor)
    assert "Stopped" in last[2]
    assert last[3] is None
    assert runner._stops == {}
    runner.stop(visitor)  # nothing runs: nothing happens


def test_preview(photo, text):
    assert next(preview(str(photo))).visible
    assert not next(preview(None)).visible
    with pytest.warns(UserWarning, match=r"notes\.jpg"):  # outside of a server, gr.Warning is a Python one
        assert not next(preview(str(text))).visible


def test_works_without_examples(pipeline, monkeypatch, tmp_path):
    monkeypatch.setattr("studio.ui.restore.EXAMPLES", tmp_path / "none")
    with gr.Blocks(analytics_enabled=False) as blocks:
        tab(lambda: pipeline)
    assert not [block for block in blocks.blocks.values() if isinstance(block, gr.Dataset)]


def test_every_widget_has_a_label(pipeline):
    for block in build(pipeline).blocks.values():
        if isinstance(block, gr.components.FormComponent):
            assert block.label, block


# ---- over HTTP


@pytest.fixture(scope="module")
def url(_loops):
    app = build(ToyRestore(tiny.tiny_net()))
    _, address, _ = app.launch(prevent_thread_lock=True, quiet=True, **options({}))
    yield address
    app.close()


@pytest.fixture(scope="module")
def client(url):
    client = Client(url, verbose=False, analytics_enabled=False)
    yield client
    client.close()


def test_the_page_asks_no_other_server(url):
    page = httpx.get(url).text
    assert "googleapis" not in page
    assert "fonts.gstatic" not in page


def test_endpoint(client, photo):
    file, report, message, slider, faces, strip = client.predict(
        handle_file(photo), "all", 0.5, 1.0, 2, 0.6, False, api_name="/restore"
    )
    whole = images.load(file)
    assert file.endswith("aunt_restored.png")
    assert (whole.width, whole.bits, whole.alpha is None) == (120, 16, False)
    assert report["status"] == "restored"
    assert [face["restored"] for face in report["faces"]] == [True, False]
    assert report["output"] == "aunt_restored.png"
    assert "2 faces found" in message
    assert [size(path) for path in slider] == [(120, 80)] * 2
    assert all(path.endswith(".png") for path in slider)
    assert "<td>0.31</td>" in faces
    assert len(strip) == 2


def test_endpoint_has_defaults_and_names(client, photo):
    assert client.predict(photo=handle_file(photo), api_name="/restore")[1]["status"] == "restored"
    names = [
        one["parameter_name"]
        for one in client.view_api(return_format="dict")["named_endpoints"]["/restore"]["parameters"]
    ]
    assert names == ["photo", "faces", "fidelity", "strength", "scale", "identity_guard", "colorize"]


def test_only_the_pipelines_are_public(client):
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/restore", "/upsample"]


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
    data = [
        {"path": str(repository / "pyproject.toml"), "meta": {"_type": "gradio.FileData"}},
        "all",
        0.5,
        1,
        1,
        0.6,
        False,
    ]
    event = httpx.post(f"{url}gradio_api/call/restore", json={"data": data}).json()["event_id"]
    answer = httpx.get(f"{url}gradio_api/call/restore/{event}").text
    assert "event: error" in answer
    assert "face-studio" not in answer


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
    result = restore_photo(RestorePipeline.from_pretrained("restore"), path, tmp_path / "out", scale=2)
    assert result.report.status == "restored", result.message
    after = images.load(result.file).pixels
    assert after.shape == (3, 960, 1280)
    doubled = images.resize(images.load(path).pixels, 960, 1280)
    assert (after - doubled)[:, 300:500, 500:700].abs().mean() > 0.005  # the face is another
    assert torch.allclose(after[:, :100], doubled[:, :100], atol=1 / 255)  # what is not a face is not
