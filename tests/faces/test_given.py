"""Faces that the caller points at."""

import numpy as np
import pytest

from studio.errors import InputError
from studio.faces import align, given
from studio.faces.mean_mesh import MEAN_MESH
from studio.faces.pose import pose_from_mesh
from studio.faces.templates import FACEXLIB_TEMPLATE, POINTS, five_points
from tests.faces.synthetic import rotation

SIDE = 512


def test_the_mean_face_is_symmetrical_and_where_both_alignments_put_it():
    assert MEAN_MESH.shape == (POINTS, 3)
    yaw, _, roll = pose_from_mesh(MEAN_MESH[None])[0]
    assert abs(yaw) < 0.5 and abs(roll) < 0.5
    np.testing.assert_allclose(five_points(MEAN_MESH[None])[0], FACEXLIB_TEMPLATE, atol=0.025)
    frame = align.ffhq_transform(MEAN_MESH[None], 1)[0]
    np.testing.assert_allclose(frame, [[1, 0, 0], [0, 1, 0]], atol=0.01)


def test_similarity_gives_back_the_motion():
    points = np.random.default_rng(0).normal(size=(3, 5, 2))
    turn = 2.5 * rotation(roll=130)[:2, :2]
    affine = align.similarity(points, points @ turn.T + [7, -3])
    np.testing.assert_allclose(affine[:, :, :2], np.tile(turn, (3, 1, 1)), atol=1e-5)
    np.testing.assert_allclose(affine[:, :, 2], [[7, -3]] * 3, atol=1e-5)
    with pytest.raises(InputError, match="coincide"):
        align.similarity(np.ones((1, 5, 2)), points[:1])


def test_the_mean_face_lies_on_the_points():
    points = five_points(MEAN_MESH[None]) @ (200 * rotation(roll=-160)[:2, :2].T) + [300, 400]
    mesh = given.mean_mesh_on(points)
    np.testing.assert_allclose(five_points(mesh), points, atol=1e-2)
    assert pose_from_mesh(mesh)[0, 2] == pytest.approx(-160, abs=0.5)
    np.testing.assert_allclose(given.mean_mesh_on(points[:, :3], range(3)), mesh, atol=1e-2)


def test_the_mean_face_fills_the_box():
    low, high = MEAN_MESH[:, :2].min(0), MEAN_MESH[:, :2].max(0)
    box = np.concatenate([[40, 60], [40, 60] + 90 * (high - low)])
    mesh = given.mean_mesh_in(box[None])[0]
    np.testing.assert_allclose([*mesh[:, :2].min(0), *mesh[:, :2].max(0)], box, atol=1e-3)
    wide = given.mean_mesh_in(np.array([[0, 0, 300, 100]]))[0]
    np.testing.assert_allclose((wide[:, :2].min(0) + wide[:, :2].max(0)) / 2, [150, 50], atol=1e-3)


def test_which_alignment_a_picture_has():
    """A face whose mouth is lower than the mean's: both rules can't hold at once."""
    mesh = MEAN_MESH * SIDE
    mesh[:, 1] += 0.12 * (mesh[:, 1] - 0.47 * SIDE)
    whole = np.array([[SIDE, 0, 0], [0, SIDE, 0]], np.float32)

    def seen_through(frame):
        """The mesh in a crop, of `frame` (crop to picture)."""
        inside = align.transform_points(mesh[None, :, :2], align.invert(frame))
        return np.concatenate([inside[0], mesh[:, 2:] / align.scale_of(frame)], 1).astype(np.float32)

    by_rule = align.ffhq_transform(mesh[None], SIDE)
    np.testing.assert_array_equal(given.aligned_frame(seen_through(by_rule), SIDE, SIDE), whole)
    by_points = align.similarity(five_points(MEAN_MESH[None] * SIDE), five_points(mesh[None]))
    found = given.aligned_frame(seen_through(by_points), SIDE, SIDE)
    assert abs(found - whole).max() > 5
    back = align.transform_points(five_points(MEAN_MESH[None]), found[None])
    again = align.transform_points(back, by_points)  # in the picture
    wanted = align.transform_points(five_points(MEAN_MESH[None]) * SIDE, by_rule)
    np.testing.assert_allclose(again, wanted, atol=0.5)
    np.testing.assert_array_equal(given.aligned_frame(None, SIDE, SIDE), whole)


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        ([(0, 0, 10)], "x0, y0, x1, y1"),
        ([(0, 0, 10, float("nan"))], "x0, y0, x1, y1"),
        (["face"], "x0, y0, x1, y1"),
        ([(10, 0, 10, 10)], "x0 < x1"),
        ([(0, 20, 10, 10)], "y0 < y1"),
        ([(90, 0, 95, 10)], "in the photo, which is 80x60"),
        ([(0, 0, 5, 5), (-9, 0, 0, 10)], "in the photo"),
    ],
)
def test_boxes_that_are_none(boxes, said):
    with pytest.raises(InputError, match=said):
        given.check_boxes(boxes, 60, 80)


def test_boxes_are_numbers_in_the_photo():
    np.testing.assert_array_equal(given.check_boxes([[-5, 2, 20, 99]], 60, 80), np.array([[-5, 2, 20, 99]], np.float32))
    assert given.check_boxes([], 60, 80).shape == (0, 4)


def test_an_aligned_picture_is_square():
    given.check_aligned(512, 512)
    given.check_aligned(511, 512)
    with pytest.raises(InputError, match="must be square, the photo is 600x512"):
        given.check_aligned(512, 600)
