"""The turning benchmark on a toy pipeline."""

import copy
import json

import pytest
import torch
from PIL import Image

from pipelines import frontalize
from pipelines.frontalize import FrontalizePipeline
from studio import images, weights
from studio.benchmarks import frontalize as bench
from studio.errors import InputError
from tests import tiny


@pytest.fixture(autouse=True)
def pipeline(monkeypatch):
    built = tiny.frontalize_pipeline()
    monkeypatch.setattr(frontalize, "FaceFinder", tiny.SureFinder)
    monkeypatch.setattr(FrontalizePipeline, "from_pretrained", classmethod(lambda cls, name: built))
    monkeypatch.setattr(weights, "sha256", lambda name: "committed")
    monkeypatch.setattr(bench, "HOLD_STEPS", 1)
    return built


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    for seed in range(3):
        images.save(tiny.image(72, 80, seed=seed), folder / f"{seed}.png")
    Image.new("RGB", (64, 48), "black").save(folder / "wall.png")
    (folder / "pairs.csv").write_text("a,b,same,kind\n0.png,1.png,1,x\n0.png,2.png,0,x\n1.png,wall.png,1,x\n")
    return folder


NETWORK = ("network",)


def run(
    photos=None,
    people=0,
    limit=0,
    min_yaw=0.0,
    profiles=0,
    pairs=True,
    methods=NETWORK,
    sheet=None,
    say=lambda _: None,
    frontalizer=None,
    steps=1,
):
    about = (photos, people, pairs, limit, min_yaw, profiles, 0, list(methods), steps, 1, 0, "frontalize", sheet, sheet)
    return bench.run(*about, say, frontalizer)


def test_generated_people(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "OFF", 1000.0)  # a toy head turns nowhere in particular
    monkeypatch.setattr(frontalize, "SIDE", 1000.0)
    started, likeness = [], FrontalizePipeline.likeness
    monkeypatch.setattr(
        FrontalizePipeline, "likeness", lambda *given: started.append(given[-1] is None) or likeness(*given)
    )
    report = run(people=1, methods=("network", "search"), sheet=tmp_path / "new" / "sheet.png")
    assert report["pairs"] is report["half_profiles"] is None
    assert list(report["generated"]) == ["network", "search"]
    network, searched = report["generated"].values()
    assert [row["angle"] for row in network] == [15, 30, 45, 60]
    assert started == 4 * [False, True]  # from the network's front, and from a regression
    for one, other in zip(network, searched, strict=True):  # the same sides
        assert one["input_distance"] == other["input_distance"]
    for row in network:
        assert (row["sides"], row["refused"]) == (1, 0)
        assert row["residual_yaw"]["worst"] >= row["residual_yaw"]["mean"] >= 0
        assert row["to_front"]["mean"] > 0
        assert row["to_front"]["same"] in (0, 1)
    json.dumps(report)
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.width > 13 * 150


def test_another_network_is_measured(folder, tmp_path, pipeline, monkeypatch):
    monkeypatch.setattr(FrontalizePipeline, "from_pretrained", classmethod(lambda cls, name: copy.copy(pipeline)))
    other = tiny.frontalizer()
    other.mean.fill_(1.0)
    other.save_pretrained(tmp_path / "other")
    own, others = (run(folder, frontalizer=net) for net in (None, tmp_path / "other"))
    assert own["pairs"]["network"]["before"] == others["pairs"]["network"]["before"]
    assert own["pairs"]["network"] != others["pairs"]["network"]
    assert own["provenance"]["weights"]["frontal"] == "committed"
    hashed = weights.sha256_of(tmp_path / "other" / weights.TENSORS)
    assert others["provenance"]["weights"] == own["provenance"]["weights"] | {"frontal": hashed}


def test_sides_that_miss_their_angle_are_left_out(monkeypatch):
    monkeypatch.setattr(bench, "OFF", -1.0)
    said = []
    report = run(people=1, say=said.append)
    assert [row["sides"] for row in report["generated"]["network"]] == [0] * 4
    assert sum("left out" in line for line in said) == 4


def test_real_pairs_before_and_after(folder):
    report = run(folder)["pairs"]["network"]
    assert (report["photos"], report["pairs"], report["refused"]) == (3, 2, {})
    assert report["before"]["genuine"]["count"] == report["after"]["genuine"]["count"] == 1
    assert report["before"]["genuine"]["mean"] != report["after"]["genuine"]["mean"]
    assert "curve" not in report["before"]


def test_only_what_is_turned_far_enough_counts(folder):
    report = run(folder, min_yaw=89.9)["pairs"]["network"]
    assert (report["photos"], report["pairs"], report["before"], report["residual_yaw"]) == (0, 0, None, None)


def test_a_refused_photo_stays_as_it_is(folder, pipeline, monkeypatch):
    def refuse(self, subject, *given):
        raise InputError("no")

    monkeypatch.setattr(FrontalizePipeline, "turn", refuse)
    report = run(folder, limit=1)["pairs"]["network"]
    assert list(report["refused"].values()) == ["no"]
    assert report["before"] == report["after"]


def test_half_profiles_are_chosen_by_the_manifest(folder, tmp_path):
    with pytest.raises(InputError, match=r"manifest\.csv"):
        run(folder, profiles=2, min_yaw=89.9)
    rows = [f"aligned_old,{i}.jpg,{yaw}" for i, yaw in enumerate((0, 30, -40, 55, 25))]
    (folder / "manifest.csv").write_text("\n".join(["set,file,yaw_deg", *rows, "old,9.jpg,30", "aligned_old,8.jpg,"]))
    (folder / "aligned_old").mkdir()
    for i in range(5):
        images.save(tiny.image(72, 80, seed=i), folder / "aligned_old" / f"{i}.jpg")
    assert [path.name for path in bench.half_profiles(folder, 9)] == ["1.jpg", "2.jpg", "4.jpg"]
    report = run(folder, profiles=2, pairs=False, methods=("network", "search"), sheet=tmp_path / "old.png")
    assert report["pairs"] is None
    report, searched = report["half_profiles"].values()
    assert searched["yaw_before"] == report["yaw_before"]
    assert searched["to_input"] != report["to_input"]
    assert report["seconds"] > 0
    assert (report["asked"], report["photos"], report["refused"]) == (2, 2, {})
    assert report["yaw_before"] == {"mean": 0.0, "worst": 0.0}  # what the toy finder sees
    assert report["residual_yaw"]["worst"] >= report["residual_yaw"]["mean"] > 0
    assert report["same"] in (0, 0.5, 1)
    assert (tmp_path / "old.png").is_file()


def test_the_same_seed_gives_the_same_person(pipeline):
    first, again, other = (bench.sample(pipeline, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_nothing_to_measure():
    with pytest.raises(InputError, match="something to turn"):
        run()
    with pytest.raises(InputError, match=r"method must be one of.*luck"):
        run(people=1, methods=("luck",))
    with pytest.raises(InputError, match="num_inference_steps must be a whole number of 1 or more, got 0"):
        run(people=1, methods=("search",), steps=0)
