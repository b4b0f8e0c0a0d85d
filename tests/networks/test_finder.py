"""The face finder's network."""

import math

import pytest
import torch

from studio.errors import InputError
from studio.networks.finder import PARTS, STRIDE, FinderNet, cell_middles, decode
from tests.tiny import finder_net, seeded


def test_one_answer_for_every_cell():
    net = finder_net()
    assert net(torch.rand(2, 3, 64, 128)).shape == (2, sum(PARTS), 8, 16)
    for shape in [(3, 64, 64), (1, 1, 64, 64), (1, 3, 64, 72)]:
        with pytest.raises(InputError, match="64 divides"):
            net(torch.rand(shape))
    with pytest.raises(InputError, match="one for each stage"):
        FinderNet(widths=(8, 8), blocks=(1, 1))


def test_it_is_small():
    assert sum(p.numel() for p in FinderNet().parameters()) <= 1_500_000


def test_folding_changes_nothing_but_the_norms():
    with seeded():
        net = FinderNet(widths=(8, 8, 8), blocks=(1, 1), merged=8, folded=False)
        for _ in range(3):  # norms that do something
            net.train()(torch.rand(4, 3, 64, 64))
    net.eval()
    folded = net.fold()
    x = torch.rand(2, 3, 128, 64)
    assert not [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert folded.config.folded and folded.fold() is folded and not folded.training
    torch.testing.assert_close(folded(x), net(x), atol=1e-4, rtol=1e-4)


def test_what_a_cell_says_in_pixels():
    raw = torch.zeros(sum(PARTS))
    raw[1:3] = torch.tensor([0.5, -0.25])  # units of two cells
    raw[3:5] = torch.tensor([32 / 16, 64 / 16]).log()
    raw[5:15] = torch.tensor([-0.2, -0.1, 0.2, -0.1, 0, 0.1, -0.15, 0.3, 0.15, 0.3])
    raw[15:17] = torch.tensor([0.5, -0.25])
    raw[17 + 3] = 5.0  # three eighths of the circle,
    raw[25 + 3] = -1 / 3  # less 15 degrees
    raw[33] = math.log(0.05)
    said = decode(raw, torch.tensor([100.0, 60.0]))
    assert said.boxes.tolist() == pytest.approx([108 - 16, 56 - 32, 108 + 16, 56 + 32])
    c, s = math.cos(math.radians(120)), math.sin(math.radians(120))
    eye = [108 + 48 * (-0.2 * c + 0.1 * s), 56 + 48 * (-0.2 * s - 0.1 * c)]
    assert said.points[0].tolist() == pytest.approx(eye)
    assert said.pose.tolist() == pytest.approx([30, -15, 120])
    assert float(said.spread) == pytest.approx(0.05)


def test_cells_lie_in_the_picture():
    middles = cell_middles(64, 128)
    assert middles.shape == (8, 16, 2)
    assert middles[0, 0].tolist() == [STRIDE / 2] * 2
    assert middles[-1, -1].tolist() == [128 - STRIDE / 2, 64 - STRIDE / 2]
