"""Numbers of a synthetic head, and of a picture whose light is known."""

import numpy as np
import pytest
import torch

from studio.errors import InputError
from studio.faces.attributes import (
    ATTRIBUTES,
    BRIDGE,
    CHEEKS,
    LIDS,
    LIPS_INSIDE,
    attributes_from_mesh,
    bridge_edge,
    side_light,
)
from studio.faces.templates import MOUTH_CORNERS
from tests.faces.synthetic import head


def named(mesh):
    return dict(zip(ATTRIBUTES, attributes_from_mesh(mesh)[0], strict=False))


def test_pose_is_that_of_the_head():
    found = named(head(yaw=20.0, pitch=-5.0, roll=3.0))
    assert found["yaw"] == pytest.approx(20, abs=0.1)
    assert found["pitch"] == pytest.approx(-5, abs=0.1)


def test_neither_size_nor_turning_changes_an_expression():
    small, large = attributes_from_mesh(head(height=40.0))[0, 2:], attributes_from_mesh(head(height=300.0, yaw=30.0))[0]
    assert small == pytest.approx(large[2:], rel=1e-4)


@pytest.mark.parametrize(("name", "pair"), [("mouth", LIPS_INSIDE), ("eyes", LIDS[0]), ("smile", MOUTH_CORNERS)])
def test_what_moves_apart_is_larger(name, pair):
    mesh = head()
    before = named(mesh)[name]
    mesh[0, pair[0]] += 2 * (mesh[0, pair[0]] - mesh[0, pair[1]])
    assert named(mesh)[name] > before


def test_light_from_the_right():
    mesh = head(centre=(50.0, 50.0))
    assert mesh[0, CHEEKS[0], 0] != mesh[0, CHEEKS[1], 0]
    mesh[0, CHEEKS[0], :2], mesh[0, CHEEKS[1], :2] = (30, 50), (70, 50)
    image = torch.full((1, 3, 100, 100), 0.4)
    assert side_light(image, mesh) == pytest.approx(0, abs=1e-6)
    image[..., 50:] = 0.8
    assert side_light(image, mesh) == pytest.approx([0.4 / 0.6], abs=1e-3)
    assert side_light(image.flip(-1), mesh) == pytest.approx([-0.4 / 0.6], abs=1e-3)


def test_a_bar_across_the_nose_is_glasses():
    mesh = head(height=100.0, centre=(50.0, 50.0))
    mesh[0, list(BRIDGE), :2] = (50, 40)
    bare = torch.full((1, 3, 100, 100), 0.5)
    worn, temple, tall = bare.clone(), bare.clone(), bare.clone()
    worn[:, :, 39:41] = 0.1  # a dark bar
    temple[:, :, 39:41, :40] = 0.1  # beside the nose only
    tall[..., 49:51] = 0.1  # from top to bottom: the nose's own shadow
    values = [float(bridge_edge(image, mesh)[0]) for image in (bare, worn, temple, tall)]
    assert values[0] == pytest.approx(np.log(1e-3), abs=1e-3)
    assert values[1] > np.log(0.4)
    assert values[2:] == pytest.approx([values[0]] * 2, abs=0.1)
    assert bridge_edge(0.5 * worn, mesh) == pytest.approx(values[1], abs=1e-3)  # the light does not count


def test_refuses():
    with pytest.raises(InputError, match="one mesh per image"):
        side_light(torch.zeros(2, 3, 10, 10), head())
    with pytest.raises(InputError, match="one mesh per image"):
        bridge_edge(torch.zeros(2, 3, 10, 10), head())
    for measure in (side_light, bridge_edge):
        assert len(measure(torch.zeros(0, 3, 10, 10), np.zeros((0, 468, 3), np.float32))) == 0
