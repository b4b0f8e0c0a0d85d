"""Smoothing: trembling goes, motion stays."""

from dataclasses import replace

import numpy as np
import pytest

from studio.faces.templates import LEFT_EYE, RIGHT_EYE
from studio.motion.head import HEAD, PIVOT, angles, rotations
from studio.motion.smooth import calm, nearest_rotations, noise_of, smoothed, stretches
from studio.motion.track import from_meshes
from tests.motion.test_motion import some

SIDE = 512  # px of the head's crop: the mean face is about 200 px wide
# The lids, outer corner to inner, right eye and left.
UPPER = [246, 161, 160, 159, 158, 157, 173, 466, 388, 387, 386, 385, 384, 398]
LOWER = [7, 163, 144, 145, 153, 154, 155, 249, 390, 373, 374, 380, 381, 382]


def driver(count=120, rate=30.0, noise=0.2, **moves):
    """Times and placed meshes of the mean face with white noise in pixels, and the same without it."""
    times = np.arange(count) / rate
    local = np.repeat(HEAD[None], count, 0).astype(np.float64)
    if "lids" in moves:  # share of the eyes' opening that is left
        for upper, lower in zip(UPPER, LOWER, strict=True):
            local[:, upper] += (1 - moves["lids"])[:, None] * (local[:, lower] - local[:, upper])
    if "mouth" in moves:
        local[:, np.flatnonzero((HEAD + PIVOT)[:, 1] > 0.735), 1] += moves["mouth"][:, None]
    turn = rotations(np.stack([moves.get("yaw", 0 * times), 0 * times, 0 * times], 1))
    placed = SIDE * local @ turn.transpose(0, 2, 1) + np.array([256, 300, 0])
    return times, placed + noise * np.random.default_rng(0).standard_normal(placed.shape), placed


def motion_of(times, meshes):
    return from_meshes(times, meshes, np.ones(len(times)), np.zeros(len(times), bool), (SIDE, SIDE))


def jitter(motion, true):
    return (motion.placed[..., :2] - true[..., :2]).std(0).mean()


def opening(motion):
    return np.linalg.norm(motion.mesh[:, UPPER] - motion.mesh[:, LOWER], axis=2).mean(1)


def blink(count=120, at=60, frames=4):
    lids = np.ones(count)
    lids[at : at + frames] = np.interp(np.arange(frames), [0, (frames - 1) / 2, frames - 1], [0.45, 0.05, 0.45])
    return lids


def test_a_still_driver_holds_still():
    times, noisy, true = driver()
    raw = motion_of(times, noisy)
    assert jitter(raw, true) > 0.18
    assert jitter(smoothed(raw), true) < 0.1


@pytest.mark.parametrize("rate", [25.0, 30.0, 60.0])
def test_a_blink_of_four_frames_keeps_its_depth(rate):
    times, noisy, true = driver(rate=rate, lids=blink())
    depth = np.ptp(opening(motion_of(times, true)))
    found = opening(smoothed(motion_of(times, noisy)))
    assert found[:50].mean() - found.min() > 0.85 * depth
    assert abs(int(found.argmin()) - int(opening(motion_of(times, true)).argmin())) <= 1


def test_eyes_stay_calm_while_the_mouth_talks():
    mouth = 0.04 * np.abs(np.sin(np.arange(120) / 30 * 2 * np.pi * 2.5))
    times, noisy, true = driver(mouth=mouth)
    done = smoothed(motion_of(times, noisy))
    eyes = [*RIGHT_EYE, *LEFT_EYE]
    assert (done.placed - true)[:, eyes, :2].std(0).mean() < 0.1
    talk, asked = done.mesh[:, 14, 1] - done.mesh[:, 13, 1], mouth
    assert np.ptp(talk) > 0.9 * np.ptp(asked)
    assert np.corrcoef(talk, asked)[0, 1] > 0.97


def test_a_turning_head_is_neither_late_nor_damped():
    yaw = 25 * np.sin(np.arange(120) / 30 * 2 * np.pi * 1.0)
    times, noisy, _ = driver(yaw=yaw)
    found = smoothed(motion_of(times, noisy)).angles[:, 0]
    late = [np.square(found[5:-5] - np.interp(times[5:-5] - delay, times, yaw)).sum() for delay in (-0.02, 0, 0.02)]
    assert np.argmin(late) == 1
    assert np.abs(found - yaw).max() < 0.6


def test_nothing_is_smoothed_across_a_cut_or_a_gap():
    motion = some(60)
    scale = np.where(np.arange(60) < 30, 200, 300).astype(np.float32)
    cuts, presence = np.arange(60) == 30, np.ones(60, np.float32)
    jumped = replace(motion, scale=scale, cuts=cuts)
    np.testing.assert_allclose(smoothed(jumped).scale, scale, rtol=1e-5)
    presence[30:35] = 0.1
    assert stretches(replace(motion, presence=presence)) == [slice(0, 30), slice(35, 60)]
    gap = smoothed(replace(motion, scale=scale, presence=presence))
    np.testing.assert_allclose(gap.scale, scale, rtol=1e-5)


def test_a_curve_of_few_frames_is_left_alone():
    values = np.random.default_rng(0).standard_normal((5, 2))
    np.testing.assert_array_equal(calm(values, np.arange(5.0)), values)


def test_noise_is_told_from_motion():
    times = np.arange(300) / 30
    noise = 0.3 * np.random.default_rng(0).standard_normal((300, 1))
    assert noise_of(20 * np.sin(times * 6)[:, None] + noise)[0] == pytest.approx(0.3, rel=0.15)


def test_uneven_times_do_not_bend_a_line():
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.06, 80))
    np.testing.assert_allclose(calm(np.stack([times, -3 * times], 1), times)[:, 0], times, atol=1e-6)


def test_nearest_rotations():
    asked = np.array([[20, -10, 30]], np.float32)
    np.testing.assert_allclose(angles(nearest_rotations(1.1 * rotations(asked).astype(np.float64))), asked, atol=1e-3)
