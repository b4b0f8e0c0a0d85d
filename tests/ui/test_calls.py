"""Raw calls with wrong values: one line and a 4xx, and no traceback in the log."""

import json

import httpx
import pytest

from tests.ui.toy import MARKS

pytestmark = MARKS
PHOTO = {"path": "aunt.png", "meta": {"_type": "gradio.FileData"}}
RIGHT = [PHOTO, "all", 0.5, 1, 1, 0.6, False, "png", False, None, "lanczos", "", False, "auto", 0, "restore"]


def changed(place, value):
    return [*RIGHT[:place], value, *RIGHT[place + 1 :]]


WRONG = [
    *((place, value) for place in (2, 3, 5, 14) for value in ("much", None, [0.5], {"a": 1}, True)),
    *((place, value) for place in (6, 8, 12) for value in ("yes", None, 1, [])),
    *((place, value) for place in (1, 11, 15) for value in (7, None, ["all"], {})),
    *((place, value) for place in (4, 7, 10, 13) for value in ("huge", 77, [], {}, True)),
    *((place, value) for place in (0, 9) for value in ("aunt.png", 3, [PHOTO], {"url": "x"}, {"path": 3})),
]


@pytest.mark.parametrize(("place", "value"), WRONG)
def test_a_wrong_kind(url, capfd, place, value):
    answer = httpx.post(f"{url}gradio_api/call/restore", json={"data": changed(place, value)})
    assert answer.status_code == 422, answer.text
    said = answer.json()["detail"]
    assert f"value {place + 1} (" in said and "\n" not in said and len(said) < 250
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("call/restore", "{", 400),
        ("call/restore", "[1]", 400),
        ("call/restore", b"\xff\xfe", 400),
        ("call/restore", "{}", 422),
        ("call/restore", '{"data": 3}', 422),
        ("call/restore", '{"data": []}', 422),
        ("call/restore", json.dumps({"data": [*RIGHT, 1]}), 422),
        ("call/restore", json.dumps({"data": RIGHT, "session_hash": 7}), 422),
        ("call/nothing", '{"data": []}', 404),
        ("call/v2/nothing", "{}", 404),
        ("call/v2/restore", "{}", 422),
        ("call/v2/restore", '{"photo": null, "colour": 1}', 422),
        ("call/v2/restore", '{"photo": null, "fidelity": "much"}', 422),
        ("queue/join", '{"data": [], "fn_index": 9999, "session_hash": "a"}', 404),
        ("queue/join", '{"data": [], "fn_index": "x", "session_hash": "a"}', 404),
        ("run/predict", '{"data": [], "fn_index": -1}', 404),
        ("run/nothing", '{"data": []}', 404),
        ("call/restore", '{"data": ["' + "a" * 9 * 2**20 + '"]}', 413),
    ],
)
def test_a_wrong_body(url, capfd, path, body, status):
    answer = httpx.post(f"{url}gradio_api/{path}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert "\n" not in answer.json()["detail"] and len(answer.json()["detail"]) < 250
    assert "Traceback" not in capfd.readouterr().err


def test_the_right_one_is_run(url):
    event = httpx.post(f"{url}gradio_api/call/restore", json={"data": changed(0, None)}).json()["event_id"]
    said = httpx.get(f"{url}gradio_api/call/restore/{event}").text
    assert "event: error" in said and "a photo is needed, got none" in said


def test_what_fails_that_should_not_is_said_in_one_line(caplog):
    """To the visitor; the whole story is in the log."""
    import gradio as gr

    from studio.ui.restore import Runner

    def broken():
        raise RuntimeError("out of luck\nat line 3")

    pages = Runner(broken).restore("aunt.png")
    next(pages)
    assert "Something went wrong" in next(pages)[2]
    with pytest.raises(gr.Error, match="Something went wrong") as error:
        next(pages)
    assert "\n" not in error.value.message
    assert "out of luck" in caplog.text
