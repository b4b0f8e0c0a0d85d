"""The public names, where they come from, and what importing them costs."""

import importlib.metadata
import json
import subprocess
import sys
import tomllib

import pytest

import studio

# Others write these names in their scripts: taking one away or moving its meaning is a change for the changelog.
NAMES = [
    "Arc2FaceOutput",
    "Arc2FacePipeline",
    "ArcFaceNet",
    "Cleaner",
    "CodeFormer",
    "CredentialsError",
    "DepthNet",
    "EditOutput",
    "EditPipeline",
    "FaceDetector",
    "FaceFinder",
    "FaceMesh",
    "Faces",
    "FinderNet",
    "FrontalizeOutput",
    "FrontalizePipeline",
    "Frontalizer",
    "GFPGAN",
    "GenerateOutput",
    "GeneratePipeline",
    "Generator",
    "HeadParts",
    "IdentityEncoder",
    "IdentityNet",
    "ImageError",
    "ImageHead",
    "InputError",
    "IrisNet",
    "LatentEncoder",
    "LatentFlow",
    "LatentReader",
    "LatentSpace",
    "LivePortraitAppearance",
    "LivePortraitGenerator",
    "LivePortraitMotion",
    "LivePortraitRetargeting",
    "LivePortraitWarping",
    "MapFlow",
    "MissingWeightsError",
    "NoFaceError",
    "Photo",
    "RRDBNet",
    "ReenactOutput",
    "ReenactPipeline",
    "Reenactor",
    "RestoreFormer",
    "RestoreOutput",
    "RestorePipeline",
    "Restorer",
    "SPAN",
    "StudioError",
    "UpsampleOutput",
    "UpsamplePipeline",
    "Upsampler",
    "WeightsError",
    "__version__",
    "compare_faces",
]


def run(code, repository):
    """Runs code in a fresh interpreter and returns the JSON it prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_names():
    assert sorted(studio.__all__) == NAMES
    assert dir(studio) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_name_resolves(name):
    value = getattr(studio, name)
    if name != "__version__":
        assert value.__name__ == name
        assert value.__doc__


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'Restored'"):
        studio.Restored  # noqa: B018 - the access is the test


def test_diffusers_finds_the_base_classes_of_components():
    import diffusers

    assert studio.ModelMixin is diffusers.ModelMixin
    assert studio.SchedulerMixin is diffusers.SchedulerMixin
    assert "ModelMixin" not in dir(studio)


@pytest.mark.alone
def test_import_is_light(repository):
    code = """
import json, sys, time
start = time.perf_counter()
import studio, studio.errors
seconds = time.perf_counter() - start
heavy = [name for name in ("torch", "numpy", "PIL", "diffusers", "transformers", "gradio") if name in sys.modules]
print(json.dumps([seconds, heavy]))
"""
    seconds, heavy = run(code, repository)
    assert heavy == []
    assert seconds < 0.1  # about 2 ms; the rest is for a busy machine


@pytest.mark.slow
@pytest.mark.parametrize("module", ["pipelines.restore", "studio.base"])
def test_any_module_can_be_the_first_import(module, repository):
    run(f"import {module}; print(1)", repository)


def test_command_line_starts_light(repository):
    assert run("import json, sys, studio.cli; print(json.dumps('torch' in sys.modules))", repository) is False


def test_version_is_the_one_installed():
    try:
        installed = importlib.metadata.version("face-studio")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("runs from the source tree, not installed: make setup-dev")
    assert studio.__version__ == installed


def test_constraints_pin_every_direct_dependency(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        wanted += extra
    lines = (repository / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].replace("_", "-").lower() for line in lines if "==" in line}
    names = {text.split(">")[0].split("<")[0].split("=")[0].strip().lower() for text in wanted}
    # pip is the tool that reads the constraints; pinning it would make it replace itself half-way.
    assert names - {"pip"} <= pinned
    assert not [line for line in lines if "/" in line.split("#")[0] or "@" in line.split("#")[0]]
