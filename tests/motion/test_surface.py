"""The triangles between the mesh points, and the places on them."""

import numpy as np
import torch

from studio.faces.mean_mesh import MEAN_MESH
from studio.faces.templates import POINTS
from studio.motion import surface
from studio.motion.retarget import LEFT_LIDS as LEFT
from studio.motion.retarget import RIGHT_LIDS as RIGHT
from studio.motion.triangles import INNER_LIPS, LEFT_LIDS, MOUTH, RIGHT_LIDS, SKIN, TRIANGLES

MESH = torch.from_numpy(MEAN_MESH.astype(np.float32))


def edges():
    pairs = np.sort(np.concatenate([TRIANGLES[:, [0, 1]], TRIANGLES[:, [1, 2]], TRIANGLES[:, [2, 0]]]), 1)
    return np.unique(pairs, axis=0, return_counts=True)


def test_every_point_has_a_triangle_and_no_edge_has_three():
    assert TRIANGLES.shape == (SKIN + MOUTH + RIGHT_LIDS + LEFT_LIDS, 3)
    assert set(TRIANGLES.flatten()) == set(range(POINTS))
    assert edges()[1].max() == 2


def test_the_triangles_make_one_face_with_one_outline():
    pairs, times = edges()
    corners, counts = np.unique(pairs[times == 1], return_counts=True)
    assert (counts == 2).all()  # every corner of the outline joins two of its edges
    assert POINTS - len(pairs) + len(TRIANGLES) == 1  # Euler: a disc, without holes
    assert len(corners) == (times == 1).sum()


def test_all_triangles_look_to_the_camera_in_the_mean_face_but_for_folds():
    a, b, c = (MESH[TRIANGLES[:, k]] for k in range(3))
    turned = torch.linalg.cross(b - a, c - a)[:, 2]
    assert (turned > 0).float().mean() > 0.95


def test_lips_and_lids_bound_what_is_inside_them():
    for kind, outline in (
        (TRIANGLES[SKIN : SKIN + MOUTH], INNER_LIPS),
        (TRIANGLES[SKIN + MOUTH : SKIN + MOUTH + RIGHT_LIDS], (33, 133, *RIGHT[0], *RIGHT[1])),
        (TRIANGLES[SKIN + MOUTH + RIGHT_LIDS :], (263, 362, *LEFT[0], *LEFT[1])),
    ):
        assert set(kind.flatten()) == set(outline)


def test_places_lie_in_their_triangles_and_are_dense():
    corners, shares = surface.places()
    assert corners.shape == shares.shape == (sum(surface.counts()), 3)
    assert shares.min() > 0
    assert torch.allclose(shares.sum(1), torch.ones(len(shares)), atol=1e-6)
    assert (torch.from_numpy(TRIANGLES)[surface.numbers()] == corners).all()
    places = surface.spread(MESH)
    nearest = torch.cdist(places, places).topk(2, largest=False).values[:, 1]
    assert nearest.max() < 1.5 / surface.DENSITY


def test_spreading_is_linear_and_takes_batches():
    both = torch.stack([MESH, 2 * MESH + 1])
    first, second = surface.spread(both)
    assert torch.allclose(first, surface.spread(MESH), atol=1e-6)
    assert torch.allclose(second, 2 * first + 1, atol=1e-5)


def test_a_surface_faces_the_camera_or_shows_its_back():
    front = surface.facing(MESH)
    assert front.shape == (sum(surface.counts()),)
    assert (front > 0).float().mean() > 0.9
    back = MESH * torch.tensor([1.0, 1.0, -1.0])
    assert torch.allclose(surface.facing(back * torch.tensor([-1.0, 1.0, 1.0])), -front, atol=1e-4)  # turned by 180°
