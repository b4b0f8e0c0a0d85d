"""Nothing is left of uploads and results, however the app ends, and there are never more than may be."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file

from studio.errors import InputError
from studio.ui.app import build, options
from studio.ui.storage import Bounded, own_folder, prune, sweep
from tests import tiny
from tests.ui.toy import MARKS, ToyRestore, files_in

pytestmark = MARKS

# An app with a toy in place of the model; of the other tabs nothing is loaded.
APP = """
from studio.ui import app
from tests import tiny
from tests.ui.toy import Long, ToyAlbum, ToyComparer, ToyRestore

toys = {one.TITLE: object() for one in app.TABS}
app.serve({**toys, "Restore": Long(ToyRestore(tiny.tiny_net()), seconds=%s)})
"""


class Running:
    """An app in a process of its own."""

    def __init__(self, folder, repository, port, seconds=0):
        settings = {"PYTHONPATH": str(repository), "GRADIO_TEMP_DIR": str(folder), "STUDIO_PORT": str(port)}
        self.place = folder.parent / f"log-{port}"
        with self.place.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-c", APP % seconds],
                env={**os.environ, **settings, "TMPDIR": str(folder.parent / "scratch")},
                stdout=stream,
                stderr=stream,
            )
        self.url = f"http://127.0.0.1:{port}/"
        for _ in range(600):
            assert self.process.poll() is None, self.said()
            try:
                if httpx.get(self.url).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.2)
        raise AssertionError(self.said())

    def said(self):
        return self.place.read_text()

    def end(self, how):
        self.process.send_signal(how)
        self.process.wait(20)
        return self.process.returncode


@pytest.fixture
def place(tmp_path, unused_port):
    """Folder of an app, and its port."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "files").mkdir()
    return tmp_path / "files", unused_port


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_it_is_told_to_stop(place, repository, photo, how):
    folder, port = place
    app = Running(folder, repository, port)
    client = Client(app.url, verbose=False, analytics_enabled=False, download_files=False)
    client.predict(photo=handle_file(photo), api_name="/restore")
    client.predict(photos=[handle_file(photo)], api_name="/restore_many")
    client.close()
    assert {"aunt.png", "aunt_restored.png", "restored.zip"} <= {path.name for path in files_in(folder)}
    assert app.end(how) == 0
    assert (files_in(folder), files_in(folder.parent / "scratch")) == ([], [])
    assert "Traceback" not in app.said()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_it_stops_in_the_middle_of_work_and_the_next_one_removes_what_a_killed_one_left(place, repository, photo):
    folder, port = place
    app = Running(folder, repository, port, seconds=60)
    client = Client(app.url, verbose=False, analytics_enabled=False)
    client.submit(photo=handle_file(photo), api_name="/restore")
    for _ in range(200):
        if any(Path(inside).parent.name == "work" for inside, _, _ in os.walk(folder)):
            break
        time.sleep(0.05)
    app.process.kill()
    app.process.wait(20)
    client.close()
    assert "aunt.png" in {path.name for path in files_in(folder)}
    again = Running(folder, repository, port, seconds=60)
    assert "aunt.png" not in {path.name for path in files_in(folder)}
    client = Client(again.url, verbose=False, analytics_enabled=False)
    client.submit(photo=handle_file(photo), api_name="/restore")
    time.sleep(1)
    start = time.perf_counter()
    assert again.end(signal.SIGTERM) == 0
    assert time.perf_counter() - start < 15
    client.close()
    assert files_in(folder) == []


def test_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    left = tmp_path / "run-0123"
    left.mkdir()
    (left / "aunt.png").write_text("left by a killed one")
    with own_folder() as mine:
        assert not left.exists()
        assert os.environ["GRADIO_TEMP_DIR"] == str(mine / "files")
        with tempfile.NamedTemporaryFile() as scratch:
            assert scratch.name.startswith(str(mine / "work"))
        with own_folder() as other:  # two at once, say
            sweep(tmp_path)
            assert mine.is_dir() and other.is_dir() and mine != other
    assert os.environ["GRADIO_TEMP_DIR"] == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have no owners here")
def test_a_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(InputError, match="somebody else's"), own_folder():
        raise AssertionError("never here")


def test_the_oldest_go_first(tmp_path):
    for number, size in enumerate((400, 300, 200, 100)):
        path = tmp_path / str(number) / "photo"
        path.parent.mkdir()
        path.write_bytes(bytes(size))
        os.utime(path, (number, number))
    spared = tmp_path / "0" / "photo"  # the page's own
    assert prune(tmp_path, 600, [spared]) == []
    assert [path.parent.name for path in prune(tmp_path, 350, [spared])] == ["1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "2", "3"]


def test_a_folder_that_goes_while_they_are_counted_is_passed_over(tmp_path, monkeypatch):
    """As when another request deletes its upload: the answer broke off before."""
    for name in "12":
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(bytes(100))
    scandir = os.scandir

    def late(path):
        if str(path) == str(tmp_path / "1"):
            (tmp_path / "1" / "a.png").unlink()
            (tmp_path / "1").rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", late)
    assert prune(tmp_path, 0) == [tmp_path / "2" / "a.png"]


def test_uploads_are_bounded_for_a_visitor_and_in_all(_loops, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    app = build({"Restore": ToyRestore(tiny.tiny_net())})
    settings = options({})
    for one in settings["app_kwargs"]["middleware"]:
        if one.cls is Bounded:
            one.kwargs.update(each=2500, most=10**9)
    _, address, _ = app.launch(prevent_thread_lock=True, quiet=True, **settings)
    try:
        for number in range(4):
            body = bytes([number]) * 1000
            answer = httpx.post(f"{address}gradio_api/upload", files={"files": (f"{number}.png", body)})
            assert answer.status_code == 200
        wait_for(lambda: {path.name for path in files_in(tmp_path) if len(path.name) == 5} == {"2.png", "3.png"})
        assert len(files_in(tmp_path)) > 2, "the examples are there still"
        page = httpx.get(f"{address}config").text
        assert "2 GB" in page and "8 GB" in page
    finally:
        app.close()


def wait_for(wanted):
    for _ in range(100):
        if wanted():
            return
        time.sleep(0.05)
    raise AssertionError
