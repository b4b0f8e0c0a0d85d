"""The benchmark of edits on toy networks."""

import json

import pytest
from PIL import Image

from pipelines import edit
from pipelines.edit import EditPipeline
from studio import images
from studio.benchmarks import edit as bench
from studio.errors import InputError, StudioError
from tests import tiny


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
    built = tiny.edit_pipeline()
    monkeypatch.setattr(edit, "FaceFinder", tiny.SureFinder)
    monkeypatch.setattr(EditPipeline, "from_pretrained", classmethod(lambda cls, name: built))
    monkeypatch.setattr(bench, "provenance", lambda names: {"weights": list(names)})
    monkeypatch.setattr(bench, "CHANGES", {name: bench.CHANGES[name] for name in ("smile +1", "older")})
    prepare, likeness = EditPipeline.prepare, EditPipeline.likeness
    monkeypatch.setattr(EditPipeline, "prepare", lambda *given, face: prepare(*given, face=face, num_inference_steps=1))
    monkeypatch.setattr(EditPipeline, "likeness", lambda self, one: likeness(self, one, 1))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    for seed in range(2):
        images.save(tiny.image(72, 80, seed=seed), folder / f"{seed}.png")
    Image.new("RGB", (64, 48), "black").save(folder / "wall.png")
    return folder


def test_report(folder, tmp_path):
    said = []
    report = bench.run(folder, 0, True, 0, tmp_path / "new" / "sheet.png", said.append)
    assert (report["faces"], report["skipped"], len(said)) == (2, ["wall.png"], 2)
    assert report["reading"]["identity_distance"]["worst"] >= report["reading"]["identity_distance"]["mean"] > 0
    for way in ("in_photo", "in_likeness"):
        assert set(report[way]["changes"]) == {"smile +1", "older"}
        assert report[way]["failed"] == 0 and report[way]["edit_seconds"] > 0
        assert 0 <= report[way]["same"] <= 1
    assert report["in_photo"]["identity_distance"] < report["in_likeness"]["identity_distance"]
    json.dumps(report)
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.width > 3 * 190


def test_an_edit_that_leaves_no_face_is_counted(folder, monkeypatch):
    change = EditPipeline.edit

    def fall(self, sitter, changes):
        if "smile" in changes:
            raise StudioError("the edit must stay a face")
        return change(self, sitter, changes)

    monkeypatch.setattr(EditPipeline, "edit", fall)
    report = bench.run(folder, 0, False, 0, None, lambda _: None)
    assert report["in_photo"]["failed"] == 2
    assert set(report["in_photo"]["changes"]) == {"older"}
    assert "in_likeness" not in report


def test_a_folder_without_faces(tmp_path):
    Image.new("RGB", (64, 48), "black").save(tmp_path / "wall.png")
    with pytest.raises(InputError, match="must hold portraits"):
        bench.run(tmp_path, 0, False, 0, None, lambda _: None)
