import numpy as np
import pytest

from studio.errors import InputError
from studio.faces.pose import pose_from_mesh
from studio.motion.head import HEAD, HeadPoses, angles, head_poses, rotations

ASKED = np.array([[0, 0, 0], [30, -10, 5], [-40, 15, -20], [10, 20, 170]], np.float32)


def heads() -> HeadPoses:
    scale = np.array([100, 256, 40, 90], np.float32)
    return HeadPoses(scale, rotations(ASKED), np.arange(12, dtype=np.float32).reshape(4, 3) * 20)


def test_rotations_and_angles_undo_each_other():
    np.testing.assert_allclose(angles(rotations(ASKED)), ASKED, atol=1e-3)


def test_angles_are_those_of_the_mesh():
    mesh = heads().place(np.repeat(HEAD[None], 4, 0))
    np.testing.assert_allclose(pose_from_mesh(mesh)[:, [0, 2]], ASKED[:, [0, 2]], atol=0.5)
    lean = pose_from_mesh(HEAD[None])[0, 1]  # of the line from forehead to chin in the mean face
    np.testing.assert_allclose(pose_from_mesh(mesh)[:, 1] - lean, ASKED[:, 1], atol=0.5)


def test_poses_are_read_back_whatever_the_face_does():
    given = heads()
    local = np.repeat(HEAD[None], 4, 0)
    local[:, 13:18, 1] += 0.05  # lips and chin, which are no rigid points
    mesh = given.place(local)
    seen = head_poses(mesh)
    np.testing.assert_allclose(seen.scale, given.scale, rtol=1e-4)
    np.testing.assert_allclose(seen.rotation, given.rotation, atol=1e-4)
    np.testing.assert_allclose(seen.remove(mesh), local, atol=1e-4)


def test_refuses_what_is_no_mesh():
    with pytest.raises(InputError, match="must be"):
        head_poses(np.zeros((1, 5, 3)))
    with pytest.raises(InputError, match="coincide"):
        head_poses(np.zeros((1, 468, 3)))
