"""The benchmark of a second photograph on toy networks."""

import json

import pytest
import torch
from PIL import Image

from pipelines import restore
from pipelines.restore import RestorePipeline
from studio import images, weights
from studio.benchmarks import reference as bench
from studio.errors import InputError
from tests import tiny
from tests.benchmarks.test_restore import MEASURES, OneFace


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
    pipeline = tiny.restore_pipeline()
    monkeypatch.setattr(RestorePipeline, "from_pretrained", classmethod(lambda cls, name: pipeline))
    monkeypatch.setattr(restore, "FaceFinder", OneFace)
    monkeypatch.setattr(weights, "sha256", lambda name: "committed")
    monkeypatch.setattr(bench, "SMALLEST", 100.0)  # px; the toy faces are small
    for name, value in {"RATE": 0.5, "TEXTURE_RATE": 0.5, "NEAR": 0.0, "PLACE": 0.0}.items():  # toys are all alike
        monkeypatch.setattr(f"studio.latents.resemble.{name}", value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two genuine pairs, one of strangers, and one with a picture that shows nobody."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in (1, 2, 3, 4):
        images.save(images.load(tiny.photo(seed=seed)), folder / f"{seed}.png")
    Image.new("RGB", (64, 48), "black").save(folder / "wall.png")
    rows = ("1.png,2.png,1", "3.png,4.png,1", "1.png,3.png,0", "1.png,wall.png,1")
    (folder / "pairs.csv").write_text("a,b,same\n" + "\n".join(rows) + "\n")
    return folder


def run(photos, limit=0, sheet=None, recipes=("gfpgan",), say=lambda _: None):
    return bench.run(photos, recipes, 0, limit, 0.0, 4, 0, "restore", sheet, say)


def test_every_number_is_there(folder, tmp_path):
    report = run(folder, sheet=tmp_path / "sheet.png")
    assert (report["pairs"], report["steps"]) == (2, 4)
    assert report["original_to_reference"] > 0
    found = report["recipes"]["gfpgan"]
    assert list(found) == ["input", "alone", "guided", "stranger"]
    assert all(set(version) == MEASURES | {"to_reference"} for version in found.values())
    assert found["guided"] != found["alone"]
    assert report["provenance"]["weights"]["restore"] == "committed"
    json.dumps(report)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 5 * 200  # reference, damaged, alone, guided, original


def test_the_sharper_photo_is_the_original(folder):
    pipeline = RestorePipeline.from_pretrained("restore")
    large, small = tiny.photo(seed=1), tiny.photo(seed=2)
    sides = {"a.png": images.resize(large, 4 * large.shape[1], 4 * large.shape[2]), "b.png": small}
    for name, pixels in sides.items():
        images.save(images.load(pixels.clamp(0, 1)), folder / name)
    photos = folder / "sizes"
    photos.mkdir()
    (photos / "pairs.csv").write_text("a,b,same\n../b.png,../a.png,1\n../1.png,../2.png,1\n")
    with torch.no_grad():
        clean, faces, people, shown = bench.genuine_pairs(pipeline, photos, 0)
        assert (len(clean), len(faces), len(people), len(shown)) == (2, 2, 2, 2)
        wanted, side, _ = bench.largest_face(pipeline, folder / "a.png")
        other, _, person = bench.largest_face(pipeline, folder / "b.png")
    assert side > 2 * 100
    assert torch.equal(clean[:1], wanted)
    assert torch.equal(shown[:1], other)
    assert torch.equal(people[0], person)


def test_nothing_to_measure(folder):
    with pytest.raises(InputError, match="two pairs with a face"):
        run(folder, limit=1)
