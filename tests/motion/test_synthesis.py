"""Motions that are made up."""

import numpy as np
import pytest

from studio.errors import InputError
from studio.faces.mean_mesh import MEAN_MESH
from studio.motion.expression import eyes, opening, smile
from studio.motion.motion import Motion
from studio.motion.synthesis import BLINKS, blinks, eased, sounds, spoken, synthesise

STILL = {"blink": False, "sway": False}


def test_keys_are_met_and_never_passed():
    motion = synthesise(yaw=(0, 25, -25, 0), pitch=(5,), smile=(0, 1), seconds=3, fps=31, **STILL)
    yaw = motion.angles[:, 0]
    np.testing.assert_allclose(yaw[[0, 31, 61, 92]], [0, 25, -25, 0], atol=0.3)
    assert np.abs(yaw).max() <= 25.01
    np.testing.assert_allclose(motion.angles[:, 1], 5, atol=1e-3)
    assert (np.diff(smile(motion.mesh)) >= -1e-6).all()
    assert len(motion) == 93 and motion.times[1] == pytest.approx(1 / 31)


def test_the_head_lies_as_in_an_aligned_crop():
    motion = synthesise(seconds=0.2, mouth=(0,), **STILL)
    assert motion.frame.tolist() == [512, 512]
    upper = MEAN_MESH[:, 1] < 0.6
    np.testing.assert_allclose(motion.placed[0, upper, :2], 512 * MEAN_MESH[upper, :2], atol=1.5)


def test_still_is_still():
    motion = synthesise(seconds=1, **STILL)
    assert np.ptp(motion.placed, axis=0).max() == 0
    assert (motion.gaze == 0).all()


def test_gaze_goes_where_it_is_sent():
    motion = synthesise(gaze_x=(0, 0.5), gaze_y=(-0.2,), **STILL)
    np.testing.assert_allclose(motion.gaze[[0, -1]], [[0, -0.2], [0.5, -0.2]], atol=1e-6)


def test_blinks_shut_the_eyes_and_are_seeded():
    motion = synthesise(seconds=20, sway=False)
    lids = eyes(motion.mesh)
    shut = lids < 0.3 * lids.max()
    starts = np.flatnonzero(shut[1:] & ~shut[:-1])
    assert 4 <= len(starts) <= 11
    assert np.diff(starts / 25).min() > BLINKS[0] - 0.1
    assert lids.min() < 0.03
    assert 2 <= shut.sum() / len(starts) <= 6
    np.testing.assert_array_equal(synthesise(seconds=20, sway=False).mesh, motion.mesh)
    assert not np.array_equal(synthesise(seconds=20, sway=False, seed=1).mesh, motion.mesh)


@pytest.mark.parametrize("fps", [10, 25, 60])
def test_every_blink_is_whole_at_any_frame_rate(fps):
    times = np.arange(30 * fps) / fps
    assert np.count_nonzero(blinks(times, np.random.default_rng(0)) == 1) >= 6


def test_sway_is_small():
    motion = synthesise(seconds=10, blink=False)
    assert 0.3 < np.ptp(motion.angles[:, 0]) < 8
    assert np.abs(np.diff(motion.angles, axis=0)).max() < 0.4
    np.testing.assert_allclose(motion.angles[0], 0, atol=1e-3)


def test_talk():
    shapes = [shape for shape, _ in sounds("Mama, oof")]
    assert shapes == ["shut", "open", "shut", "open", "rest", "rest", "tight", "teeth"]
    motion = synthesise(talk="mamama", seconds=3, mouth=(0.3,), **STILL)
    gaps = opening(motion.mesh)
    quiet = gaps[-1]
    peaks = np.flatnonzero((gaps[1:-1] > gaps[:-2]) & (gaps[1:-1] >= gaps[2:]) & (gaps[1:-1] > quiet + 0.1))
    assert len(peaks) == 3
    between = gaps[peaks[0] + 1 : peaks[1] + 2].min()
    assert between < quiet - 0.03  # lips meet for the m, though the key frames hold the mouth open
    rounded = synthesise(talk="oooo", seconds=2, **STILL)
    assert smile(rounded.mesh).min() < 0.8 * smile(rounded.mesh)[0]


def test_talk_fits_the_time():
    times = np.arange(25) / 25
    said = spoken("a long sentence that nobody says in one second, is it?", times)
    assert np.abs(said[[0, -1]]).max() < 0.02
    assert said[:, 0].max() > 0.2


def test_eased_never_overshoots():
    keys = np.array([[0.0], [1], [1], [-2]])
    curve = eased(np.linspace(-1, 5, 200), np.arange(4.0), keys)
    assert curve.min() == -2 and curve.max() == 1
    assert curve[0] == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"yaw": (0, 90)}, "yaw must be"),
        ({"smile": ()}, "smile must have"),
        ({"smile": (float("nan"),)}, "smile must be"),
        ({"seconds": 0}, "seconds must"),
        ({"fps": 1000}, "fps"),
        ({"seconds": 3600}, "20000 frames"),
        ({"talk": "123"}, "letters"),
    ],
)
def test_refuses(wrong, words):
    with pytest.raises(InputError, match=words):
        synthesise(**wrong)


def test_is_saved_like_any_motion(tmp_path):
    made = synthesise(seconds=1)
    made.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(Motion.load(tmp_path / "m.safetensors").mesh, made.mesh)
