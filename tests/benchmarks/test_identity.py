"""The identity benchmark: the arithmetic, and the whole run on real photographs where they are."""

from __future__ import annotations

import json

import numpy as np
import pytest

from studio.benchmarks import identity
from studio.benchmarks.provenance import ROOT, provenance
from studio.errors import InputError


def test_separation():
    distances = np.array([0.2, 0.5, 0.7, 0.55, 0.9, 1.0])
    scores = identity.separation(distances, np.array([1, 1, 1, 0, 0, 0], dtype=bool))
    assert scores["auc"] == pytest.approx(8 / 9)
    assert scores["best_accuracy"] == pytest.approx(5 / 6)
    assert scores["genuine"]["below_0_6"] == pytest.approx(2 / 3)
    assert scores["impostor"] == pytest.approx({"count": 3, "mean": 0.81666666, "std": 0.19293061, "below_0_6": 1 / 3})


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
