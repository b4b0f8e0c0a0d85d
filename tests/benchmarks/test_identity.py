"""The identity benchmark: the arithmetic, and the whole run on real photographs where they are."""

from __future__ import annotations

import json

import numpy as np
import pytest

from studio import images
from studio.benchmarks import identity
from studio.benchmarks.provenance import ROOT, provenance
from studio.errors import InputError
from tests import tiny
from tests.ui.toy import ToyComparer


def test_separation():
    distances = np.array([0.2, 0.5, 0.7, 0.55, 0.9, 1.0])
    scores = identity.separation(distances, np.array([1, 1, 1, 0, 0, 0], dtype=bool))
    assert scores["auc"] == pytest.approx(8 / 9)
    assert scores["best_accuracy"] == pytest.approx(5 / 6)
    assert scores["genuine"]["below_0_6"] == pytest.approx(2 / 3)
    assert scores["impostor"] == pytest.approx({"count": 3, "mean": 0.81666666, "std": 0.19293061, "below_0_6": 1 / 3})


def test_the_curve_counts_what_is_below():
    scores = identity.separation(np.array([0.25, 0.5, 0.7, 0.55]), np.array([1, 1, 0, 0], dtype=bool))
    rows = {row[0]: row[1:] for row in scores["curve"]}
    assert rows[0.2] == [0, 0] and rows[0.25] == [0.5, 0] and rows[0.5] == [1, 0] and rows[0.55] == [1, 0.5]


def test_sizes_with_pairs_of_one_kind_are_left_out():
    distances, same = np.array([0.2, 0.9, 0.3]), np.array([True, False, True])
    found = identity.by_size(distances, same, np.array([12.0, 14.0, 30.0]))
    assert [(row["from"], row["to"]) for row in found] == [(10, 15)]
    assert found[0]["scores"]["auc"] == 1


def test_shrunk_pairs(tmp_path):
    """One side of every pair at a fixed eye distance."""
    comparer, names = ToyComparer(), ["a.png", "b.png"]
    for seed, name in enumerate(names):
        images.save(images.load(tiny.photo(seed=seed)), tmp_path / name)
    pairs = [("a.png", "b.png", False), ("b.png", "b.png", True)]
    vectors = {name: identity.embed_largest(tmp_path / name, comparer.finder, comparer.encoder)[0] for name in names}
    rows = identity.shrunk_pairs(tmp_path, pairs, vectors, comparer.finder, comparer.encoder)
    assert [row["eyes"] for row in rows] == list(identity.SHRUNK)
    assert all(row["found"] == 1 and row["scores"]["genuine"]["count"] == 1 for row in rows)


def test_calibration_is_learned_from_other_people():
    """Distances drawn so that the true probability is known: 1 / (1 + exp(20 · distance - 10))."""
    rng = np.random.RandomState(0)
    distances = rng.uniform(0.1, 0.9, 4000)
    same = rng.uniform(size=4000) < 1 / (1 + np.exp(20 * distances - 10))
    names = [f"p{i}" for i in rng.randint(0, 2000, 4000)]
    pairs = [(a, a if one else f"q{i}") for i, (a, one) in enumerate(zip(names, same, strict=True))]
    found = identity.calibration(distances, same, pairs)
    odds = np.log(same.sum() / (~same).sum())
    assert found["slope"] == pytest.approx(-20, rel=0.1)
    assert found["intercept"] + odds == pytest.approx(10, rel=0.1)
    assert sum(row["count"] for row in found["reliability"]) == 4000
    for row in found["reliability"]:
        assert row["same"] == pytest.approx(row["probability"], abs=0.05)


def test_a_fold_is_fitted_without_its_people():
    """Person a's pairs lie the wrong way round; only a fit that has seen them would call them right."""
    distances = np.concatenate([np.linspace(0.1, 0.3, 30), np.linspace(0.7, 0.9, 30), [0.8, 0.85]])
    same = np.array([True] * 30 + [False] * 30 + [True] * 2)
    people = [(f"p{i}", f"p{i}") for i in range(30)] + [(f"q{i}", f"r{i}") for i in range(30)] + [("a", "a")] * 2
    found = identity.calibration(distances, same, people)
    assert found["accuracy"] == pytest.approx(60 / 62)


def test_who_is_on_a_photograph():
    assert identity.person("pairs/A000370_b.jpg") == "A000370"


def test_ties_count_half():
    assert identity.separation(np.array([0.5, 0.5]), np.array([True, False]))["auc"] == 0.5


def test_needs_both_kinds(tmp_path):
    with pytest.raises(InputError, match="genuine"):
        identity.separation(np.array([0.5]), np.array([True]))
    with pytest.raises(InputError, match=r"pairs\.csv"):
        identity.run(tmp_path)


def test_provenance_names_no_place():
    record = json.dumps(provenance())
    assert str(ROOT) not in record
    assert {"date", "commit", "python", "packages", "machine", "weights"} == set(json.loads(record))
