"""A ZeroGPU Space, as far as it can be tried without one: a stand-in for the package `spaces` that forks as it does."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# What the real one does to a function: another process, forked; arguments and result go through a pickle.
STAND_IN = """
import functools, multiprocessing, pickle

wrapped, ran = [], []

def GPU(function, *, duration):
    wrapped.append((function.__qualname__, type(function.__self__).__module__, duration))

    @functools.wraps(function)
    def lent(*arguments, **settings):
        ran.append(function.__qualname__)
        ours, theirs = multiprocessing.Pipe()
        given = pickle.dumps((arguments, settings))

        def work():
            given_arguments, given_settings = pickle.loads(given)
            try:
                theirs.send((True, function(*given_arguments, **given_settings)))
            except Exception as error:
                theirs.send((False, error))

        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        theirs.close()
        fine, answer = ours.recv()
        process.join()
        if not fine:
            raise answer
        return answer

    return lent
"""

CUDA = """
import sys, torch
torch.set_num_threads(1)  # a forked process has no other thread

def touched(*arguments):
    raise AssertionError("CUDA was touched outside of a lent GPU")

torch._C._cuda_init = torch.cuda._lazy_init = touched
"""


def run(code, folder, repository):
    """Runs code in a fresh interpreter with the stand-in on its path, and returns the JSON that it prints last."""
    (folder / "spaces").mkdir()
    (folder / "spaces" / "__init__.py").write_text(STAND_IN)
    path = os.pathsep.join([str(folder), str(repository)])
    environment = {**os.environ, "PYTHONPATH": path, "SPACES_ZERO_GPU": "true", "GRADIO_TEMP_DIR": str(folder / "up")}
    command = [sys.executable, "-c", CUDA + code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_what_runs_on_the_gpu_is_wrapped_and_nothing_touches_it_before(tmp_path, repository):
    code = """
import json, app, spaces
from studio.ui.app import TABS, build
build()
print(json.dumps([sorted(spaces.wrapped), torch.cuda.is_initialized()]))
"""
    wrapped, touched = run(code, tmp_path, repository)
    assert wrapped == [
        ["Runner.call", "studio.ui.edit", 60],
        ["Runner.call", "studio.ui.frontalize", 60],
        ["Runner.call", "studio.ui.generate", 60],
        ["Runner.call", "studio.ui.reenact", 120],
        ["Runner.call", "studio.ui.restore", 60],
        ["Runner.call", "studio.ui.restore_many", 120],
        ["Runner.call", "studio.ui.upsample", 60],
        ["Runner.find", "studio.ui.restore", 15],
    ]
    assert touched is False


def test_restore_choose_and_upsample_go_through_it(tmp_path, repository):
    """The results come back from the other process whole, and an error as itself."""
    code = """
import json, spaces
import gradio as gr
from pathlib import Path
from pipelines import upsample as pipelines_upsample
from studio import images
from studio.ui import restore, restore_many, upsample
from tests import tiny
from tests.ui.toy import ToyRestore

photo = str(images.save(images.load(tiny.image(40, 60)), "photo.png"))
face = str(images.save(tiny.image(12, 12), "face.png"))
toy = ToyRestore(tiny.tiny_net())
one, many = restore.Runner(lambda: toy), restore_many.Runner(lambda: toy)
nothing = lambda *given, **named: None
*_, (file, report, *_) = [
    (Path(page[0]).stat().st_size if page[0] else 0, page[1]) for page in one.restore(photo, progress=nothing)
]
*_, (archive, reports, *_) = many.restore_many([photo], progress=nothing)
found = one.look(photo, restore.preview(photo)[4])[3]
pipelines_upsample.FaceFinder = tiny.SureFinder
searched = tiny.upsample_pipeline()
*_, (shown, guesses, _) = upsample.Runner(lambda: searched).upsample(face, samples=2, steps=2, progress=nothing)
try:
    list(one.restore(photo, fidelity=3, progress=nothing))
    said = ""
except gr.Error as error:
    said = error.message
print(json.dumps({"ran": spaces.ran, "bytes": file, "status": report["status"], "many": reports[0]["status"],
    "boxes": found.boxes.tolist(), "shown": len(shown), "samples": len(guesses["samples"]), "said": said}))
"""
    found = run(code, tmp_path, repository)
    assert found["ran"] == ["Runner.call", "Runner.call", "Runner.find", "Runner.call", "Runner.call"]
    assert found["bytes"] > 0
    assert found["status"] == found["many"] == "restored"
    assert found["boxes"] == [[0, 0, 30, 40], [30, 0, 60, 40]]
    assert (found["shown"], found["samples"]) == (3, 2)
    assert "fidelity must be from 0 to 1" in found["said"]
