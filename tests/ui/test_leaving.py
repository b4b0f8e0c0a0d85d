"""A visitor who leaves frees the lane: whatever way it is, the work stops, and the next one is served."""

import threading
import time

import httpx
import pytest
from gradio_client import Client, handle_file

from studio.ui.app import build, options
from studio.ui.common import Lane
from studio.ui.lane import Stop, Stopped, stoppable
from tests import tiny
from tests.ui.toy import MARKS, Long, ToyRestore

pytestmark = MARKS
SOON = 4.0  # s, in which work must have stopped: one or two on a machine that does nothing else


@pytest.fixture(scope="module")
def served(_loops):
    pipeline = Long(ToyRestore(tiny.tiny_net()), seconds=30)
    app = build({"Restore": pipeline})
    _, address, _ = app.launch(prevent_thread_lock=True, quiet=True, **options({}))
    yield address, pipeline
    app.close()


def until(wanted, seconds):
    """Seconds until a condition holds."""
    start = time.perf_counter()
    while not wanted():
        assert time.perf_counter() - start < seconds, "it went on"
        time.sleep(0.02)
    return time.perf_counter() - start


def client_of(address):
    return Client(address, verbose=False, analytics_enabled=False)


def next_one_is_served(address, pipeline, photo):
    pipeline.seconds, before = 0, pipeline.seconds
    client = client_of(address)
    try:
        assert client.predict(photo=handle_file(photo), api_name="/restore")[1]["status"] == "restored"
    finally:
        client.close()
        pipeline.seconds = before


def test_a_cancelled_job(served, photo):
    """`job.cancel()` answers, and ends the work."""
    address, pipeline = served
    client = client_of(address)
    job = client.submit(photo=handle_file(photo), api_name="/restore")
    until(lambda: pipeline.inside, 20)
    start = time.perf_counter()
    assert job.cancel()
    assert time.perf_counter() - start < SOON
    until(lambda: not pipeline.inside, SOON)
    next_one_is_served(address, pipeline, photo)
    client.close()


def test_a_call_that_is_hung_up(served, photo):
    """As curl does it, and Ctrl-C."""
    address, pipeline = served
    with httpx.Client(timeout=60) as http, photo.open("rb") as file:
        upload = http.post(f"{address}gradio_api/upload", files={"files": (photo.name, file)}).json()[0]
        given = {"photo": {"path": upload, "meta": {"_type": "gradio.FileData"}}}
        event = http.post(f"{address}gradio_api/call/v2/restore", json=given).json()["event_id"]
        with http.stream("GET", f"{address}gradio_api/call/restore/{event}") as answer:
            lines = answer.iter_lines()  # kept: without it the connection is closed
            next(lines)
            until(lambda: pipeline.inside, 20)
    until(lambda: not pipeline.inside, SOON)
    next_one_is_served(address, pipeline, photo)


def test_work_stops_at_the_next_layer():
    """Of any network, in this thread alone."""
    net, stop, began = tiny.tiny_net(), Stop(), threading.Event()
    picture = tiny.image(32, 32)[None]

    def elsewhere():
        began.wait(5)
        net(picture)
        went_on.append(1)

    went_on = []
    thread = threading.Thread(target=elsewhere)
    thread.start()
    with stoppable(stop):
        net(picture)
        stop.set()
        began.set()
        thread.join()
        with pytest.raises(Stopped):
            net(picture)
    net(picture)
    assert went_on == [1]


def test_a_visitor_who_has_left_is_not_waited_for():
    """One whose turn has not come, since another's work is still on its way out."""
    stop = Stop(gone=lambda: True)
    assert stop.is_set()
    with Lane._busy, pytest.raises(Stopped), Lane().turn(stop):
        raise AssertionError("never here")
