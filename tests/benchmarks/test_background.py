"""The benchmark of the photo around the faces, with toy networks."""

import json

import torch

from studio import images, weights
from studio.benchmarks import background as bench
from studio.networks.rrdb import RRDBNet
from tests import tiny


def test_every_kind_and_method_is_measured(tmp_path, monkeypatch):
    with tiny.seeded():
        net = RRDBNet(width=4, growth=2, blocks=0).eval()
    monkeypatch.setattr(weights, "load", lambda _: net)
    monkeypatch.setattr(weights, "sha256", lambda _: "")
    monkeypatch.setattr(bench, "TIMED", 64)
    images.save(images.load(tiny.photo()), tmp_path / "a.png")
    images.save(images.load(tiny.photo(seed=1)), tmp_path / "b.png")
    said = []
    found = bench.run(tmp_path, 1, 2, 0, 0, tmp_path / "sheet.png", said.append)
    json.dumps(found)
    assert found["photos"] == 1
    assert list(found["kinds"]) == list(bench.KINDS)
    assert all(list(methods) == list(bench.METHODS) for methods in found["kinds"].values())
    worst = min(bench.KINDS, key=lambda kind: found["kinds"][kind]["lanczos"]["ssim"])
    assert worst == "halftone"
    assert found["cost"]["span"]["cpu_seconds_per_megapixel"] > 0
    assert said[-1] == "a.png: done"
    assert images.load(tmp_path / "sheet.png").height > len(bench.KINDS) * bench.SIDE


def test_the_middle_of_a_small_photo_is_enlarged():
    assert bench.middle(torch.rand(3, 100, 200), 384).shape == (3, 384, 384)
    assert torch.equal(
        bench.middle(torch.arange(3.0 * 8 * 6).reshape(3, 8, 6), 4)[0, 0], torch.tensor([13.0, 14, 15, 16])
    )
