"""The Space's folder: complete, and it starts with nothing beside it."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from studio.errors import InputError
from studio.ui import space


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return space.build(tmp_path_factory.mktemp("space") / "face-studio")


def test_settings(folder):
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("---\n")
    settings = dict(line.split(": ", 1) for line in readme.split("---\n")[1].splitlines())
    assert settings["sdk"] == "gradio"
    assert settings["app_file"] == "app.py" and (folder / "app.py").is_file()
    assert settings["python_version"] == '"3.12"'
    assert re.fullmatch(r"6\.\d+\.\d+", settings["sdk_version"])
    assert len(settings["short_description"]) <= 60


def test_requirements(folder):
    needs = (folder / "requirements.txt").read_text().splitlines()
    assert "torch>=2.8" in needs
    assert any(one.startswith("c2pa-python") for one in needs)
    assert not any(one.startswith(("gradio", "torchvision", "pytest")) for one in needs)


def test_holds_what_is_needed_and_nothing_else(folder):
    assert {path.name for path in folder.iterdir()} == {*space.FOLDERS, *space.FILES, "README.md", "requirements.txt"}
    assert not list(folder.rglob("__pycache__"))
    assert (folder / "weights" / "restore" / "diffusion_pytorch_model.safetensors").is_file()
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 60 * 2**20


def test_is_built_again_but_over_nothing_else(folder, tmp_path):
    (folder / "studio" / "old.py").write_text("")
    space.build(folder)
    assert not (folder / "studio" / "old.py").exists()
    (tmp_path / "precious.txt").write_text("")
    with pytest.raises(InputError, match="another name"):
        space.build(tmp_path)


@pytest.mark.slow
def test_starts(folder, tmp_path):
    """As a Space does: `python app.py` in that folder, with only that folder on the path."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"STUDIO_PORT": str(port), "STUDIO_OFFLINE": "1", "GRADIO_TEMP_DIR": str(tmp_path)}
    check = [sys.executable, "-c", "import studio; print(studio.__file__)"]
    where = subprocess.run(check, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout
    assert where.startswith(str(folder))
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([sys.executable, "app.py"], cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        page = wait_for(f"http://127.0.0.1:{port}/gradio_api/info", server, tmp_path / "log")
    finally:
        server.terminate()
        server.wait(30)
    assert '"/restore"' in page and '"/compare"' in page


def wait_for(url, server, log):
    for _ in range(240):
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"no answer in two minutes: {log.read_text()}")
