"""One person's motion on another's face: nothing for nothing, regions, shares, and lips that never cross."""

from dataclasses import replace

import numpy as np
import pytest

from studio.motion.head import HEAD, HeadPoses, angles, head_poses, rotations
from studio.motion.retarget import (
    LEFT_LIDS,
    LOWER_LIP,
    RIGHT_LIDS,
    UPPER_LIP,
    calmest,
    gaps,
    most_alike,
    retarget,
    shares,
)
from tests.motion.moving import MESH, motion

TURNS = np.array([[0, 0, 0], [10, -5, 3], [-20, 8, 0], [25, 0, -10], [3, 3, 3], [0, 12, 0]], np.float32)
EYE, MOUTH = 159, 14


def driver(turns=TURNS, **parts):
    """A head that turns, speaks and blinks more with every frame."""
    mesh = np.repeat(HEAD[None], len(turns), 0)
    mesh[:, LOWER_LIP, 1] += 0.01 * np.arange(len(turns))[:, None]
    mesh[:, RIGHT_LIDS[0], 1] += 0.002 * np.arange(len(turns))[:, None]
    return motion(len(turns), **({"mesh": mesh, "rotation": rotations(turns)} | parts))


def other_face(zoom=1.7, shift=30.0):
    """Another person's still: wider, of another size, elsewhere, turned a little."""
    local = HEAD * np.array([1.15, 0.95, 1.0])
    pose = HeadPoses(np.array([zoom]), rotations(np.array([[6.0, -4, 2]])), np.full((1, 3), shift))
    return pose.place(local[None])[0]


def test_a_motion_of_the_stills_own_mesh_gives_the_still_back():
    mesh = other_face()
    pose = head_poses(mesh[None])
    own = motion(
        3,
        scale=np.repeat(pose.scale, 3),
        rotation=np.repeat(pose.rotation, 3, 0),
        translation=np.repeat(pose.translation, 3, 0),
        mesh=np.repeat(pose.remove(mesh[None]), 3, 0),
    )
    for relative in (True, False):
        for region in ("all", "pose", "mouth", "eyes"):
            moved, gaze, _ = retarget(mesh, own, relative=relative, region=region)
            if relative or region in ("mouth", "eyes"):
                np.testing.assert_allclose(moved, np.repeat(mesh[None], 3, 0), atol=2e-3)
            assert not gaze.any()


@pytest.mark.parametrize("relative", [True, False])
def test_the_face_keeps_its_own_proportions(relative):
    mesh, given = other_face(), driver()
    moved, _, reference = retarget(mesh, given, relative=relative, expression_scale=0.0)
    own, seen = head_poses(mesh[None]), head_poses(moved)
    np.testing.assert_allclose(seen.remove(moved), np.repeat(own.remove(mesh[None]), 6, 0), atol=1e-3)
    np.testing.assert_allclose(moved[reference].mean(0), mesh.mean(0), atol=20 if not relative else 1e-2)


def test_relative_turns_go_on_from_the_stills_own_pose_and_absolute_ones_are_the_drivers():
    mesh, given = other_face(), driver()
    moved, _, reference = retarget(mesh, given, relative=False)
    np.testing.assert_allclose(angles(head_poses(moved).rotation), given.angles, atol=0.5)
    moved, _, reference = retarget(mesh, given)
    np.testing.assert_allclose(
        angles(head_poses(moved).rotation)[reference], angles(head_poses(mesh[None]).rotation)[0], atol=0.5
    )
    change = given.rotation @ given.rotation[reference].T
    seen = head_poses(moved).rotation @ head_poses(mesh[None]).rotation[0].T
    np.testing.assert_allclose(angles(seen), angles(change), atol=0.5)


def test_units_do_not_matter():
    given = driver()
    small, _, _ = retarget(other_face(0.01, 0.5), given)
    large, _, _ = retarget(other_face(100.0, 5000.0), given)
    np.testing.assert_allclose(small * 1e4, large, rtol=1e-3, atol=0.2)


def test_movement_of_the_head_is_scaled_to_the_still():
    across = np.full((4, 3), 128, np.float32)
    across[:, 0] += [0, 20, 40, 60]
    nearer = np.array([200, 200, 220, 240], np.float32)
    given = driver(np.zeros((4, 3)), translation=across, scale=nearer)
    mesh = other_face()
    moved, _, reference = retarget(mesh, given, expression_scale=0.0)
    pose, seen = head_poses(mesh[None]), head_poses(moved)
    assert reference == 0
    np.testing.assert_allclose(seen.scale / pose.scale, nearer / 200, rtol=1e-3)
    np.testing.assert_allclose(
        (seen.translation - pose.translation)[:, 0], (across[:, 0] - 128) * pose.scale / 200, atol=1e-2
    )


def test_regions_move_what_they_name():
    mesh, given = MESH, driver(gaze=np.linspace(0, 0.5, 12).reshape(6, 2).astype(np.float32))
    moved = {region: retarget(mesh, given, region=region)[:2] for region in ("all", "pose", "mouth", "eyes")}
    local = {name: head_poses(m).remove(m) for name, (m, _) in moved.items()}
    own = head_poses(mesh[None]).remove(mesh[None])
    np.testing.assert_allclose(local["pose"], np.repeat(own, 6, 0), atol=1e-3)
    for still in ("mouth", "eyes"):
        turn = head_poses(moved[still][0]).rotation
        np.testing.assert_allclose(angles(turn), np.repeat(angles(head_poses(mesh[None]).rotation), 6, 0), atol=0.5)
    opened = {name: np.ptp(gaps(part), axis=0) for name, part in local.items()}
    assert opened["mouth"][0] == pytest.approx(opened["all"][0], abs=1e-3)
    assert opened["mouth"][0] > 0.04
    assert opened["mouth"][1:].max() < 1e-3
    assert opened["eyes"][0] < 1e-3
    assert opened["eyes"][1] == pytest.approx(opened["all"][1], abs=1e-3)
    assert opened["eyes"][1] > 0.005
    assert np.abs(moved["pose"][0] - retarget(mesh, given, expression_scale=0.0)[0]).max() < 1e-4
    for name, (_, gaze) in moved.items():
        assert bool(np.abs(gaze).max() > 0.1) == (name in ("all", "eyes"))


def test_every_point_belongs_to_the_mouth_or_to_the_eyes():
    np.testing.assert_allclose(shares("mouth") + shares("eyes"), shares("all"))
    assert shares("mouth")[MOUTH] == 1
    assert shares("eyes")[EYE] == 1
    assert not shares("pose").any()


def test_the_expression_is_scaled():
    mesh = other_face()
    own = head_poses(mesh[None]).remove(mesh[None])
    opened = []
    for scale in (0.0, 0.5, 1.0, 2.0):
        moved, _, _ = retarget(mesh, driver(np.zeros((6, 3))), expression_scale=scale)
        opened.append((gaps(head_poses(moved).remove(moved)) - gaps(own))[:, 0])
    np.testing.assert_allclose(opened[0], 0, atol=1e-3)
    np.testing.assert_allclose(opened[1], opened[2] / 2, atol=1e-3)
    np.testing.assert_allclose(opened[3], 2 * opened[2], atol=2e-3)
    assert opened[2].max() > 0.02


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("relative", [True, False])
def test_lips_and_lids_never_cross(scale, relative):
    """Seen in the still's own head frame, which moves of mouth and eyes alone leave in its place."""
    rng = np.random.default_rng(0)
    mesh = np.repeat(HEAD[None], 20, 0) + rng.normal(0, 0.02, (20, 468, 3)).astype(np.float32)
    for still in (MESH, other_face()):
        own = head_poses(still[None]).remove(still[None])[0]
        moved, _, _ = retarget(still, motion(20, mesh=mesh), relative=relative, expression_scale=scale, region="mouth")
        pose = head_poses(still[None])
        local = pose.remove(moved)
        least = np.minimum(own[LOWER_LIP, 1] - own[UPPER_LIP, 1], 0)
        assert (local[:, LOWER_LIP, 1] - local[:, UPPER_LIP, 1] >= least - 1e-3).all()
        moved, _, _ = retarget(still, motion(20, mesh=mesh), relative=relative, expression_scale=scale, region="eyes")
        local = pose.remove(moved)
        for upper, lower in (RIGHT_LIDS, LEFT_LIDS):
            least = np.minimum(own[lower, 1] - own[upper, 1], 0)
            assert (local[:, lower, 1] - local[:, upper, 1] >= least - 1e-3).all()


def test_the_reference_is_the_frame_most_like_the_still_and_never_one_without_a_face():
    given = driver()
    mesh = HeadPoses(np.array([3.0]), rotations(TURNS[3:4]), np.zeros((1, 3))).place(given.mesh[3:4])[0]
    pose = head_poses(mesh[None])
    assert most_alike(pose.remove(mesh[None])[0], pose, given) == 3
    presence = np.ones(6, np.float32)
    presence[3] = 0.2
    unseen = replace(given, presence=presence)
    assert most_alike(pose.remove(mesh[None])[0], pose, unseen) != 3
    assert calmest(given) == 0
    presence = np.ones(6, np.float32)
    presence[:2] = 0.1
    assert calmest(replace(given, presence=presence)) == 2


def test_inputs_are_left_alone():
    mesh, given = other_face(), driver()
    kept = mesh.copy(), given.mesh.copy()
    retarget(mesh, given)
    np.testing.assert_array_equal(mesh, kept[0])
    np.testing.assert_array_equal(given.mesh, kept[1])
