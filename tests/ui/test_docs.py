"""docs/app.md is what the endpoints are: every name is in it, and its commands run as they stand."""

import ast
import re
import shutil
import subprocess

import pytest

from tests.ui.toy import MARKS

pytestmark = MARKS


@pytest.fixture(scope="module")
def page(repository):
    return (repository / "docs" / "app.md").read_text(encoding="utf-8")


def test_every_endpoint_and_argument_is_named(client, page):
    rows = [line.split("|")[1:4] for line in page.splitlines() if line.startswith("|")]
    documented, endpoint = {}, ""
    for first, second, *_ in rows:
        endpoint = (re.findall(r"`(/\w+)`", first) or [endpoint if not first.strip() else ""])[0]
        if endpoint:
            documented.setdefault(endpoint, []).extend(re.findall(r"`(\w+)`", second))
    known = client.view_api(return_format="dict")["named_endpoints"]
    assert {name: sorted(names) for name, names in documented.items()} == {
        name: sorted(one["parameter_name"] for one in known[name]["parameters"]) for name in known
    }


def test_defaults_are_those_named(client, page):
    known = client.view_api(return_format="dict")["named_endpoints"]["/restore"]["parameters"]
    defaults = {one["parameter_name"]: one["parameter_default"] for one in known if one["parameter_has_default"]}
    assert defaults == {
        "faces": "all",
        "fidelity": 0.5,
        "strength": 1,
        "scale": "auto",
        "identity_guard": 0.6,
        "colorize": False,
        "file_format": "png",
        "credentials": True,
        "reference": None,
        "background": "lanczos",
        "boxes": "",
        "aligned": False,
        "region": "auto",
        "seed": 0,
        "model": "restore",
    }


def test_the_table_names_the_defaults(client, page):
    """Every default that stands in it, of every endpoint."""
    known = client.view_api(return_format="dict")["named_endpoints"]
    endpoint, compared = "", 0
    for first, second, third, *_ in (line.split("|")[1:] for line in page.splitlines() if line.startswith("|")):
        endpoint = (re.findall(r"`(/\w+)`", first) or [endpoint if not first.strip() else ""])[0]
        names, defaults = re.findall(r"`(\w+)`", second), re.findall(r"`([^`]*)`", third)
        if not endpoint or not defaults:
            continue
        parameters = {one["parameter_name"]: one["parameter_default"] for one in known[endpoint]["parameters"]}
        for name, default in zip(names, defaults * (len(names) if len(defaults) == 1 else 1), strict=True):
            assert parameters[name] == ast.literal_eval(default), (endpoint, name)
            compared += 1
    assert compared > 50


def test_the_python_lines_run(client, url, page, photo, face, tmp_path, monkeypatch):
    """Against this server, with files of the names that they name."""
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "gradio_client" in block)
    monkeypatch.chdir(tmp_path)
    for name in set(re.findall(r'handle_file\("([^"]+)"\)', code)):
        shutil.copyfile(face if name.startswith("face") else photo, tmp_path / name)
    found = {}
    exec(code.replace("http://127.0.0.1:7860", url), found)
    found["client"].close()
    assert found["report"]["photos"] == 2  # the last one that was asked
    assert found["file"].endswith("_restored.tif")
    assert found["archive"].endswith(".zip")
    assert len(found["guesses"]) == 3
    assert found["people"].endswith(".zip")


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_curl_lines_run(url, page, photo, tmp_path):
    code = next(block for block in re.findall(r"```sh\n(.*?)```", page, re.S) if "curl" in block)
    shutil.copyfile(photo, tmp_path / "grandmother.jpg")
    code = code.replace("http://127.0.0.1:7860/", url)
    done = subprocess.run(["bash", "-euc", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert "event: complete" in done.stdout
    assert "grandmother_restored.png" in done.stdout
