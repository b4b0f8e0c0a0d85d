import os
import re
import subprocess
import sys
import threading
import time
import types

import pytest

from studio.errors import InputError, MissingWeightsError
from studio.ui import app
from studio.ui.app import MAX_UPLOAD, Lazy, build, options
from tests.ui.toy import closed_loops


def test_defaults_stay_on_this_machine():
    chosen = options({})
    assert chosen["server_name"] is None  # gradio's 127.0.0.1, or what a Space says
    assert chosen["auth"] is None
    assert chosen["max_file_size"] == MAX_UPLOAD
    assert chosen["run_history"] is False
    assert chosen["enable_monitoring"] is False


def test_environment():
    chosen = options({"STUDIO_HOST": "0.0.0.0", "STUDIO_PORT": "8080", "STUDIO_AUTH": "ann:a:b"})
    assert (chosen["server_name"], chosen["server_port"], chosen["auth"]) == ("0.0.0.0", 8080, ("ann", "a:b"))


@pytest.mark.parametrize("port", ["abc", "0", "70000", "-1", "8080.0"])
def test_bad_port(port):
    with pytest.raises(InputError, match="STUDIO_PORT"):
        options({"STUDIO_PORT": port})


@pytest.mark.parametrize("auth", ["secret", "user:", ":secret", ":"])
def test_bad_auth_is_refused_and_not_repeated(auth):
    with pytest.raises(InputError, match="STUDIO_AUTH") as error:
        options({"STUDIO_AUTH": auth})
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("value", ["yes", "2"])
def test_bad_mcp(value):
    with pytest.raises(InputError, match="STUDIO_MCP must be 0 or 1"):
        options({"STUDIO_MCP": value})


def test_mcp_is_off_unless_asked_for(monkeypatch):
    assert options({})["mcp_server"] is options({"STUDIO_MCP": "0"})["mcp_server"] is False
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="extra `mcp`"):
        options({"STUDIO_MCP": "1"})


def test_fonts_are_the_systems():
    assert options({})["theme"]._stylesheets == []


def test_build_loads_nothing():
    def load():
        raise AssertionError("loaded before it was asked for")

    with closed_loops():
        app = build({"Restore": Lazy(load), "Compare": Lazy(load)})
    assert app.analytics_enabled is False
    assert app.delete_cache == (3600, 3600)
    assert app.api_open is False


def test_lazy_loads_once_whatever_thread_asks():
    made = []

    def load():
        time.sleep(0.05)
        made.append(object())
        return made[-1]

    lazy = Lazy(load)
    got = []
    threads = [threading.Thread(target=lambda: got.append(lazy())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert got == made * 4


def test_lazy_tries_again_after_a_failure():
    answers = iter([InputError("no"), "pipeline"])

    def load():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    lazy = Lazy(load)
    with pytest.raises(InputError):
        lazy()
    assert lazy() == "pipeline"


@pytest.mark.parametrize(
    ("zero", "order"),
    [("0", ["launch", "a", "b"]), ("true", ["a", "b", "launch", "a"])],  # a failed one is tried again
)
def test_models_are_loaded_before_anybody_asks(monkeypatch, zero, order):
    """While the page is there already; on ZeroGPU before it is. One that cannot be loaded stops nothing."""
    did = []

    def tab(title):
        def load():
            did.append(title)
            if title == "a":
                raise MissingWeightsError("not here")
            return title

        return types.SimpleNamespace(TITLE=title, load=load, tab=lambda model: None)

    monkeypatch.setenv("SPACES_ZERO_GPU", zero)
    monkeypatch.setitem(sys.modules, "spaces", types.ModuleType("spaces"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "spaces")
    monkeypatch.setattr(app, "TABS", (tab("a"), tab("b")))
    monkeypatch.setattr(app, "own_certificate", lambda: None)
    monkeypatch.setattr(app.gr.Blocks, "launch", lambda self, **settings: did.append("launch"))
    with closed_loops():
        app.serve()
    assert did == order


@pytest.mark.slow
def test_a_bad_setting_is_one_line(repository):
    command = [sys.executable, "app.py"]
    done = subprocess.run(
        command, cwd=repository, env={**os.environ, "STUDIO_PORT": "x"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert re.fullmatch(r"error: STUDIO_PORT must be [^\n]*\n", done.stderr)
