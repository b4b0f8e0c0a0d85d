"""The restoration benchmarks on toy networks: every promised number is there and finite."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines import restore
from pipelines.restore import RestorePipeline
from studio import images, weights
from studio.benchmarks import old, speed
from studio.benchmarks import restore as bench
from studio.errors import InputError
from studio.faces.faces import Faces
from studio.networks.generator import Modulation
from studio.networks.restorer import START_BLOCK, draw_prior
from studio.photosets import held_out
from tests import tiny
from tests.faces.synthetic import faces_of, head

MEASURES = {
    "psnr",
    "ssim",
    "identity_distance",
    "identity_to_input",
    "landmark_error",
    "landmark_error_found",
    "sharpness",
    "sharpness_inside",
    "niqe",
    "blockiness",
    "overshoot",
    "weave",
    "edge_noise",
    "edge_sharpness",
    "lab_difference",
    "iris_error",
    "iris_mismatch",
    "colour_shift",
    "found",
}


class OneFace(tiny.TwoFaces):
    """In a photo, or in one four times as large; or in the middle of a crop, which the benchmark looks at too."""

    meshes = (head((88, 92), height=110),)

    def __call__(self, image):
        if image.shape[1:] == (restore.CROP, restore.CROP):
            return faces_of(head((256, 300), height=380))
        if image.shape[2] == 4 * tiny.photo().shape[2]:
            return faces_of(head((352, 368), height=440))
        return super().__call__(image)


@pytest.fixture(scope="module")
def pipeline():
    return tiny.restore_pipeline()


@pytest.fixture(autouse=True)
def _toys(monkeypatch, pipeline):
    monkeypatch.setattr(RestorePipeline, "from_pretrained", classmethod(lambda cls, name: pipeline))
    monkeypatch.setattr(restore, "FaceFinder", OneFace)
    monkeypatch.setattr(weights, "sha256", lambda name: "committed")
    monkeypatch.setattr(weights, "path", lambda name: name)
    monkeypatch.setattr(bench.IrisNet, "from_pretrained", classmethod(lambda cls, folder: tiny.iris_net()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two portraits and a picture without a face."""
    folder = tmp_path_factory.mktemp("portraits")
    for seed in (1, 2):
        images.save(images.load(tiny.photo(seed=seed)), folder / f"person{seed}.png")
    Image.new("RGB", (64, 48), "gray").save(folder / "wall.png")
    return folder


def run(
    folder,
    recipes=("gfpgan",),
    limit=0,
    fidelities=(0.0, 1.0),
    sheet=None,
    seed=3,
    unseen=False,
    net=None,
    find=False,
    cases=None,
    seeds=1,
):
    settings = "restore", sheet, unseen, (), net, find, 4, cases, seeds, lambda _: None
    return bench.run(folder, recipes, seed, limit, fidelities, *settings)


def test_only_faces_that_no_training_sees(tmp_path, folder):
    for name in ("portraits", "aligned_clean"):
        (tmp_path / name).mkdir()
    (tmp_path / "portraits" / "person1_1.png").touch()
    for name in ("person1", "person2"):
        data = (folder / f"{name}.png").read_bytes()
        (tmp_path / "aligned_clean" / f"{name}.png").write_bytes(data)
    names = held_out(tmp_path)
    assert "person1" in names and "person2" not in names
    report = run(tmp_path / "aligned_clean", ("none",), unseen=True)
    assert (report["faces"], report["set"]) == (1, "aligned_clean, unseen by training")


def test_damaged_faces_may_be_given(folder, tmp_path):
    cases = tmp_path / "websites"
    cases.mkdir()
    for seed in (1, 2):
        pixels = images.resize(tiny.photo(seed=seed)[None], 512, 512)
        images.save(images.load(pixels[0]), cases / f"{seed}.png")
        images.save(images.load(images.resize(images.resize(pixels, 64, 64), 512, 512)[0]), cases / f"{seed}-small.png")
    (cases / "cases.csv").write_text("damaged,original\n1-small.png,1.png\n2-small.png,2.png\n")
    report = run(folder, ("none",), limit=1, fidelities=(0.5,), cases=cases)
    assert list(report["recipes"]) == ["none", "websites"]
    assert report["recipes"]["websites"]["input"]["psnr"] < 60 < report["recipes"]["none"]["input"]["psnr"]


def test_damaged_portraits(folder, tmp_path):
    report = run(folder, ("gfpgan", "none"), sheet=tmp_path / "new" / "sheet.png")
    assert report["faces"] == 2
    assert report["set"] == folder.name
    assert set(report["recipes"]) == {"gfpgan", "none"}
    for versions in report["recipes"].values():
        assert list(versions) == ["original", "input", "fidelity 0", "fidelity 1"]
        assert set(versions["input"]) == MEASURES
        assert all(set(versions[name]) == MEASURES | {"nearer"} for name in ("fidelity 0", "fidelity 1"))
        assert set(versions["original"]) < MEASURES
    numbers = [v for found in report["recipes"]["gfpgan"].values() for v in found.values()]
    assert all(math.isfinite(value) for value in numbers)
    untouched = report["recipes"]["none"]["input"]
    assert untouched["identity_distance"] == untouched["landmark_error"] == untouched["landmark_error_found"] == 0
    assert report["recipes"]["none"]["input"]["ssim"] == pytest.approx(1)
    assert "took part in training" in report["note"]
    assert report["recipes"]["gfpgan"]["input"]["colour_shift"] == 0
    assert report["recipes"]["gfpgan"]["input"]["identity_to_input"] == 0
    json.dumps(report)
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.width > 4 * 256  # original, input, two settings


def test_seeds_are_compared(folder, pipeline, monkeypatch):
    drawn = []

    def distances(crops, others, *where):
        drawn.append((crops, others))
        return np.full(len(crops), 0.25)

    monkeypatch.setattr(pipeline, "distances", distances)
    damaged = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    first = pipeline(damaged[0], fidelity=0.0, output_type="pt").images[0][None]
    found = bench.apart(pipeline, faces_of(head((256, 300), height=380)), damaged, first, 0.0, 4, 3)
    assert found["seeds_apart"] == 0.25
    assert math.isfinite(found["seeds_niqe"])
    one, other = (crops for crops, usual in drawn if usual is first)
    assert not torch.equal(one, other)
    assert not torch.equal(one, first)


def test_the_damage_is_the_seed_and_nothing_else(folder):
    first, again, other = (run(folder, fidelities=(1.0,), limit=1, seed=seed) for seed in (3, 3, 4))
    assert first["recipes"] == again["recipes"]
    assert first["recipes"]["gfpgan"]["input"] != other["recipes"]["gfpgan"]["input"]


def test_another_restorer_is_measured_and_named_by_its_hash(folder, tmp_path, monkeypatch, pipeline):
    monkeypatch.setattr(RestorePipeline, "from_pretrained", classmethod(lambda cls, name: copy.copy(pipeline)))
    other = tiny.restorer()
    other.features_std.fill_(20.0)
    other.save_pretrained(tmp_path / "other")
    own, others = (run(folder, fidelities=(0.0,), limit=1, net=net) for net in (None, tmp_path / "other"))
    assert own["recipes"]["gfpgan"]["input"] == others["recipes"]["gfpgan"]["input"]
    assert own["recipes"]["gfpgan"]["fidelity 0"] != others["recipes"]["gfpgan"]["fidelity 0"]
    assert own["provenance"]["weights"]["restore"] == "committed"
    hashed = weights.sha256_of(tmp_path / "other" / weights.TENSORS)
    assert others["provenance"]["weights"] == own["provenance"]["weights"] | {"restore": hashed}


def test_limit(folder):
    assert run(folder, limit=1, fidelities=(1.0,))["faces"] == 1


def test_a_folder_without_faces(tmp_path):
    Image.new("RGB", (64, 48), "gray").save(tmp_path / "wall.png")
    with pytest.raises(InputError, match="no face was found"):
        run(tmp_path)


@pytest.mark.parametrize("part", bench.PARTS)
def test_a_part_that_is_left_out_has_no_effect(part):
    """Whatever a part does, without it the faces are those of a restorer in which it does nothing."""
    sizes = {"spatial_channels": (8, 8), "fine_channels": 8, "style_slots": 9, "atoms": 3}
    x, generator, head = torch.rand(1, 3, 256, 256), tiny.generator(), tiny.image_head(start=6)
    idle, busy = tiny.restorer(**sizes), tiny.restorer(**sizes)
    for net in (idle, busy):
        net.features_std.fill_(20.0)  # a map that varies
    for module in (*generator.modules(), *head.modules()):
        if isinstance(module, Modulation):  # and passes through
            torch.nn.init.constant_(module.linear.bias, 1 / module.scale)
    layers = {
        "dictionary": busy.dictionary.confidence[0][-1],
        "spatial": busy.to_spatial[0],
        "fine": busy.to_fine[-1],
        "styles": busy.to_styles[1],
    }
    torch.nn.init.constant_(layers[part].bias, 0.5)

    def draw(net):
        if net.dictionary:
            net.dictionary.latents.normal_(generator=torch.Generator().manual_seed(0))
            net.dictionary.draw(generator, START_BLOCK)
        with torch.no_grad():
            return draw_prior(generator, head, net(x), net.dictionary)

    assert (draw(busy) - draw(idle)).abs().max() > 1e-3
    bench.leave_out(busy, part)
    torch.testing.assert_close(draw(busy), draw(idle), atol=1e-6, rtol=1e-5)
    with pytest.raises(InputError, match=f"this one has no {part}"):
        bench.leave_out(busy, part)


def test_an_unknown_part_cannot_be_left_out():
    with pytest.raises(InputError, match="without must be one of dictionary, spatial, fine, styles"):
        bench.leave_out(tiny.restorer(), "generator")


def test_unknown_recipe(folder):
    with pytest.raises(InputError, match="recipe"):
        run(folder, ("moth",))


def test_faces_that_are_not_found_again_are_counted(pipeline, monkeypatch):
    """The error over the found ones is then nan, and the share found says why."""
    crops = tiny.image(512, 512)[None]
    faces = faces_of(head((256, 300), height=380))
    monkeypatch.setattr(OneFace, "__call__", lambda self, image: Faces.empty())
    with torch.inference_mode():
        placed = bench.place_meshes(pipeline, crops, faces)
        known = (crops, faces, placed, torch.ones(len(crops), 1, 8, 8), bench.place_irises(crops, placed))
        found, each = bench.measure(pipeline, *known, crops, crops)
    assert each.shape == (2, len(crops))
    assert found["found"] == 0
    assert math.isnan(found["landmark_error_found"])


def test_old_photographs(folder, tmp_path):
    report = old.run(folder, 0.5, "auto", 0, "restore", tmp_path / "new" / "sheet.png", lambda _: None)
    assert (report["photos"], report["faces"], report["found_again"]) == (3, 2, 1)
    assert report["skipped"] == ["wall.png: no face was found"]
    assert report["photos_by_scale"] == {1: 1, 4: 2}
    assert all(math.isfinite(report[name]) for name in ("identity_distance", "sharpness_gain"))
    assert report["sharpness_gain"] > 0
    assert sum(kind["faces"] for kind in report["by_sharpness"].values()) == report["faces"]
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.width > 8 * 256  # two photos: input, three settings


def test_sharpness_is_told_apart_by_how_sharp_the_photo_was():
    found = old.sharpness_gains(np.array([[0.005, 0.02], [0.005, 0.01], [0.1, 0.025]]))
    assert found["by_sharpness"]["blurred"] == {"faces": 2, "before": 0.005, "gain": 3.0}
    assert found["by_sharpness"]["grainy"] == {"faces": 1, "before": 0.1, "gain": 0.25}
    assert "sharp" not in found["by_sharpness"]
    assert found["sharpness_gain"] == pytest.approx(6.25 / 3, abs=1e-4)


def test_speed(monkeypatch):
    monkeypatch.setattr(speed, "BATCHES", (2,))
    monkeypatch.setattr(restore, "FaceFinder", tiny.TwoFaces)
    report = speed.run(0, 1, ["restore"])
    assert report["batch 2"]["faces"] == 2
    assert set(report["batch 2"]["steps"]) == {"find", "crop", "read", "join", "guard", "paste"}
    assert report["batch 2"]["seconds_per_face"] > 0
    assert report["peak_memory_mb"] > 50
    assert report["threads"] == torch.get_num_threads()


@pytest.mark.parametrize(
    ("box", "found"),
    [
        ((10, 10, 20, 20), True),
        ((0, 0, 40, 40), True),  # the smaller one counts
        ((15, 10, 25, 20), False),  # exactly half is not enough
        ((14, 10, 24, 20), True),
        ((30, 30, 40, 40), False),
        ((20, 10, 30, 20), False),
    ],
)
def test_is_found(box, found):
    mine = np.array([10, 10, 20, 20], np.float32)
    others = np.array([(100, 100, 110, 110), box], np.float32)
    assert old.is_found(mine, others) is found
    assert not old.is_found(mine, np.zeros((0, 4), np.float32))
