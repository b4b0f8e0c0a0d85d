"""Two photographs compared: the verdict follows the measured rates, and small faces are not judged."""

import numpy as np
import pytest
import torch

from studio.benchmarks.provenance import FINDER
from studio.errors import ImageError, InputError, NoFaceError
from studio.identity import compare
from studio.identity.compare import DIFFERENT, SAME, TOO_POOR, UNSURE
from tests import tiny
from tests.ui.toy import ToyComparer


@pytest.fixture(scope="module")
def comparer():
    return ToyComparer()


def test_compares_the_largest_faces(comparer):
    first, second = tiny.photo(), tiny.photo(seed=1)
    found = comparer(first, second)
    assert found.crops.shape == (2, 3, 256, 256)
    assert found.face_counts == (2, 2)
    assert found.distance > 0
    assert comparer(second, first).distance == pytest.approx(found.distance, abs=1e-6)
    with torch.inference_mode():
        faces = comparer.finder(first)
        vectors = [comparer.encoder.embed(photo, faces.mesh[:1]) for photo in (first, second)]
    assert found.distance == pytest.approx(float((vectors[0] - vectors[1]).norm()), abs=1e-5)
    assert found.to_dict()["sentence"] == found.sentence


def test_refuses(comparer, tmp_path):
    with pytest.raises(NoFaceError, match="shows none"):
        comparer(tiny.photo(), torch.full((3, 64, 64), 0.5))
    with pytest.raises(ImageError, match="existing photo file"):
        comparer(tiny.photo(), tmp_path / "gone.png")
    with pytest.raises(InputError, match="at least 0"):
        compare.judge(-1.0, 50)


def test_verdicts_follow_the_measurement():
    large = 10 * compare.SMALLEST_EYE_DISTANCE
    assert compare.judge(0.1, large) == SAME
    assert compare.judge(1.0, large) == DIFFERENT
    for apart in np.linspace(0, 1.4, 57):
        farther, nearer = compare.error_rates(apart)
        verdict = compare.judge(apart, large)
        assert 0 <= farther <= 1 and 0 <= nearer <= 1
        assert (nearer <= compare.RARE) == (verdict == SAME)
        assert verdict != DIFFERENT or farther <= compare.RARE
        assert compare.judge(apart, compare.SMALLEST_EYE_DISTANCE - 1) == TOO_POOR
    assert {compare.judge(apart, large) for apart in np.linspace(0, 1.4, 281)} >= {SAME, DIFFERENT}
    assert UNSURE not in (SAME, DIFFERENT)


def test_the_probability_falls_with_the_distance_and_was_checked():
    chances = [compare.same_probability(apart) for apart in np.linspace(0, 1.4, 57)]
    assert (np.diff(chances) < 0).all()
    assert chances[0] > 0.98
    assert chances[-1] < 0.02
    middle = compare.figures()["scores"]["best_threshold"]
    assert compare.same_probability(middle) == pytest.approx(0.5, abs=0.3)
    fitted = compare.figures()["calibration"]
    assert fitted["folds"] == 10
    assert fitted["accuracy"] > 0.95
    assert sum(row["count"] for row in fitted["reliability"]) == 432


def test_too_poor_has_no_probability(comparer, monkeypatch):
    found = comparer(tiny.photo(), tiny.photo(seed=1))
    assert found.probability == pytest.approx(compare.same_probability(found.distance))
    monkeypatch.setattr(compare, "SMALLEST_EYE_DISTANCE", 500.0)
    poor = comparer(tiny.photo(), tiny.photo(seed=1))
    assert poor.verdict == TOO_POOR
    assert poor.probability is None
    assert poor.to_dict()["probability"] is None


def test_compare_faces_is_public(comparer, monkeypatch):
    import studio

    monkeypatch.setattr(compare.Comparer, "from_pretrained", classmethod(lambda cls: comparer))
    assert studio.compare_faces(tiny.photo(), tiny.photo(seed=1)).distance > 0


def test_sentences_name_their_error_rates():
    scores = compare.figures()["scores"]
    said = compare.sentence(SAME, 0.3, 40)
    assert f"{scores['impostor']['count']} pairs of two people 0%" in said
    assert "no evidence" in said
    assert "Too poor to tell: 6 px" in compare.sentence(TOO_POOR, 0.3, 6)


def test_the_committed_figures_are_what_the_benchmark_writes():
    figures = compare.figures()
    assert figures["benchmark"] == "identity"
    assert figures["scores"]["genuine"]["count"] + figures["scores"]["impostor"]["count"] == 432
    table = compare.curve()
    assert (np.diff(table, axis=0) >= 0).all()
    assert table[-1, 1] == table[-1, 2] == 1
    assert set(figures["provenance"]["weights"]) == {"identity", *FINDER}
    small = [row for row in figures["shrunk"] if row["eyes"] < compare.SMALLEST_EYE_DISTANCE]
    assert small  # what is called too poor was measured
