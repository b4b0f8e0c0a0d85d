"""The Space's folder: complete, and it starts with nothing beside it."""

import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
import venv

import pytest
import torch
import yaml
from gradio_client import Client, handle_file

from studio import images
from studio.errors import InputError
from studio.ui import space


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return space.build(tmp_path_factory.mktemp("space") / "face-studio")


def settings_of(folder):
    """The front matter of the README, read as the Hub does."""
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("---\n")
    return yaml.safe_load(readme.split("---\n")[1])


def test_settings(folder):
    readme = (folder / "README.md").read_text(encoding="utf-8")
    settings = settings_of(folder)
    assert settings["sdk"] == "gradio"
    assert settings["app_file"] == "app.py" and (folder / "app.py").is_file()
    assert settings["python_version"] == "3.12"  # text: as a number, 3.10 would be 3.1
    assert re.fullmatch(r"6\.\d+\.\d+", settings["sdk_version"])
    assert len(settings["short_description"]) <= 60
    assert {settings["colorFrom"], settings["colorTo"]} <= {"red", "yellow", "green", "blue", "indigo", "purple",
        "pink", "gray"}  # fmt: skip
    assert settings["license"] == "apache-2.0"
    assert settings["title"] and settings["emoji"]
    assert "fetched when the Space starts" in readme


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


# ---- in a clean environment


@pytest.fixture(scope="module")
def clean(folder, repository, tmp_path_factory):
    """The Python of a new environment with nothing in it but gradio, as a Space has it, and `requirements.txt`.

    Takes a minute or two and over a gigabyte. The pinned versions are those that everything else was tested with.
    """
    environment = tmp_path_factory.mktemp("clean")
    venv.create(environment, with_pip=True)
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    gradio = f"gradio=={settings_of(folder)['sdk_version']}"
    pip = [python, "-m", "pip", "install", "--quiet", "--no-input", "--no-compile", "--disable-pip-version-check"]
    wanted = ["-c", repository / "constraints.txt", gradio, "-r", folder / "requirements.txt"]
    done = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        said = f"the Space's environment could not be made: {done.stderr.strip().splitlines()[-1]}"
        pytest.fail(said) if os.environ.get("STUDIO_SPACE") == "required" else pytest.skip(said)
    yield python
    shutil.rmtree(environment)


@pytest.fixture(scope="module")
def started(folder, clean, tmp_path_factory):
    """As a Space does: `python app.py` in that folder, with only that folder on the path -> its address, its log."""
    place = tmp_path_factory.mktemp("running")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment |= {"STUDIO_PORT": str(port), "GRADIO_TEMP_DIR": str(place / "files")}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # sums depend on it in their last digit
    log = place / "log"
    with log.open("w") as stream:
        server = subprocess.Popen([clean, "app.py"], cwd=folder, env=environment, stdout=stream, stderr=stream)
    try:
        wait_for(f"http://127.0.0.1:{port}/gradio_api/info", server, log)
        yield f"http://127.0.0.1:{port}/", log
    finally:
        server.terminate()
        server.wait(60)


@pytest.mark.slow
@pytest.mark.weights  # as the next one, it may use the network
def test_the_environment_is_clean(folder, clean):
    """The code is the folder's, and what only this project's tests have is not there."""
    code = "import studio, torch, importlib.util as u; print(studio.__file__, torch.__file__, u.find_spec('pytest'))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([clean, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    own, foreign, test = done.stdout.split()
    assert own.startswith(str(folder)) and foreign.startswith(str(clean.parent.parent)) and test == "None"


@pytest.mark.slow
@pytest.mark.weights
def test_starts_and_restores_as_the_pipeline_does(folder, started, repository):
    """The Space's API gives the pipeline's pixels; every tab is there, and its log says nothing of an error."""
    from studio import RestorePipeline

    address, log = started
    client = Client(address, verbose=False, analytics_enabled=False, httpx_kwargs={"timeout": 600})
    try:
        names = client.view_api(return_format="dict")["named_endpoints"]
        photo = folder / "examples" / "portrait.jpg"
        file, report, *_ = client.predict(photo=handle_file(photo), credentials=False, api_name="/restore")
        signed = client.predict(photo=handle_file(photo), api_name="/restore")[1]
    finally:
        client.close()
    tabs = {
        "/restore",
        "/restore_many",
        "/upsample",
        "/frontalize",
        "/edit",
        "/generate",
        "/reenact",
        "/compare",
        "/album",
    }
    assert set(names) == tabs
    assert report["status"] == "restored"
    assert signed["credentials"] == "written"
    given = repository / "examples" / "portrait.jpg"
    expected = RestorePipeline.from_pretrained("restore")(given, scale="auto").photos[0]
    assert torch.equal(images.load(file).pixels, images.load(images.encode(expected, ".png")).pixels)
    assert "Traceback" not in log.read_text()


def wait_for(url, server, log):
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"no answer in five minutes: {log.read_text()}")
