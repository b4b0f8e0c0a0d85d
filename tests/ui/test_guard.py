"""Who is answered: own names, own pages, and passwords that are not guessed."""

import logging

import httpx
import pytest
from gradio_client import Client, handle_file

from studio.ui import guard
from studio.ui.app import build, options
from studio.ui.guard import Names, is_loopback, name_of, wait
from tests import tiny
from tests.ui.toy import MARKS, ToyRestore

pytestmark = MARKS


@pytest.fixture(scope="module")
def serve(_loops):
    """serve(environment) -> address; one app for each environment."""
    running = {}

    def one(**environment):
        key = tuple(sorted(environment.items()))
        if key not in running:
            app = build({"Restore": ToyRestore(tiny.tiny_net())})
            _, address, _ = app.launch(prevent_thread_lock=True, quiet=True, **options(environment))
            running[key] = app, address
        return running[key][1]

    yield one
    for app, _ in running.values():
        app.close()


def port(address):
    return address.rstrip("/").rpartition(":")[2]


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("Localhost:7860", "localhost"),
        ("[::1]:80", "::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("evil.com.", "evil.com"),
        ("a b", ""),
        ("x@localhost", ""),
        ("", ""),
    ],
)
def test_names(host, name):
    assert name_of(host) == name


def test_loopback():
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.8.8", "::1", "studio.localhost")))
    assert not any(map(is_loopback, ("localhost.evil.com", "127.0.0.1.evil.com", "192.168.1.2", "", "8.8.8.8")))


def test_only_own_names_are_answered(serve):
    """A foreign name that points here is DNS rebinding."""
    address = serve(STUDIO_HOSTS="studio.lan, photos.example")
    ask = lambda host: httpx.get(address, headers={"Host": host})  # noqa: E731
    for host in ("localhost", f"127.0.0.1:{port(address)}", "studio.lan:80", "PHOTOS.example"):
        assert ask(host).status_code == 200, host
    for host in ("evil.com", f"evil.com:{port(address)}", "192.168.1.2", "localhost.evil.com", "studio.lan.evil.com"):
        answer = ask(host)
        assert (answer.status_code, "\n" in answer.text) == (421, False), host
        assert "STUDIO_HOSTS" in answer.text
    upload = f"{address}gradio_api/upload"
    assert httpx.post(upload, headers={"Host": "evil.com"}, files={"files": ("b.png", b"x")}).status_code == 421


def test_a_foreign_page_cannot_send(serve):
    address = serve()
    host, files = address[7:-1], {"files": ("b.png", b"x")}
    send = lambda **headers: httpx.post(f"{address}gradio_api/upload", headers=headers, files=files)  # noqa: E731
    assert send().status_code == 200  # a script sends no origin
    assert send(Origin=f"http://{host}").status_code == 200
    for headers in (
        {"Origin": "https://evil.com"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},  # another program of this machine
        {"Origin": f"http://{host}.evil.com"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        answer = send(**headers)
        assert (answer.status_code, "\n" in answer.text) == (403, False), headers
    proxied = serve(STUDIO_HOSTS="photos.example")  # which rewrites Host, say
    headers = {"Origin": "https://photos.example"}
    assert httpx.post(f"{proxied}gradio_api/upload", headers=headers, files=files).status_code == 200


def test_on_a_space_its_own_host_works(serve):
    address = serve(SPACE_HOST="ann-face-studio.hf.space")
    headers = {"Host": "ann-face-studio.hf.space", "Origin": "https://ann-face-studio.hf.space"}
    answer = httpx.post(f"{address}gradio_api/upload", headers=headers, files={"files": ("b.png", b"x")})
    assert answer.status_code == 200
    answer = httpx.get(address, headers={"Host": "ann-face-studio.hf.space"})
    assert "frame-ancestors https://huggingface.co" in answer.headers["content-security-policy"]
    assert "x-frame-options" not in answer.headers
    assert httpx.get(address, headers={"Host": "10.1.2.3:7860"}).status_code == 200  # asked whether it lives
    assert httpx.get(address, headers={"Host": "evil.com"}).status_code == 421


def test_headers(serve):
    address = serve()
    for path in ("", "config", "gradio_api/info", "nothing-here"):
        headers = httpx.get(f"{address}{path}").headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "http:" not in headers["content-security-policy"], "no other server"


def test_where_it_listens_is_a_name():
    assert Names({"STUDIO_HOST": "192.168.1.5"}).known("192.168.1.5:7860")
    assert not Names({"STUDIO_HOST": "0.0.0.0"}).known("0.0.0.0:7860")
    assert not Names({"STUDIO_HOST": "0.0.0.0"}).known("192.168.1.5:7860")


def test_wrong_passwords_are_slowed_down_and_logged(serve, monkeypatch, caplog, photo):
    address = serve(STUDIO_AUTH="ann:secret")
    now = [1000.0]
    monkeypatch.setattr(guard, "monotonic", lambda: now[0])
    login = lambda password: httpx.post(f"{address}login", data={"username": "ann", "password": password})  # noqa: E731
    with caplog.at_level(logging.WARNING, "studio.ui.guard"):
        assert [login(f"guess{i}").status_code for i in range(5)] == [400] * 5
        refused = login("secret")  # even the right one has to wait
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")
    assert "\n" not in refused.text
    assert "wrong password from 127.0.0.1, 5 in a row" in caplog.text
    assert "guess" not in caplog.text and "secret" not in caplog.text
    now[0] += 2.1
    assert login("wrong").status_code == 400
    assert login("secret").status_code == 429
    now[0] += 4.1
    assert login("secret").status_code == 200
    assert login("wrong").status_code == 400  # and counting starts anew
    client = Client(address, auth=("ann", "secret"), verbose=False, analytics_enabled=False)
    assert client.predict(photo=handle_file(photo), api_name="/restore")[1]["status"] == "restored"
    client.close()


def test_waiting_has_an_end():
    assert [wait(count) for count in (0, 4, 5, 6, 7, 500)] == [0, 0, 2, 4, 8, 300]
