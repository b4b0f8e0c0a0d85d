"""Colours of irises."""

import numpy as np
import torch

from studio.metrics import iris_colours, iris_error, iris_mismatch

CENTRES = np.array([[[60.0, 64.0], [140.0, 64.0]]])
WIDTHS = np.array([[60.0, 60.0]])


def eyes(left, right):
    """A grey picture with two eyes: an iris, a dark pupil, a catchlight, and lids of skin over the upper part."""
    picture = torch.full((1, 3, 128, 200), 0.7)
    y, x = torch.meshgrid(torch.arange(128), torch.arange(200), indexing="ij")
    for (cx, cy), colour in zip(CENTRES[0], (left, right), strict=True):
        away = ((x - cx) ** 2 + (y - cy) ** 2).sqrt()
        picture[0, :, (away < 11.4) & (y > cy - 4)] = torch.tensor(colour)[:, None]
        picture[0, :, away < 3.5] = 0.02
        picture[0, :, (x - cx - 5) ** 2 + (y - cy + 1) ** 2 < 3] = 1.0
    return picture


def test_an_iris_has_its_own_colour_whatever_shines_in_it():
    brown, blue = (0.35, 0.2, 0.1), (0.3, 0.45, 0.6)
    found = iris_colours(eyes(brown, blue), CENTRES, WIDTHS)
    plain = iris_colours(
        torch.stack([torch.tensor(c)[:, None, None].expand(3, 128, 200) for c in (brown, blue)]),
        CENTRES.repeat(2, 0),
        WIDTHS.repeat(2, 0),
    )
    torch.testing.assert_close(found[0], plain[[0, 1], [0, 1]])


def test_errors_are_lab_differences():
    brown, blue = (0.35, 0.2, 0.1), (0.3, 0.45, 0.6)
    colours = {name: iris_colours(eyes(*pair), CENTRES, WIDTHS) for name, pair in {
        "brown": (brown, brown), "blue": (blue, blue), "odd": (brown, blue)
    }.items()}  # fmt: skip
    assert iris_error(colours["brown"], colours["brown"]) == 0
    assert iris_mismatch(colours["brown"]) == 0
    whole = iris_error(colours["brown"], colours["blue"])
    assert whole > 30
    torch.testing.assert_close(iris_error(colours["odd"], colours["brown"]), whole / 2)
    torch.testing.assert_close(iris_mismatch(colours["odd"]), whole)


def test_eyes_outside_of_the_picture_have_no_colour():
    assert iris_colours(eyes((0.1, 0.1, 0.1), (0.1, 0.1, 0.1)), CENTRES - 1000, WIDTHS).isnan().all()
