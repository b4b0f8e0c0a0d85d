from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from studio.errors import InputError
from studio.faces.align import ffhq_transform
from studio.faces.faces import Faces
from tests.faces.synthetic import faces_of, head


@pytest.fixture
def three():
    return faces_of(head((50, 60)), head((150, 60), height=40), head((250, 60), height=60))


def test_fields_are_float32(three):
    assert len(three) == 3
    for array in (three.boxes, three.scores, three.mesh, three.mesh_scores, three.pose):
        assert array.dtype == np.float32


@pytest.mark.parametrize("key", [1, -2, np.int64(1), slice(1, 2), [1], np.array([False, True, False]), (1,)])
def test_every_index_gives_faces(three, key):
    some = three[key]
    assert isinstance(some, Faces) and len(some) == 1
    np.testing.assert_array_equal(some.boxes[0], three.boxes[1])
    np.testing.assert_array_equal(some.mesh[0], three.mesh[1])


def test_empty_selections(three):
    for none in (three[[]], three[3:], three[np.zeros(3, bool)], Faces.empty(), Faces.cat([])):
        assert len(none) == 0 and none.mesh.shape == (0, 468, 3) and none.to_dicts() == []
        assert none.widths.shape == none.eye_distances.shape == (0,)


def test_out_of_range_is_an_index_error(three):
    with pytest.raises(IndexError):
        three[3]
    with pytest.raises(IndexError):
        three[np.ones(2, bool)]


def test_iteration_and_cat_are_inverse(three):
    again = Faces.cat(list(three))
    np.testing.assert_array_equal(again.mesh, three.mesh)
    np.testing.assert_array_equal(again.scores, three.scores)


def test_sizes(three):
    np.testing.assert_allclose(three.widths, three.boxes[:, 2] - three.boxes[:, 0])
    np.testing.assert_allclose(three.eye_distances, [0.34 * 80, 0.34 * 40, 0.34 * 60], rtol=1e-4)


def test_dicts_are_json_without_the_mesh(three):
    dicts = json.loads(json.dumps(three.to_dicts()))
    assert set(dicts[0]) == {"box", "score", "mesh_score", "quality", "pose"}
    assert set(dicts[0]["pose"]) == {"yaw", "pitch", "roll"}


def test_refuses_what_does_not_line_up(three):
    fields = {name: getattr(three, name) for name in ("boxes", "scores", "mesh", "mesh_scores", "pose")}
    with pytest.raises(InputError, match="scores must be"):
        Faces(**{**fields, "scores": np.zeros(2)})
    with pytest.raises(InputError, match="mesh must be"):
        Faces(**{**fields, "mesh": np.zeros((3, 478, 3))})
    with pytest.raises(InputError, match="finite"):
        Faces(**{**fields, "pose": np.full((3, 3), np.nan)})


def test_given_faces_and_frames_travel(three):
    assert three.given.tolist() == [False] * 3 and three.frames is None
    frames = np.tile(np.array([[40, 0, 7], [0, 40, 9]], np.float32), (3, 1, 1))
    known = replace(three, given=np.array([True, False, True]), frames=frames)
    assert known[[0, 1]].given.tolist() == [True, False]
    np.testing.assert_array_equal(known[1].crops(1), frames[:1])
    np.testing.assert_array_equal(known[1].crops(20)[0], [[2, 0, 7], [0, 2, 9]])
    np.testing.assert_array_equal(three.crops(20), ffhq_transform(three.mesh, 20))
    both = Faces.cat([three[0], known[1]])
    assert both.given.tolist() == [False, False]
    np.testing.assert_allclose(both.crops(20), np.concatenate([three[0].crops(20), known[1].crops(20)]), rtol=1e-5)
    with pytest.raises(InputError, match="frames"):
        replace(three, frames=frames[:2])
