"""The benchmark of likenesses on a toy pipeline."""

import json

import pytest
from PIL import Image

from pipelines import frontalize
from pipelines.frontalize import FrontalizePipeline
from studio import images
from studio.benchmarks import inversion as bench
from studio.errors import InputError
from tests import tiny


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
    built = tiny.frontalize_pipeline()
    monkeypatch.setattr(frontalize, "FaceFinder", tiny.SureFinder)
    monkeypatch.setattr(FrontalizePipeline, "from_pretrained", classmethod(lambda cls, name: built))
    monkeypatch.setattr(bench, "provenance", lambda names: {"weights": list(names)})


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    for seed in range(3):
        images.save(tiny.image(72, 80, seed=seed), folder / f"{seed}.png")
    Image.new("RGB", (64, 48), "black").save(folder / "wall.png")
    return folder


def run(folder, steps=1, limit=0, sheet=None, say=lambda _: None):
    return bench.run(folder, steps, limit, 0, "frontalize", sheet, say)


def test_report(folder, tmp_path):
    said = []
    report = run(folder, sheet=tmp_path / "new" / "sheet.png", say=said.append)
    assert (report["faces"], report["steps"], report["skipped"]) == (3, 1, ["wall.png"])
    assert len(said) == 3
    assert report["identity_distance"]["worst"] >= report["identity_distance"]["mean"] > 0
    assert 0 <= report["same"] <= 1
    assert report["psnr"] > 0 and report["seconds"] > 0
    json.dumps(report)
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.width > 5 * 192


def test_without_a_step_the_start_is_the_likeness(folder):
    report = run(folder, steps=0)
    assert report["start"] == report["identity_distance"]


def test_limit(folder):
    assert run(folder, limit=2)["faces"] == 1  # the first and the last, which is the wall


def test_a_folder_without_faces(tmp_path):
    Image.new("RGB", (64, 48), "black").save(tmp_path / "wall.png")
    with pytest.raises(InputError, match="must hold portraits"):
        run(tmp_path)
