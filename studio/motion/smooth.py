"""Smoothing a motion after the fact, without lag: what trembles is calmed, what moves is left as it is.

A local parabola through the frames around each one (Gaussian weights) is the calm curve. How much of a frame's
difference to it is kept is a local Wiener gain (Lee, "Digital image enhancement and noise filtering by use of local
statistics", 1980, in time): nothing where the difference is as large as the noise, nearly all where it is much larger.
The noise is read off fourth differences, which hardly see motion. Parts of the face have their own gain, so that a
talking mouth lets no trembling of the forehead through.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from studio.faces.mean_mesh import MEAN_MESH
from studio.motion.motion import Motion

WIDTH, WIDTH_FRAMES = 0.1, 2.5  # standard deviation of the weights: seconds, and frames at the least
FEWEST = 8  # frames of a stretch that is smoothed; fewer say nothing of noise
# Differences up to this, in variances of the noise, are taken for noise: of a part together, and of one coordinate,
# which scatters more.
FACTOR, ALONE = 2.0, 8.0
LOUDEST = 3.0  # of one coordinate's noise, in medians over the part
FAINTEST = 1e-6  # noise that there always is, in the unit of the part


def _parts() -> list[np.ndarray]:
    """Indices of the points of the eyes, the brows, the mouth with the chin, and the rest."""
    x, y = MEAN_MESH[:, 0], MEAN_MESH[:, 1]
    low = y > 0.62
    eyes = [np.hypot(x - at, (y - 0.48) * 1.6) < 0.1 for at in (0.39, 0.61)]
    brows = (y < 0.46) & (y > 0.36) & (np.abs(x - 0.5) < 0.25) & ~eyes[0] & ~eyes[1]
    rest = ~(low | brows | eyes[0] | eyes[1])
    return [np.flatnonzero(part) for part in (*eyes, brows, low, rest)]


PARTS = _parts()


def smoothed(motion: Motion) -> Motion:
    """The motion with its trembling taken away; frames without a face and cuts are never smoothed across."""
    rotation, translation = motion.rotation.copy(), motion.translation.copy()
    scale, mesh, gaze = motion.scale.copy(), motion.mesh.copy(), motion.gaze.copy()
    for part in stretches(motion):
        times = motion.times[part]
        scale[part] = np.exp(calm(np.log(scale[part])[:, None], times))[:, 0]
        for columns in (slice(0, 2), slice(2, 3)):  # in the picture, and in depth, which trembles more
            translation[part, columns] = calm(translation[part, columns], times)
        rotation[part] = nearest_rotations(calm(rotation[part].reshape(-1, 9), times).reshape(-1, 3, 3))
        gaze[part] = calm(gaze[part], times)
        for points in PARTS:
            flat = mesh[part][:, points].reshape(len(times), -1)
            mesh[part, points] = calm(flat, times).reshape(len(times), -1, 3)
    return replace(motion, rotation=rotation, translation=translation, scale=scale, mesh=mesh, gaze=gaze)


def stretches(motion: Motion) -> list[slice]:
    """The runs of frames that show the face without a cut between them."""
    seen = motion.presence >= 0.5
    breaks = np.flatnonzero(motion.cuts[1:] | (seen[1:] != seen[:-1])) + 1
    edges = [0, *breaks.tolist(), len(motion)]
    return [slice(a, b) for a, b in pairwise(edges) if seen[a]]


def calm(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Calm a curve.

    Args:
        values: (T,D), what moves together.
        times: (T,) seconds, rising.

    Returns:
        (T,D) float64.
    """
    values = np.asarray(values, np.float64)
    if len(values) < FEWEST:
        return values
    steady = local_parabola(values, times)
    rest = values - steady
    noise = noise_of(values)
    energy = np.square(rest / noise)
    together = windowed(energy.mean(1, keepdims=True), 1 if values.shape[1] > 9 else 2)
    alone = windowed(energy, 1)
    kept = np.maximum(1 - FACTOR / np.maximum(together, FACTOR), 1 - ALONE / np.maximum(alone, ALONE))
    return steady + kept * rest


def noise_of(values: np.ndarray) -> np.ndarray:
    """Standard deviation (D,) of white noise in curves (T,D), whatever they do slowly."""
    fourth = np.abs(np.diff(values, 4, axis=0))
    noise = np.median(fourth, 0) / 0.6745 / np.sqrt(70)  # 70: the sum of the squares of 1, 4, 6, 4, 1
    return np.maximum(np.minimum(noise, LOUDEST * np.median(noise)), FAINTEST)


def local_parabola(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The value at every time of the parabola that fits the frames around it best: (T,D), whatever the frame rate."""
    step = float(np.median(np.diff(times)))
    width = max(WIDTH, WIDTH_FRAMES * step)
    reach = min(int(np.ceil(3 * width / step)), len(times) - 1)
    near = np.arange(len(times))[:, None] + np.arange(-reach, reach + 1)  # (T, K)
    inside = (near >= 0) & (near < len(times))
    near = near.clip(0, len(times) - 1)
    apart = (times[near] - times[:, None]) / width
    weight = np.exp(-0.5 * apart**2) * inside
    powers = np.stack([np.ones_like(apart), apart, apart**2], -1)  # (T, K, 3)
    moments = np.einsum("tk,tka,tkb->tab", weight, powers, powers) + 1e-9 * np.eye(3)
    share = np.linalg.solve(moments, np.broadcast_to(np.eye(3)[:, :1], (len(times), 3, 1)))
    weight = weight * (powers @ share)[..., 0]
    curve = np.zeros_like(values)
    for k in range(near.shape[1]):
        curve += weight[:, k, None] * values[near[:, k]]
    return curve


def windowed(values: np.ndarray, reach: int) -> np.ndarray:
    """The mean (T,D) over `reach` frames to either side; ends are repeated."""
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=0).mean(-1)


def nearest_rotations(matrices: np.ndarray) -> np.ndarray:
    """The rotations (T,3,3) float32 nearest to matrices (T,3,3)."""
    u, _, vt = np.linalg.svd(matrices)
    u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
    return (u @ vt).astype(np.float32)
