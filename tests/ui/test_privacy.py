"""What visitors trust the app with: files that go away, a login that holds, and nothing to be read beside them."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from gradio_client import Client, handle_file

from studio.ui.app import Lazy, build, options
from studio.ui.common import EXAMPLES
from tests import tiny
from tests.ui.toy import MARKS, ToyAlbum, ToyRestore, files_in

pytestmark = MARKS


@pytest.fixture
def serve(_loops, tmp_path, monkeypatch):
    """serve(environment) -> address of an app of its own, whose files lie in tmp_path/files."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "files"))
    running = []

    def one(environment=(), models=None):
        app = build(models or {"Restore": ToyRestore(tiny.tiny_net()), "Album": ToyAlbum()})
        _, address, _ = app.launch(prevent_thread_lock=True, quiet=True, **options(dict(environment)))
        running.append(app)
        return address

    yield one
    for app in running:
        app.close()


def files(folder):
    """What lies there, but for copies of the app's own examples."""
    own = {path.name for path in EXAMPLES.iterdir()}
    return [path for path in files_in(folder) if path.name not in own]


def client_of(address, **settings):
    return Client(address, verbose=False, analytics_enabled=False, **settings)


@pytest.mark.slow
def test_uploads_and_results_are_deleted(serve, photo, tmp_path, monkeypatch):
    """With seconds in place of the hours: uploads, results, zips, and an upload that nobody used."""
    monkeypatch.setattr("studio.ui.app.HOUR", 2)
    address = serve()
    client = client_of(address, download_files=False)
    try:
        client.predict(photo=handle_file(photo), api_name="/restore")
        client.predict(photos=[handle_file(photo)], api_name="/restore_many")
        client.predict(photos=[handle_file(photo)], api_name="/album")
        assert httpx.post(f"{address}gradio_api/upload", files={"files": ("b.png", b"unused")}).status_code == 200
    finally:
        client.close()
    names = {path.name for path in files(tmp_path / "files")}
    assert {"aunt.png", "aunt_restored.png", "restored.zip", "b.png"} <= names
    for _ in range(100):
        if not files(tmp_path / "files"):
            break
        time.sleep(0.2)
    assert files(tmp_path / "files") == []


def test_nothing_is_left_when_the_app_stops(_loops, photo, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "files"))
    app = build({"Restore": ToyRestore(tiny.tiny_net())})
    _, address, _ = app.launch(prevent_thread_lock=True, quiet=True, **options({}))
    client = client_of(address, download_files=False)
    try:
        client.predict(photo=handle_file(photo), api_name="/restore")
    finally:
        client.close()
    assert files(tmp_path / "files")
    app.close()
    assert files(tmp_path / "files") == []


def test_a_login_holds(serve, photo):
    """Without it: no page, no endpoint, no upload, no file of somebody else."""
    address = serve({"STUDIO_AUTH": "ann:a:b"})
    client = client_of(address, auth=("ann", "a:b"), download_files=False)
    try:
        file, report, *_ = client.predict(photo=handle_file(photo), api_name="/restore")
    finally:
        client.close()
    assert report["status"] == "restored"
    for path in ("config", "gradio_api/info", f"gradio_api/file={file['path']}"):
        assert httpx.get(f"{address}{path}").status_code == 401, path
    assert httpx.post(f"{address}gradio_api/upload", files={"files": ("b.png", b"x")}).status_code == 401
    assert httpx.post(f"{address}gradio_api/call/restore", json={"data": []}).status_code == 401
    assert httpx.post(f"{address}login", data={"username": "ann", "password": "b"}).status_code == 400
    with pytest.raises(Exception, match="Could not login"):
        client_of(address, auth=("ann", "wrong"))


def test_no_file_of_this_machine_is_served(serve, repository, tmp_path, monkeypatch):
    """But for the examples: neither the code nor anything beside them, however the path is written."""
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    address = serve()
    example = repository / "examples" / "portrait.jpg"
    assert httpx.get(f"{address}gradio_api/file={example}").status_code == 200
    beside = repository / "examples" / ".." / "pyproject.toml"
    for path in (
        secret,
        "/etc/passwd",
        repository / "pyproject.toml",
        repository / "studio" / "ui" / "app.py",
        beside,
        str(beside).replace("..", "%2e%2e").replace("/", "%2f"),
        f"{tmp_path}/files/../secret.txt",
        "../../../../etc/passwd",
        "file:///etc/passwd",
    ):
        answer = httpx.get(f"{address}gradio_api/file={path}")
        assert answer.status_code in (403, 404), path
    for name in ("../../escape.png", "/etc/escape.png", "..\\escape.png"):
        kept = httpx.post(f"{address}gradio_api/upload", files={"files": (name, b"x")}).json()[0]
        assert kept.startswith(str(tmp_path / "files")) and "/../" not in kept
    assert not [path for path in files(tmp_path) if "escape" in path.name and "files" not in path.parts]


def test_two_visitors_at_once_load_a_model_once(serve, photo):
    """The first visitors come before the model is there: one load, and all are served."""
    made, together = [], threading.Barrier(3)

    def load():
        made.append(1)
        time.sleep(0.5)
        return ToyRestore(tiny.tiny_net())

    address = serve(models={"Restore": Lazy(load)})

    def visit(number):
        client = client_of(address)
        try:
            together.wait()
            if number:
                return client.predict(photo=handle_file(photo), api_name="/restore")[1]["status"]
            return client.predict(photos=[handle_file(photo)], api_name="/restore_many")[1][0]["status"]
        finally:
            client.close()

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(visit, range(3))) == ["restored"] * 3
    assert made == [1]
