"""The upsampling benchmark on a toy pipeline."""

import json
import math

import pytest
from PIL import Image

from pipelines import upsample
from pipelines.upsample import UpsamplePipeline
from studio import images
from studio.benchmarks import upsample as bench
from studio.errors import InputError
from tests import tiny


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
    pipeline = tiny.upsample_pipeline()
    monkeypatch.setattr(upsample, "FaceFinder", tiny.SureFinder)
    monkeypatch.setattr(UpsamplePipeline, "from_pretrained", classmethod(lambda cls, name: pipeline))
    monkeypatch.setattr(bench, "provenance", lambda names: {"weights": list(names)})


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "people"
    for seed in range(3):
        images.save(tiny.image(72, 80, seed=seed), folder / f"person{seed}.png")
    Image.new("RGB", (64, 48), "black").save(folder / "wall.png")
    return folder


def run(folder, size=12, samples=2, limit=0, sheet=None, move_map=True):
    return bench.run(folder, size, samples, 4, move_map, limit, 0, "upsample", sheet, lambda _: None)


def test_report(folder, tmp_path):
    report = run(folder, sheet=tmp_path / "new" / "sheet.png")
    assert (report["faces"], report["size"], report["samples"], report["steps"]) == (3, 12, 2, 4)
    assert 0 <= report["faces_found"] <= report["found"] <= report["any_found"] <= 1
    assert 0 <= report["face_found"] <= 1
    assert report["found"] <= report["converged"] <= 1
    assert report["drawn_error"]["mean"] > report["downscale_error"]["mean"]
    assert report["map_shift"]["worst"] >= report["map_shift"]["mean"] > 0
    assert report["face_error"]["worst"] >= report["face_error"]["mean"] > 0
    assert report["downscale_error"]["worst"] >= report["downscale_error"]["mean"] > 0
    assert report["nearest_to_original"] <= report["to_original"]
    assert all(math.isfinite(report[name]) for name in ("between_samples", "to_original", "seconds"))
    json.dumps(report)
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.width > 4 * 256
        assert sheet.height > 3 * 256


def test_latents_alone(folder):
    report = run(folder, limit=1, move_map=False)
    assert report["move_map"] is False
    assert report["map_shift"]["worst"] == 0


def test_one_sample_has_none_to_differ_from(folder):
    assert run(folder, samples=1, limit=1)["between_samples"] is None


def test_limit_spreads_over_the_folder(folder):
    assert run(folder, limit=2)["faces"] == 1  # the first and the last, which is the wall


def test_a_folder_without_faces(tmp_path):
    Image.new("RGB", (64, 48), "black").save(tmp_path / "wall.png")
    with pytest.raises(InputError, match="no face was found"):
        run(tmp_path)
