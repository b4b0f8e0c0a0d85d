"""Dense motion: the identity, known similarities, who hides whom, lids, gaze and what stays where it is."""

import numpy as np
import pytest
import torch

from studio.faces.mean_mesh import MEAN_MESH
from studio.motion import dense, surface
from studio.motion.dense import CELLS, GRID, Still, around, fill, splat, warp
from studio.motion.head import HeadPoses, head_poses, rotations
from studio.motion.retarget import LOWER_LIP
from tests.motion.moving import MESH, PIXELS, astray, lids_closed, own_places, similar, skin_and_features

CELL = PIXELS / CELLS  # px


@pytest.fixture(scope="module")
def still():
    return Still(MESH)


def turned(yaw=0.0, pitch=0.0, roll=0.0):
    """The mean face (1,468,3), turned."""
    pose = head_poses(MESH[None])
    moved = HeadPoses(pose.scale, rotations(np.array([[yaw, pitch, roll]])) @ pose.rotation, pose.translation)
    return moved.place(pose.remove(MESH[None]))


def test_the_unmoved_mesh_gives_the_still_back(still):
    flow = still.flow(MESH[None])
    error = astray(flow, own_places())
    skin, features = skin_and_features(flow, MESH)
    assert flow.covered.min() == 1
    assert error.mean() < 0.1
    assert error[skin].mean() < 0.2
    assert error[skin].quantile(0.99) < 0.6
    assert error[skin].max() < 0.5 * CELL
    assert error[features].mean() < 0.5
    assert error[features].max() < 1.5 * CELL  # along the lids, where skin and eyeball share a cell
    assert (flow.source[0] - own_places())[:, :, [0, -1]].abs().max() < 1e-4


def test_a_picture_warped_by_the_unmoved_mesh_is_the_picture(still):
    y = torch.linspace(0, 12, 256)
    picture = torch.stack([0.5 + 0.4 * torch.sin(y + k).expand(256, 256) * torch.cos(y)[:, None] for k in range(3)])
    back = warp(picture[None], still.flow(MESH[None]).source)
    assert (back - picture).abs().mean() < 0.002


@pytest.mark.parametrize(
    "change",
    [
        {"shift": (0.05, 0.0)},
        {"shift": (0.0, -0.03)},
        {"zoom": 1.1},
        {"zoom": 0.9},
        {"roll": 12.0},
        {"zoom": 1.05, "roll": -6.0, "shift": (0.02, -0.02)},
    ],
)
def test_a_similarity_of_the_mesh_is_that_flow_on_the_face(still, change):
    mesh, wanted = similar(**change)
    flow = still.flow(mesh[None])
    error = astray(flow, wanted)
    skin, features = skin_and_features(flow, mesh)
    assert skin.sum() > 0.1 * CELLS**2
    assert error[skin].mean() < 0.3
    assert error[skin].quantile(0.99) < 0.6
    assert error[skin].max() < 0.5 * CELL
    assert error[features].max() < 1.5 * CELL
    assert flow.covered[0, 0][skin | features].min() == 1


def test_depth_on_the_face_is_the_meshs(still):
    for mesh in (MESH, turned(yaw=20)[0]):
        flow = still.flow(mesh[None])
        skin, _ = skin_and_features(flow, mesh)
        x, y = (torch.from_numpy(mesh[:, :2]) * CELLS).long().clamp(0, CELLS - 1).T
        shown = skin[y, x] & torch.from_numpy(surface.facing(torch.from_numpy(mesh)).new_ones(468).numpy() > 0)
        error = (flow.depth[0, 0, y, x] - torch.from_numpy(mesh[:, 2]))[shown]
        assert error.abs().median() < 0.01


def test_a_depth_map_is_followed_away_from_the_face_and_meets_the_mesh():
    far, near = (Still(MESH, torch.full((1, 1, 32, 32), z)) for z in (0.6, 0.1))
    corner = far.around[:, :2].norm(dim=1).argmin()
    assert float(near.around[corner, 2]) < float(far.around[corner, 2]) < 0.6  # a head is only so deep
    assert float(near.around[corner, 2]) == pytest.approx(0.1, abs=0.02)
    distance, _ = around(far.around[:, :2], torch.from_numpy(MESH)[list(dense.FACE_OVAL)])
    close = distance < 0.01
    assert close.sum() > 20
    assert (far.around[close, 2] - near.around[close, 2]).abs().mean() < 0.1  # both begin at the face's edge


def test_what_is_no_head_stays():
    """A head map of nothing: hair is still, the face moves all the same."""
    nothing = Still(MESH, head=torch.zeros(1, 1, 64, 64))
    distance, _ = around(nothing.around[:, :2], torch.from_numpy(MESH)[list(dense.FACE_OVAL)])
    assert nothing.moves[distance > 3 * dense.BESIDE].max() < 1e-3
    everything = Still(MESH, head=torch.ones(1, 1, 64, 64))
    assert torch.equal(everything.moves, Still(MESH).moves)


def test_near_things_hide_far_ones():
    """Two surfaces over each other: cells show the nearer, whichever comes first."""
    face = sum(surface.counts())
    side = torch.arange(40) / 40 * 0.4 + 0.3
    patch = torch.stack([side.repeat(40), side.repeat_interleave(40)], 1)
    outside = torch.full((face, 2), 2.0)  # the face lies beyond the frame
    for near_first in (True, False):
        depths = (0.1, 0.4) if near_first else (0.4, 0.1)
        points = torch.cat(
            [
                torch.cat([outside, torch.zeros(face, 1)], 1),
                *(torch.cat([patch, torch.full((1600, 1), z)], 1) for z in depths),
            ]
        )
        origins = torch.cat([outside, patch * 0, patch * 0 + 1])
        flow = splat(points[None], origins, torch.ones(1, len(points)))
        middle = slice(CELLS // 2 - 10, CELLS // 2 + 10)
        shown = flow.source[0, :, middle, middle]
        assert torch.allclose(shown, torch.full_like(shown, 0.0 if near_first else 1.0), atol=1e-4)
        assert torch.allclose(flow.depth[0, 0, middle, middle], torch.tensor(0.1), atol=1e-4)


def test_what_shares_a_cell_is_weighed_by_weight_nearness_and_place():
    """Softmax splatting, eq. 14, written out for two points in one cell."""
    face = sum(surface.counts())
    at = (40 + 0.5) / CELLS
    points = torch.full((1, face + 2, 3), 3.0)  # the face lies beyond the frame
    points[0, face] = torch.tensor([at, at, 0.2])
    points[0, face + 1] = torch.tensor([at + 0.25 / CELLS, at, 0.21])  # a quarter of it lies in the next cell
    origins = torch.zeros(face + 2, 2)
    origins[face:] = torch.tensor([[0.1, 0.3], [0.5, 0.9]])
    weight = torch.ones(1, face + 2)
    weight[0, face + 1] = 0.8
    flow = splat(points, origins, weight)
    first, second = np.exp(-dense.SHARPNESS * 0.2), 0.75 * 0.8 * np.exp(-dense.SHARPNESS * 0.21)
    share = second / (first + second)
    expected = (1 - share) * origins[face] + share * origins[face + 1]
    assert torch.allclose(flow.source[0, :, 40, 40], expected, atol=1e-4)
    assert float(flow.depth[0, 0, 40, 40]) == pytest.approx(0.2 + 0.01 * share, abs=1e-4)
    assert flow.covered[0, 0, 40, 40] == 1
    assert float(flow.covered[0, 0, 40, 41]) == pytest.approx(min(1, 0.25 * 0.8 / dense.HOLE), abs=1e-4)
    assert flow.covered[0, 0].sum() == 2


def test_the_nose_hides_the_cheek_of_a_turned_head(still):
    mesh = turned(yaw=40)
    flow = still.flow(mesh)
    hidden = surface.facing(torch.from_numpy(mesh[0])) < -0.2
    assert hidden.sum() > 300
    for there, origin, seen in (
        (torch.from_numpy(mesh[0, :, :2])[[1, 4, 5]], torch.from_numpy(MESH[:, :2])[[1, 4, 5]], True),
        (surface.spread(torch.from_numpy(mesh[0]))[hidden, :2], still.face[hidden, :2], False),
    ):
        x, y = (there * CELLS).long().T
        away = (flow.source[0, :, y, x] - origin.T).norm(dim=0) * PIXELS
        assert (away.max() < 5) if seen else (away.median() > 5)


def test_what_nothing_lands_on_is_uncovered_and_filled():
    far = Still(MESH, torch.linspace(-0.1, 0.5, 64).expand(1, 1, 64, 64))
    flow = far.flow(turned(yaw=-35))
    assert flow.covered.min() < 0.5
    for part in (flow.source, flow.depth, flow.inside):
        assert part.isfinite().all()
    assert flow.source.min() >= -0.05
    assert flow.source.max() <= 1.05


def test_the_border_never_moves_of_itself(still):
    """Its points stay; what is drawn there may only be what a large turn lays over it."""
    border = torch.minimum(still.around[:, :2], 1 - still.around[:, :2]).amin(1)
    outermost = border < 1 / GRID
    assert outermost.sum() == 4 * (GRID - 1)
    assert still.moves[outermost].max() < 0.02
    for change in ({"shift": (0.03, 0)}, {"zoom": 1.03}, {"roll": 3.0}):
        mesh, _ = similar(**change)
        moved = astray(still.flow(mesh[None]), own_places())
        ring = torch.cat([moved[0], moved[-1], moved[:, 0], moved[:, -1]])
        assert ring.max() < 0.6


def test_shoulders_stay_while_the_head_turns(still):
    lower, middle = ((still.around[:, 1] > low) & (still.around[:, 1] < low + 0.01) for low in (0.985, 0.94))
    assert still.moves[lower].max() < 0.1
    assert still.moves[lower].max() < still.moves[middle].max() < 0.8
    above = (still.around[:, 1] > 0.15) & (still.around[:, 1] < 0.25) & ((still.around[:, 0] - 0.5).abs() < 0.1)
    assert above.sum() > 50
    assert still.moves[above].min() > 0.98  # the hair goes wholly with the head


def test_lids_that_close_hide_the_eyeball(still):
    opened, closed = still.flow(MESH[None]), still.flow(lids_closed(MESH)[None])
    assert opened.inside[0, 1].sum() > 20
    assert opened.inside[0, 1].max() > 0.99
    assert closed.inside[0, 1].max() < 0.01
    assert torch.equal(opened.inside[0, 0], closed.inside[0, 0])  # the mouth knows nothing of it


def test_gaze_moves_only_what_is_inside_the_lids(still):
    before, after = still.flow(MESH[None]), still.flow(MESH[None], np.array([[0.4, 0.1]], np.float32))
    moved = (after.source - before.source)[0]
    inside = before.inside[0, 1]
    half = np.linalg.norm(MESH[33, :2] - MESH[133, :2]) / 2
    assert moved[:, inside < 1e-4].abs().max() < 1e-5
    eyeball = moved[:, inside > 0.99].mean(1)
    assert float(eyeball[0]) < -0.5 * 0.4 * half  # it turns right: what is shown comes from further left
    assert float(eyeball[1]) < 0
    shut = lids_closed(MESH)[None]
    hidden = still.flow(shut, np.array([[0.4, 0.1]], np.float32)).source - still.flow(shut).source
    assert hidden.abs().max() * PIXELS < 0.05


def test_gaze_of_zero_is_no_gaze(still):
    a, b = still.flow(MESH[None]), still.flow(MESH[None], np.zeros((1, 2), np.float32))
    assert torch.equal(a.source, b.source)


def test_an_open_mouth_has_more_inside(still):
    mesh = MESH.copy()
    mesh[LOWER_LIP, 1] += 0.05
    before, after = still.flow(MESH[None]).inside[0, 0].sum(), still.flow(mesh[None]).inside[0, 0].sum()
    assert after > 1.4 * before > 0


def test_a_batch_is_a_loop(still):
    meshes = np.concatenate([turned(yaw) for yaw in (-20, 5, 30)])
    gaze = np.array([[0, 0], [0.3, 0], [-0.2, 0.1]], np.float32)
    together = still.flow(meshes, gaze)
    for i in range(3):
        alone = still.flow(meshes[i : i + 1], gaze[i : i + 1])
        for name in ("source", "covered", "depth", "inside"):
            assert torch.allclose(getattr(together, name)[i], getattr(alone, name)[0], atol=1e-6), name
    assert together.geometry.shape == (3, 4, CELLS, CELLS)


def test_inputs_are_left_alone():
    mesh = MEAN_MESH.copy()
    moved, gaze = turned(10), np.ones((1, 2), np.float32)
    kept = moved.copy()
    Still(mesh).flow(moved, gaze)
    np.testing.assert_array_equal(mesh, MEAN_MESH)
    np.testing.assert_array_equal(moved, kept)
    assert (gaze == 1).all()


def test_places_know_how_far_outside_an_outline_they_lie():
    square = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    distance, share = around(torch.tensor([[0.5, 0.5], [1.5, 0.5], [2, 2], [0.0, -1e-3]]), square)
    assert torch.allclose(distance, torch.tensor([0, 0.5, 2**0.5, 1e-3]), atol=1e-5)
    assert torch.allclose(share.sum(1), torch.ones(4), atol=1e-5)
    assert share[2].argmax() == 2


def test_holes_are_filled_from_what_is_near():
    values = torch.arange(64.0).expand(1, 1, 64, 64)
    known = torch.ones(1, 1, 64, 64)
    known[..., 30:34, 20:28] = 0
    filled = fill(values * known, known)
    assert torch.equal(filled[known == 1], values[known == 1])
    assert (filled - values).abs().max() < 6
