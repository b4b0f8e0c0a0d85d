"""The album benchmark: who is who, the arithmetic, and the choice of a threshold."""

import numpy as np
import pytest
import torch

from studio import images
from studio.benchmarks import album as bench
from studio.errors import InputError
from studio.identity.album import AlbumMaker
from tests import tiny
from tests.ui.toy import ToyAlbum


def test_who_is_who():
    names, people = bench.who_is_who([("b", "c", True), ("a", "b", True), ("x", "y", True), ("a", "x", False)])
    assert names == ["a", "b", "c", "x", "y"]
    assert people[0] == people[1] == people[2] != people[3] == people[4]
    with pytest.raises(InputError, match="two people"):
        bench.who_is_who([("a", "b", True), ("a", "x", False)])


def test_agreement():
    """Two people of two and three faces; one face is in the wrong group."""
    found = bench.agreement(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 1]))
    assert found["precision"] == pytest.approx(2 / 4)  # pairs in one group: 3 + 1, of one person: 1 + 1
    assert found["recall"] == pytest.approx(2 / 4)
    assert found["b_cubed_precision"] == pytest.approx((2 / 3 + 2 / 3 + 1 / 3 + 1 + 1) / 5)
    assert found["b_cubed_recall"] == pytest.approx((1 + 1 + 1 / 3 + 2 / 3 + 2 / 3) / 5)
    alone = bench.agreement(np.arange(3), np.arange(3))
    assert alone == dict.fromkeys(alone, 1.0)


def test_scores_group_by_distance():
    vectors = torch.tensor([[0.0], [0.3], [5.0], [5.4], [9.0]])
    found = bench.scores(vectors, np.array([0, 0, 1, 1, 2]), 0.5)
    assert (found["groups"], found["precision"], found["recall"], found["b_cubed_f"]) == (3, 1, 1, 1)
    assert bench.scores(vectors, np.array([0, 0, 1, 1, 2]), 0.35)["recall"] == 0.5


def test_the_threshold_is_chosen_on_half_of_the_people():
    """Those it is chosen on lie 0.32 apart, the others 0.5: what is best for the first is too little for the second."""
    vectors = torch.tensor([[0.0], [0.32], [10.0], [10.5], [20.0], [20.32], [30.0], [30.5]])
    threshold, seen, unseen = bench.halves(vectors, np.array([0, 0, 1, 1, 2, 2, 3, 3]))
    assert 0.32 <= threshold < 0.5
    assert (seen["recall"], unseen["recall"]) == (1, 0)


def test_run(tmp_path, monkeypatch):
    monkeypatch.setattr(AlbumMaker, "from_pretrained", classmethod(lambda cls: ToyAlbum()))
    monkeypatch.setattr(bench, "provenance", lambda names: {"weights": list(names)})
    for name, seed in (("a1", 0), ("a2", 0), ("b1", 1), ("b2", 1)):
        images.save(images.load(tiny.sharp_photo(seed=seed)), tmp_path / f"{name}.png")
    (tmp_path / "pairs.csv").write_text("a,b,same,kind\na1.png,a2.png,1,\nb1.png,b2.png,1,\na1.png,b1.png,0,\n")
    found = bench.run(tmp_path)
    assert (found["people"], found["photos"], found["missing"], found["set_aside"]) == (2, 4, [], {})
    assert found["scores"]["recall"] == 1
    assert [row["threshold"] for row in found["sweep"]] == list(bench.SWEEP)
    with pytest.raises(InputError, match=r"pairs\.csv"):
        bench.run(tmp_path / "none")
