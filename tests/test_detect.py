"""Where faces may be: sizes of the photo, and what the two detectors say of them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from studio import detect
from studio.detect import BlazePair, Detected, Pyramid
from studio.errors import InputError
from studio.networks.detector import FaceDetector
from studio.networks.finder import MULTIPLE, STRIDE, FinderNet
from tests import tiny


@pytest.mark.parametrize(("height", "width"), [(100, 80), (600, 480), (568, 1328), (2000, 3000), (4000, 500), (4, 900)])
def test_a_photo_is_looked_at_in_several_sizes(height, width):
    views = detect.shrunk(torch.rand(3, height, width))
    sides = []
    for view, scale in views:
        assert view.shape[1] % MULTIPLE == 0 and view.shape[2] % MULTIPLE == 0
        seen = (scale * torch.tensor([width, height])).round()
        assert (seen <= torch.tensor([view.shape[2], view.shape[1]])).all()
        sides.append(float(seen.max()))
    assert sides[0] <= detect.MOST + 1
    assert sides[0] == pytest.approx(min(max(height, width), detect.MOST), abs=1) or sides[0] <= detect.LEAST
    # No face falls between two sizes, and one that fills the photo is small in the last.
    assert all(a <= detect.STEP * b + 1 for a, b in pairwise(sides)) and sides[-1] <= detect.LAST + 1


def test_sizes_keep_positions():
    photo = torch.zeros(3, 300, 400)
    photo[:, 200:240, 120:180] = 1
    for view, scale in detect.shrunk(photo):
        view = view[0, : round(300 * float(scale[1])), : round(400 * float(scale[0]))]
        weight = view / view.sum()
        x = (weight.sum(0) @ (torch.arange(view.shape[1]) + 0.5)) / scale[0]
        y = (weight.sum(1) @ (torch.arange(view.shape[0]) + 0.5)) / scale[1]
        assert (x.item(), y.item()) == (pytest.approx(150, abs=1), pytest.approx(220, abs=1))


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_what_a_turned_photo_shows_lies_where_the_photo_has_it(quarters):
    photo = torch.zeros(3, 50, 90)
    photo[:, 10:16, 70:80] = 1
    row, column = torch.nonzero(torch.rot90(photo, quarters, (1, 2))[0], as_tuple=True)
    low, high = torch.stack([column, row]).amin(1), torch.stack([column, row]).amax(1) + 1
    corner = torch.stack([column, row], 1)[None, :1] + 0.5
    seen = Detected(torch.cat([low, high])[None].float(), torch.ones(1), corner, torch.zeros(1, 3), torch.ones(1))
    found = seen.turned_back(quarters, 50, 90)
    assert found.boxes.tolist() == [[70, 10, 80, 16]]
    x, y = found.points[0, 0].tolist()
    assert photo[0, int(y), int(x)] == 1 and (x % 1, y % 1) == (0.5, 0.5)
    assert found.pose[0].tolist() == [0, 0, {1: 90, 2: -180, 3: -90}[quarters]]


def detected(*faces):
    """Faces (x, score) of 40 px; the first point says whose they are."""
    boxes = torch.tensor([[x, 0.0, x + 40, 40] for x, _ in faces]).view(-1, 4)
    count = len(faces)
    scores = torch.tensor([score for _, score in faces])
    return Detected(boxes, scores, torch.zeros(count, 5, 2), torch.zeros(count, 3), torch.ones(count))


def test_of_a_face_that_both_see_ours_says_where_and_the_surer_one_how_sure():
    ours, published = detect.together(
        detected((0, 0.6), (100, 0.3), (200, 0.9)), detected((4, 0.9), (104, 0.8), (300, 0.7), (204, 0.2))
    )
    assert ours.boxes[:, 0].tolist() == [0, 100, 200]
    assert ours.scores.tolist() == pytest.approx([0.9, 0.3 * detect.ALONE, 0.9 * detect.ALONE])
    assert published.boxes[:, 0].tolist() == [104, 300]  # of the second, ours is too unsure
    alone, _ = detect.together(detected((0, 0.6)), detected())
    assert len(alone) == 1


class OneCell(FinderNet):
    """Says that a face is in the cell under the brightest place of the picture, upright and 40 px wide."""

    def forward(self, x):
        n, _, height, width = x.shape
        raw = torch.zeros(n, 35, height // STRIDE, width // STRIDE)
        raw[:, 0] = -9
        cells = F.avg_pool2d(x.mean(1, keepdim=True), STRIDE)[:, 0]
        place = cells.flatten(1).argmax(1)
        row, column = place // cells.shape[2], place % cells.shape[2]
        raw[torch.arange(n), 0, row, column] = 3
        raw[:, 3:5] = torch.tensor(40 / 16).log()
        raw[:, 17] = 1
        raw[:, 33] = -7
        raw[:, 34] = 9
        return raw


def test_the_pyramid_says_where_in_the_photo():
    photo = torch.full((3, 640, 900), 0.5)
    photo[:, 300:308, 496:504] = 1
    found = Pyramid(OneCell(widths=(8, 8), blocks=(1,), merged=8))(photo, 0.5)
    middles = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    assert (middles - torch.tensor([500.0, 304.0])).abs().amax() < 40
    sides = (found.boxes[:, 2:] - found.boxes[:, :2]).amax(1)
    assert sorted(sides.round().tolist())[0] == 40  # at the photo's own size
    assert torch.allclose(found.points[:, 0], middles, atol=1e-3)
    assert (found.quality > 0.9).all() and (found.pose[:, 2].abs() < 1e-3).all()


def test_scores_are_obeyed():
    net = tiny.finder_net()
    with torch.no_grad():
        net.head[-1].bias[0] = 1.0  # sure of a face everywhere
    low, high = (Pyramid(net)(torch.rand(3, 128, 128), score) for score in (0.0, 0.9))
    assert len(low) > 0 and len(high) == 0
    assert (low.scores[:-1] >= low.scores[1:]).all()


def test_two_that_touch_are_two_and_one_inside_another_is_one():
    boxes = torch.tensor([[0, 0, 100, 120], [95, 0, 195, 120], [30, 40, 70, 80], [5, 8, 110, 130.0]])
    assert detect.nms(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6])) == [0, 1]


def test_detected_travels_together():
    found = Detected(torch.rand(3, 4), torch.rand(3), torch.rand(3, 5, 2), torch.rand(3, 3), torch.rand(3))
    some = found[torch.tensor([True, False, True])]
    assert len(some) == 2 and torch.equal(some.points, found.points[[0, 2]])
    moved = found.shifted(torch.tensor([10.0, 20.0]))
    assert torch.allclose(moved.boxes - found.boxes, torch.tensor([10.0, 20, 10, 20]))
    assert torch.allclose(moved.points - found.points, torch.tensor([10.0, 20]))


# ---- the published pair


@pytest.mark.parametrize(("height", "width"), [(100, 80), (600, 480), (568, 1328), (2000, 3000), (4000, 500)])
def test_tiles_cover_the_photo(height, width):
    levels = detect.tiles(height, width)
    assert levels[0][0] == max(height, width) and len(levels[0][1]) == 1
    for side, corners in levels:
        for axis, length in ((0, width), (1, height)):
            starts = sorted(set(corners[:, axis].tolist()))
            assert starts[0] <= 0 and starts[-1] + side >= length - 1e-3
            assert all(b - a <= (1 - detect.TILE_OVERLAP) * side + 1e-3 for a, b in pairwise(starts))
    sides = [side for side, _ in levels]
    assert sides == sorted(sides, reverse=True)


def test_cut_keeps_positions():
    image = torch.zeros(3, 120, 200)
    image[:, 60:80, 150:170] = 1
    squares = detect.cut(image, 100.0, torch.tensor([[100.0, 20.0], [120.0, 40.0]]), 50)
    assert squares.shape == (2, 3, 50, 50)
    for square, (x, y) in zip(squares, [(60, 50), (40, 30)], strict=True):
        weight = square[0] / square[0].sum()
        centre = torch.arange(50) + 0.5
        assert (weight.sum(0) @ centre).item() == pytest.approx(x / 2, abs=0.1)
        assert (weight.sum(1) @ centre).item() == pytest.approx(y / 2, abs=0.1)


def test_the_pair_is_not_swapped():
    with pytest.raises(InputError, match="swap"):
        BlazePair(FaceDetector("back"), FaceDetector("full_range"))
    found = BlazePair(FaceDetector("full_range"), FaceDetector("back"))(torch.rand(3, 64, 64), 0.999)
    assert found.boxes.shape == (0, 4) and found.points.shape == (0, 5, 2)
