"""The benchmark of generated people, with toy networks and toy photographs."""

import pytest
import torch

from pipelines import generate as pipeline_module
from pipelines.generate import GeneratePipeline
from studio import images
from studio.benchmarks import generate
from studio.errors import InputError
from studio.identity import references
from studio.photosets import evenly
from tests import tiny


@pytest.fixture
def photos(tmp_path):
    lines = ["a,b,same,kind"]
    for person in range(3):
        for side in "ab":
            images.save(
                tiny.image(72, 80, seed=10 * person + (side == "b")), tmp_path / "pairs" / f"P{person}_{side}.png"
            )
        lines.append(f"pairs/P{person}_a.png,pairs/P{person}_b.png,1,genuine")
    lines.append("pairs/P0_a.png,pairs/P1_a.png,0,impostor_random")
    images.save(tiny.image(72, 80, seed=99), tmp_path / "portraits" / "other.png")
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
    monkeypatch.setattr(pipeline_module, "FaceFinder", tiny.SureFinder)
    monkeypatch.setattr(GeneratePipeline, "from_pretrained", classmethod(lambda cls, name: tiny.generate_pipeline()))
    monkeypatch.setattr(generate, "provenance", lambda names: {"weights": dict.fromkeys(names)})
    monkeypatch.setattr(generate, "CORRECTION", 1)
    monkeypatch.setattr(generate, "CORRECTIONS", (1,))
    correct = generate.correct
    monkeypatch.setattr(generate, "correct", lambda pipeline, w, person, steps=1: correct(pipeline, w, person, steps))
    monkeypatch.setattr(references, "LENGTHS", (0.1, 5.0))  # the toy encoder's vectors are shorter
    monkeypatch.setattr(generate, "ASKED", {"yaw": (0.0,), "age": (50.0,)})


def test_the_whole_run(photos):
    found = generate.run(photos, 2, 1, 3, 1, 1, 3, True, 0, 0, "generate", lambda _: None)
    assert found["people"] == 3
    assert found["with_another_photo"] == 2
    assert found["prior"]["to_given"]["count"] == 9
    assert found["prior"]["to_other"]["count"] == 6
    assert found["prior"]["found"] == 1
    assert found["corrected"]["people"] == 1
    assert found["corrected"]["to_given"]["mean"] > 0
    assert set(found["diversity"]) == {"generated", "real_pairs"}
    assert all(value > 0 for value in found["diversity"]["generated"].values())
    assert [row["asked"] for row in found["yaw"]] == [0]
    assert [row["asked"] for row in found["age"]] == [50]
    assert [row["guidance_scale"] for row in found["ablations"]["guidance"]] == list(generate.GUIDANCE)
    assert {row["solver"] for row in found["ablations"]["solver"]} == {"heun"}
    assert found["ablations"]["correction"][0]["steps"] == 1
    assert [row["candidates"] for row in found["ablations"]["candidates"]] == [1, 2, 4, 8]
    assert [row["reader_steps"] for row in found["ablations"]["reader"]] == [0, 3, 10]
    assert found["ablations"]["reader"][0]["to_given"] != found["ablations"]["reader"][2]["to_given"]
    assert [row["people"] for row in found["audit"]["thirds"]] == [1] * 15
    assert {row["direction"] for row in found["audit"]["edits"]} == {*generate.EDITED, "none"}
    assert any(row["edit"] > 0 for row in found["audit"]["edits"])
    assert set(found["seconds"]) == {"batch 1", "batch 8", "corrected 1", "corrected 4"}


def test_refuses(photos):
    with pytest.raises(InputError, match="samples"):
        generate.run(photos, 2, 0, 1, 1, 0, 0, False, 0, 0, "generate", lambda _: None)
    with pytest.raises(InputError, match="--people"):
        generate.run(photos, 0, 0, 2, 1, 0, 0, False, 0, 0, "generate", lambda _: None)


def test_differences_of_equal_pictures_are_none():
    pipeline = tiny.generate_pipeline()
    picture = torch.rand(1, 3, 64, 64)
    values = torch.rand(1, 9)
    same = generate.differences(pipeline, picture.repeat(3, 1, 1, 1), values.repeat(3, 1))
    assert same == {"pixels": 0, "pose": 0, "expression": 0}
    values = torch.tensor([[0.0, 0, 0, 0, 0, 0, 0, 0, 0], [3.0, 4, 0, 0, 0, 0, 9, 9, 9]])
    apart = generate.differences(pipeline, torch.stack([torch.zeros(3, 64, 64), torch.ones(3, 64, 64)]), values)
    assert apart == {"pixels": 1, "pose": 5, "expression": 0}


def test_spread_takes_both_ends():
    assert evenly(list(range(10)), 3) == [0, 4, 9]
    assert evenly([1, 2], 5) == [1, 2]
    assert evenly([1, 2], 0) == []
