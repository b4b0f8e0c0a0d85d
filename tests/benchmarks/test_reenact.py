"""The parts of the reenactment benchmark: what is left out, and its figures. The whole needs the real weights."""

import numpy as np
import pytest
import torch

from studio.benchmarks import reenact
from studio.errors import InputError
from studio.motion.synthesis import synthesise
from tests import tiny


def test_correlations():
    a = np.array([0.0, 1.0, 2.0, 3.0])
    assert reenact.correlation(a, 2 * a + 1) == pytest.approx(1)
    assert reenact.correlation(a, -a) == pytest.approx(-1)
    assert reenact.rank_correlation(a, np.exp(a)) == pytest.approx(1)
    assert reenact.rank_correlation(a, np.array([1.0, 0.0, 3.0, 2.0])) == pytest.approx(0.6)


def test_what_is_left_out():
    face, rough = torch.rand(1, 3, 256, 256), torch.rand(1, 1, 128, 128)
    pipeline = tiny.reenact_pipeline()
    with torch.no_grad():
        depth, head = pipeline.depth(face, rough)
        reenact.leave_out(pipeline, ["plane"])
        assert pipeline.depth(face, rough)[0].abs().max() == 0
        assert torch.equal(pipeline.depth(face, rough)[1], head)
        reenact.leave_out(pipeline, ["head", "network"])
        assert (pipeline.depth(face, rough)[1] == 1).all()
        drawn, mask = pipeline.reenactor(face, torch.rand(1, 4, 128, 128), torch.rand(1, 2, 128, 128))
    assert torch.equal(drawn, face)
    assert mask.max() == 0
    assert depth.abs().max() > 0
    with pytest.raises(InputError, match="without must be of"):
        reenact.leave_out(pipeline, ["luck"])


def test_the_drivers_are_motions_that_can_be_made():
    for about in reenact.DRIVERS.values():
        assert len(synthesise(seconds=reenact.FRAMES / reenact.FPS, fps=reenact.FPS, seed=1, **about)) == reenact.FRAMES
