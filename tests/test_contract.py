"""The contract itself: a pipeline that follows it passes, and each way of breaking it is noticed."""

import pytest
import torch

import studio
from studio.errors import InputError
from tests import tiny
from tests.contract import IsRepeatable, MeansEveryArgument, PipelineContract, Recorder, plain, same


class TinyConfig:
    def pipeline(self):
        return tiny.tiny_pipeline()

    def inputs(self):
        return {"image": tiny.image(), "strength": 0.5}

    def batch(self):
        return [tiny.image(seed=1), tiny.image(seed=2)]

    def variations(self):
        return {
            "image": tiny.image(seed=1),
            "strength": [0.0, 1.0],
            "generator": torch.Generator().manual_seed(1),
            "output_type": "np",
        }

    def bad_inputs(self):
        return [
            ({"strength": 2.0}, InputError, r"strength must lie in \[0, 1\], got 2"),
            ({"image": "photo.jpg"}, InputError, "load it first"),
        ]


class TestTiny(TinyConfig, PipelineContract):
    @pytest.fixture(autouse=True)
    def _public(self, monkeypatch):
        monkeypatch.setitem(studio._PUBLIC, "TinyNet", "tests.tiny")
        monkeypatch.setattr(studio, "TinyNet", tiny.TinyNet, raising=False)


def test_notices_an_argument_without_effect():
    class Ignoring(TinyConfig, MeansEveryArgument):
        def variations(self):
            return {"strength": 0.5}

    with pytest.raises(AssertionError, match="changes nothing"):
        Ignoring().test_every_variation_changes_something_or_raises()
    with pytest.raises(AssertionError):
        Ignoring().test_every_argument_has_a_variation()


def test_notices_a_callback_that_is_never_called():
    class Forgetting(TinyConfig, MeansEveryArgument):
        def variations(self):
            return {"generator": NeverCalled().manual_seed(0)}

    class NeverCalled(torch.Generator, Recorder):
        calls = 0

    with pytest.raises(AssertionError, match="never called"):
        Forgetting().test_every_variation_changes_something_or_raises()


def test_notices_a_random_outcome():
    class Random(TinyConfig, IsRepeatable):
        def inputs(self, shared=torch.Generator().manual_seed(0)):  # noqa: B008 - shared state is the fault on trial
            return {"image": tiny.image(), "generator": shared}

    with pytest.raises(AssertionError):
        Random().test_same_call_twice()


def test_plain_and_same():
    a = {"x": torch.ones(2), "y": [1, "a", None], "seconds": 1.0}
    b = {"x": torch.ones(2) + 1e-6, "y": [1, "a", None], "seconds": 2.0}
    assert same(plain(a, ("seconds",)), plain(b, ("seconds",)), 1e-5)
    assert not same(plain(a, ("seconds",)), plain(b, ("seconds",)))
    assert not same(plain(a), plain(b), 1e-5)
    assert not same(plain({"x": torch.ones(2)}), plain({"x": torch.ones(3)}))
    assert not same("1", 1)
