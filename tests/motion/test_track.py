"""Following a face: the rules on drawn heads that a scripted finder sees, the precision on generated faces."""

import numpy as np
import pytest
import torch

from studio import weights
from studio.detect import Together
from studio.errors import InputError, NoFaceError
from studio.faces.align import invert
from studio.faces.faces import Faces
from studio.find import FaceFinder
from studio.motion.gaze import CORNERS, bridged, eye_crops, gaze_of, irises
from studio.motion.head import HEAD, HeadPoses, rotations
from studio.motion.track import CutFinder, track
from studio.networks.iris import IrisNet
from tests import tiny
from tests.faces.synthetic import faces_of, head, smooth_image
from tests.motion.people import generated, moved

HEIGHT, WIDTH = 120, 200
TINY_IRIS = IrisNet(channels=8).eval()


class Scripted(FaceFinder):
    """Sees a head around every bright point of a frame; `follow` sees it within 12 px of where it was."""

    def __init__(self):
        super().__init__(Together(*tiny.detectors()), tiny.face_mesh())
        self.looks = 0

    def points(self, frame):
        rows, columns = torch.nonzero(frame[0] >= 1, as_tuple=True)
        return [(float(x), float(y), float(frame[1, y, x])) for y, x in zip(rows, columns, strict=True)]

    def __call__(self, image, *, min_score=0.5):
        self.looks += 1
        found = [head((x, y), 40 * size) for x, y, size in self.points(image)]
        return faces_of(*found) if found else Faces.empty()

    def follow(self, image, mesh):
        middle = mesh[:, :2].mean(0)
        for x, y, size in self.points(image):
            placed = head((x, y), 40 * size)[0]
            if np.linalg.norm(placed[:, :2].mean(0) - middle) < 12:
                return placed, 0.9
        return mesh, 0.1


def frame(*points, shade=0.5):
    """A picture with a head of 40 px at each (x, y, size)."""
    picture = torch.full((3, HEIGHT, WIDTH), shade)
    for x, y, size in points:
        picture[0, y, x], picture[1, y, x] = 1, size
    return picture


def run(frames, finder=None, **more):
    clip = [(i / 25, picture) for i, picture in enumerate(frames)]
    return track(clip, finder or Scripted(), iris=TINY_IRIS, **more)


def across(motion):
    return motion.placed[..., 0].mean(1)


def test_one_pass_a_frame_while_the_face_is_there():
    finder, told = Scripted(), []
    motion = run([frame((40 + 3 * i, 60, 1)) for i in range(20)], finder, on_frame=lambda i, sure: told.append(i))
    assert finder.looks == 1
    assert told == list(range(20))
    np.testing.assert_allclose(np.diff(across(motion)), 3, atol=0.05)
    assert motion.frame.tolist() == [WIDTH, HEIGHT]
    np.testing.assert_allclose(motion.times, np.arange(20) / 25)


def test_a_lost_face_is_held_and_found_again():
    frames = [frame((60, 60, 1))] * 5 + [frame()] * 7 + [frame((130, 70, 1))] * 8
    motion = run(frames, smooth=False)
    held = motion.presence < 0.5
    assert held[5:12].all() and not held[:5].any() and not held[14:].any()
    np.testing.assert_array_equal(motion.mesh[5:12], np.repeat(motion.mesh[4:5], 7, 0))
    np.testing.assert_array_equal(motion.translation[5:12], np.repeat(motion.translation[4:5], 7, 0))
    assert across(motion)[-1] - across(motion)[0] == pytest.approx(70, abs=0.1)
    assert not motion.cuts.any()


def test_frames_before_the_first_face_hold_its_pose():
    motion = run([frame()] * 4 + [frame((60, 60, 1))] * 5, smooth=False)
    assert (motion.presence < 0.5).tolist()[:4] == [True] * 4
    np.testing.assert_array_equal(motion.translation[0], motion.translation[-1])


def test_several_people():
    """The largest, or who is asked for; followed by place, though the other one grows and they swap their order."""
    both = [frame((50 + i, 60, 1.2), (150 - i, 60, 1 + i / 40)) for i in range(30)]
    np.testing.assert_allclose(across(run(both))[[0, -1]] - across(run(both))[0], [0, 29], atol=0.2)
    second = run(both, face=1)
    np.testing.assert_allclose(across(second)[-1] - across(second)[0], -29, atol=0.2)
    with pytest.raises(InputError, match="face 2"):
        run(both, face=2)
    with pytest.raises(InputError, match="0 or more"):
        run(both, face=-1)


def test_who_leaves_is_not_replaced_by_who_stays():
    frames = (
        [frame((40, 60, 1.2), (150, 60, 1))] * 4 + [frame((150, 60, 1))] * 9 + [frame((50, 60, 1.2), (150, 60, 1))] * 5
    )
    motion = run(frames, smooth=False)
    assert (motion.presence[4:13] < 0.5).all()
    assert across(motion)[-1] - across(motion)[0] == pytest.approx(10, abs=0.1)


def test_a_cut_looks_anew():
    one, other = smooth_image(HEIGHT, WIDTH) * 0.9, smooth_image(HEIGHT, WIDTH).flip(-1, 0).square() * 0.6
    shots = []
    for picture, x in ((one, 40), (other, 150)):
        picture = picture.clone()
        picture[0, 60, x], picture[1, 60, x] = 1, 1
        shots += [picture] * 6
    finder = Scripted()
    motion = run(shots, finder)
    assert np.flatnonzero(motion.cuts).tolist() == [6]
    assert finder.looks == 2
    assert across(motion)[6] - across(motion)[5] == pytest.approx(110, abs=0.1)
    assert np.ptp(across(motion)[:6]) < 0.01


def test_a_flash_or_a_pan_is_no_cut():
    wide = smooth_image(HEIGHT, WIDTH + 40)
    cuts = CutFinder()
    moved = [wide[:, :, k : k + WIDTH] for k in range(0, 40, 8)]
    lit = [moved[-1] * share for share in (0.5, 1.0)]
    assert [cuts(picture) for picture in [*moved, *lit]] == [False] * 7


def test_refuses():
    with pytest.raises(InputError, match="frames"):
        run([])
    with pytest.raises(InputError, match="one size"):
        run([frame((60, 60, 1)), frame((60, 60, 1))[:, :100]])
    with pytest.raises(NoFaceError, match="none was found in 3"):
        run([frame()] * 3)
    with pytest.raises(InputError, match="rising"):
        track([(0.0, frame((60, 60, 1)))] * 2, Scripted(), iris=TINY_IRIS)


# --- gaze -------------------------------------------------------------------------------------------------------------


def test_eye_crops_show_the_eyes_and_mirror_the_right_one():
    mesh = 256 * HEAD + [128, 128, 0]
    crops = eye_crops(mesh)
    middles = crops[:, :, :2] @ [32.0, 32.0] + crops[:, :, 2]
    np.testing.assert_allclose(middles, mesh[np.array(CORNERS), :2].mean(1), atol=1e-5)
    assert crops[0, 0, 0] > 0 > crops[1, 0, 0]
    sides = np.hypot(crops[:, 0, 0], crops[:, 1, 0]) * 64
    np.testing.assert_allclose(
        sides, 2.3 * np.linalg.norm(np.diff(mesh[np.array(CORNERS), :2], axis=1)[:, 0], axis=1), rtol=1e-5
    )


@pytest.mark.parametrize("yaw", [0, 25, -35])
def test_gaze_is_in_the_heads_frame(yaw):
    """Irises at one place of the head say the same, however the head is turned."""
    poses = HeadPoses(
        np.full(1, 300, np.float32), rotations(np.array([[yaw, 10, 15]])), np.array([[200, 180, 5]], np.float32)
    )
    ends, lids = HEAD[np.array(CORNERS)], HEAD[np.array([[159, 145], [386, 374]])]
    half = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1) / 2
    places = ends.mean(1) + half[:, None] * [0.4, -0.2, 0]
    places[:, 2] = lids[..., 2].mean(1)
    seen = poses.place(places[None])[..., :2]
    np.testing.assert_allclose(gaze_of(seen, poses, HEAD[None]), [[0.4, -0.2 + 0.03]], atol=0.01)


def test_gaze_behind_shut_lids_is_bridged():
    shut = HEAD.copy()
    shut[[159, 386]] = shut[[145, 374]]
    poses = HeadPoses(np.ones(1, np.float32), rotations(np.zeros((1, 3))), np.zeros((1, 3), np.float32))
    assert np.isnan(gaze_of(np.zeros((1, 2, 2)), poses, shut[None])).all()
    gaze = np.array([[0, 0], [np.nan, np.nan], [0.4, 0.2]])
    np.testing.assert_allclose(bridged(gaze, np.arange(3))[1], [0.2, 0.1], atol=1e-6)
    np.testing.assert_array_equal(bridged(np.full((2, 2), np.nan), np.arange(2)), np.zeros((2, 2)))


# --- generated people, real weights -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finder():
    return FaceFinder.from_pretrained()


@pytest.fixture(scope="module")
def people():
    return generated()


@pytest.mark.weights
@pytest.mark.slow
def test_a_face_moved_in_the_plane_comes_back(finder, people):
    frames, affines, roll = moved(people[0])
    motion = track(frames, finder)
    assert (motion.presence > 0.5).all() and not motion.cuts.any()
    own = np.einsum("tij,kj->tki", affines[:, :, :2], canonical(motion, affines)) + affines[:, None, :, 2]
    error = motion.placed[..., :2] - own
    assert np.linalg.norm(error.mean(1), axis=1).max() < 0.5
    assert np.linalg.norm(error, axis=2).mean() < 0.5
    turned = motion.angles[:, 2] - roll
    assert np.abs(turned - turned.mean()).max() < 1
    zoom = motion.scale / np.hypot(affines[:, 0, 0], affines[:, 1, 0])
    assert np.abs(zoom / zoom.mean() - 1).max() < 0.01
    assert motion.angles[:, :2].std(0).max() < 1
    assert motion.gaze.std(0).max() < 0.05


def canonical(motion, affines):
    """The mean over the clip of the mesh in the picture before it was moved: (468,2)."""
    back = invert(affines)
    return (np.einsum("tij,tkj->tki", back[:, :, :2], motion.placed[..., :2]) + back[:, None, :, 2]).mean(0)


@pytest.mark.weights
@pytest.mark.slow
def test_turned_people_and_a_cut_between_them(finder, people):
    frames = [(k / 25, picture) for k, picture in enumerate([people[0]] * 3 + [people[2]] * 3 + [people[1]] * 3)]
    motion = track(frames, finder, smooth=False)
    assert motion.cuts[6]
    yaw = motion.angles[:, 0]
    assert -32 < yaw[5] - yaw[0] < -15
    assert abs(yaw[2] - yaw[0]) < 1
    other = track([(0.0, people[3])], finder)
    assert 15 < other.angles[0, 0] - yaw[0] < 32


@pytest.mark.weights
def test_irises_lie_in_the_eyes(finder, people):
    net = IrisNet.from_pretrained(weights.path("iris"))
    mesh = finder(people[0]).mesh[0]
    found = irises(net, people[0], mesh)
    mirrored = irises(net, people[0].flip(-1), finder(people[0].flip(-1)).mesh[0])
    half = np.linalg.norm(np.diff(mesh[np.array(CORNERS), :2], axis=1)[:, 0], axis=1) / 2
    assert (np.linalg.norm(found - mesh[np.array(CORNERS), :2].mean(1), axis=1) < 0.5 * half).all()
    np.testing.assert_allclose(256 - mirrored[::-1, 0], found[:, 0], atol=0.12 * half.max())
