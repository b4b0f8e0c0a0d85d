from __future__ import annotations

import numpy as np
import pytest
import torch

from studio.errors import InputError
from studio.faces.pose import pose_from_mesh, yaw_and_pitch
from tests.faces.synthetic import head

POSES = [(0, 0, 0), (30, 0, 0), (-50, 0, 0), (0, 20, 0), (0, -25, 0), (0, 0, 170), (35, -15, 25), (-70, 20, -100)]


@pytest.mark.parametrize("pose", POSES)
def test_recovers_the_rotation(pose):
    np.testing.assert_allclose(pose_from_mesh(head(yaw=pose[0], pitch=pose[1], roll=pose[2]))[0], pose, atol=1e-3)


def test_signs_are_as_documented():
    nose = {yaw: head(yaw=yaw)[0, 2, 0] - head(yaw=yaw)[0, 10, 0] for yaw in (-30, 30)}
    assert nose[30] < 0 < nose[-30]  # yaw > 0 looks to the left of the picture
    assert head(pitch=30)[0, 2, 1] < head()[0, 2, 1]  # pitch > 0 looks up
    rolled = head(roll=20)[0]
    assert rolled[263, 1] > rolled[33, 1]  # roll > 0 lowers the eye on the right of the picture


def test_many_and_none():
    many = np.concatenate([head(yaw=y) for y in (-20, 0, 20)])
    np.testing.assert_allclose(pose_from_mesh(many)[:, 0], [-20, 0, 20], atol=1e-3)
    assert pose_from_mesh(np.zeros((0, 468, 3))).shape == (0, 3)
    assert pose_from_mesh(many).dtype == np.float32


def test_a_collapsed_mesh_gives_numbers():
    assert np.isfinite(pose_from_mesh(np.zeros((1, 468, 3)))).all()


def test_refuses_other_shapes():
    with pytest.raises(InputError, match="468"):
        pose_from_mesh(np.zeros((468, 3)))


@pytest.mark.parametrize("pose", POSES[:5])
def test_with_gradients_it_is_the_same(pose):
    mesh = torch.from_numpy(head(yaw=pose[0], pitch=pose[1])).requires_grad_(True)
    angles = yaw_and_pitch(mesh)
    np.testing.assert_allclose(angles.detach()[0], pose[:2], atol=1e-3)
    for k in (0, 1):  # following the slope a little way changes the angle as it says
        (slope,) = torch.autograd.grad(angles[0, k], mesh, retain_graph=True)
        step = 0.1 / slope.square().sum()
        moved = yaw_and_pitch((mesh + step * slope).detach()) - angles.detach()
        assert float(moved[0, k]) == pytest.approx(0.1, rel=0.1)
