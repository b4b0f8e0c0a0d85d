"""Moving stills: generated people whose true frames are known, photographs that anything may move, depth, speed.

*Self-reenactment*: a generated person is moved along the latent directions of pose and expression, frame by frame; the
first frame is the still, all are the driver, and every drawn frame is held against the true one. What the prior changes
besides (hair, background, the person beyond 20 degrees) counts as an error of ours.

*Stills*: photographs driven by the same motions, through the path a user takes. There is no true frame; pose, mouth and
eyes are held against what was asked for, and the person against the photo.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.reenact import ReenactPipeline
from studio import images, sheets
from studio.benchmarks.frontalize import spread
from studio.benchmarks.provenance import FINDER, provenance
from studio.errors import InputError, StudioError
from studio.faces.align import warp
from studio.latents.edit import move
from studio.latents.measure import place_aligned
from studio.metrics import psnr
from studio.motion.expression import eyes, opening
from studio.motion.head import angles, head_poses
from studio.motion.smooth import smoothed
from studio.motion.synthesis import synthesise
from studio.motion.track import from_meshes
from studio.photosets import evenly
from studio.training.data import draw_latents
from studio.training.turned import Turner

WEIGHTS = (*FINDER, "reenactor", "depth", "iris", "identity", "generator", "head_256", "directions")
SEED = 77_000_000
FRAMES, FPS = 60, 25.0
# Of the two motions of a generated person: key frames, in degrees or standard deviations of generated faces.
MOTIONS: dict[str, dict[str, tuple[float, ...]]] = {
    "turn": {"yaw": (0, 20, -20, 0), "pitch": (0, 4, -6, 0)},
    "talk": {"mouth": (0, 2, -0.5, 1.5, 0), "smile": (0, 1, 0), "eyes": (0, -1, 0.5, -1, 0), "yaw": (0, 6, -6, 0)},
}
# Of photographs, made up; the last one stands still.
DRIVERS: dict[str, dict[str, Any]] = {
    "turn": {"yaw": (0, 30, -30, 0), "pitch": (0, 10, -10, 0)},
    "talk": {"talk": "hello there, how are you", "smile": (0, 0.6, 0), "yaw": (0, 8, -8, 0)},
}
STILL_FRAMES, STILL_NOISE = 25, 0.2  # frames of a driver that does not move, and px by which its mesh trembles
PARTS = ("network", "depth", "plane", "head")  # what can be left out, to see what it is worth
LOOK_EVERY = 3  # frames of a photograph that are measured
SHEET_FRAMES = (0, 10, 20, 30, 40, 50)


def run(
    photos: Path,
    people: int,
    limit: int,
    threads: int,
    without: Sequence[str],
    sheet: Path | None,
    say: Callable[[str], None],
    pipeline: ReenactPipeline | None = None,
) -> dict[str, Any]:
    """Measure self-reenactment, stills, jitter, depth and speed.

    Args:
        photos: folder of portraits.
        people: generated ones for self-reenactment, 2 motions of 60 frames each; 0 leaves it out.
        limit: photographs, spread evenly over the folder.
        threads: CPU threads; 0 leaves the default.
        without: of `PARTS`, what is left out; the speed is then not measured.
        sheet: where frames go, a row for each person, or None.
        say: receives progress lines.
        pipeline: None takes that of the store.

    Returns:
        See the docstrings of the parts. The identity encoder took part in training, so its distances flatter.

    Raises:
        InputError: no photograph shows a face that is large enough.
    """
    if threads:
        torch.set_num_threads(threads)
    pipeline = pipeline or ReenactPipeline.from_pretrained("reenact")
    pipeline.set_progress_bar_config(disable=True)
    leave_out(pipeline, without)
    rows: list[list[Tensor]] = []
    paths = images.find_images([photos])
    paths = evenly(paths, limit or len(paths))
    found = {
        "benchmark": "reenact",
        "set": photos.name,
        "without": list(without),
        "self": self_reenactment(pipeline, people, rows, say) if people else None,
        "stills": stills(pipeline, paths, rows, say),
        "jitter_px": spread(np.array(list(jitters(pipeline, paths[:8], say)))),
        "depth": depths(pipeline, paths),
        "speed": None if without else speeds(pipeline, paths[0], say),
    }
    if sheet:
        sheets.write(sheet, rows, height=160)
    note = "the identity encoder took part in training, so its distances flatter"
    return {**found, "note": note, "provenance": provenance(WEIGHTS)}


def leave_out(pipeline: ReenactPipeline, names: Sequence[str]) -> None:
    """Take parts out of a pipeline, for good.

    "network": frames are warped and not drawn. "depth": what is around the face lies as deep as the mesh's own depth,
    extrapolated. "plane": it all lies in one plane. "head": what lies near the face moves with it, head or not.

    Raises:
        InputError: another name.
    """
    for name in names:
        if name not in PARTS:
            raise InputError(f"without must be of {', '.join(PARTS)}, got {name!r}: choose one of them")
    look = pipeline.depth.forward

    def depth(face: Tensor, rough: Tensor) -> tuple[Tensor, Tensor]:
        found, head = look(face, rough)
        if "depth" in names or "plane" in names:
            found = torch.zeros_like(found) if "plane" in names else F.interpolate(rough, found.shape[2:]).float()
        return found, torch.ones_like(head) if "head" in names else head

    pipeline.depth.forward = depth
    if "network" in names:
        pipeline.reenactor.forward = lambda warped, *_: (warped, torch.zeros_like(warped[:, :1]))


# ---- generated people


def self_reenactment(
    pipeline: ReenactPipeline, people: int, rows: list[list[Tensor]], say: Callable[[str], None]
) -> dict[str, Any]:
    """Means over people and motions.

    `keypoint_error`: mean distance of 468 points to those of the true frame, over its eye distance; `yaw_error`,
    `pitch_error` in degrees; `mouth_correlation`, `eye_correlation` with the true frames, of the motion that talks;
    `identity_distance` to the still; `l1`, `psnr` to the true frames, RGB in [0,1]; `refused`: motions without a face.
    """
    turner = Turner.from_pretrained()
    latents = draw_latents(turner.maker.generator, people, SEED)
    parts: dict[str, list[float]] = {}
    refused = 0
    for number, one in enumerate(latents.split(1)):
        for name, keys in MOTIONS.items():
            true = list(acting(turner, one, keys))
            try:
                done: Any = pipeline(
                    true[0], true, consent=True, stitch=False, measure_every=1, output_type="pt", fps=FPS
                )
            except StudioError as error:
                refused += 1
                say(f"person {number}, {name}: {error}")
                continue
            figures = against(pipeline, done, true, name)
            for key, value in figures.items():
                parts.setdefault(key, []).append(value)
            rows.append([frame for i in SHEET_FRAMES for frame in (true[i], done.frames[i])])
            say(f"person {number}, {name}: " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()))
    return {"people": people, "frames": FRAMES, "refused": refused} | {
        key: spread(np.array(values)) for key, values in parts.items()
    }


def acting(turner: Turner, latents: Tensor, keys: dict[str, tuple[float, ...]]) -> Iterator[Tensor]:
    """The true frames (3,256,256) of a generated person, latents (1,2,D)."""
    space = turner.space
    at = np.linspace(0, 1, FRAMES)
    for moment in at:
        moved = latents[:, :1]
        for name, values in keys.items():
            unit = 1.0 if name in ("yaw", "pitch") else float(space.attribute_spread[space.number(name)])
            moved = move(space, moved, name, unit * float(np.interp(moment, np.linspace(0, 1, len(values)), values)))
        yield turner.draw(torch.cat([moved, latents[:, 1:]], 1))[0]


def against(pipeline: ReenactPipeline, done: Any, true: list[Tensor], name: str) -> dict[str, float]:
    """Drawn frames against the true ones, both in the still's aligned crop."""
    transform = pipeline.prepare(true[0]).affine  # the crop of the first frame for all, as the stage has it
    wanted = torch.cat([warp(frame, transform, 256) for frame in true]).clamp(0, 1)
    drawn = torch.stack(done.frames)
    mesh, seen = (place_aligned(pipeline.finder(), some).mesh for some in (wanted, drawn))
    eye_distance = np.linalg.norm(mesh[:, 33, :2] - mesh[:, 263, :2], axis=1)
    apart = np.linalg.norm((mesh - seen)[..., :2], axis=2).mean(1) / eye_distance
    turn = np.abs(angles(head_poses(seen).rotation) - angles(head_poses(mesh).rotation)).mean(0)
    distances = [frame.identity_distance for frame in done.report.frames]
    figures = {
        "keypoint_error": float(apart.mean()),
        "yaw_error": float(turn[0]),
        "pitch_error": float(turn[1]),
        "identity_distance": float(np.mean(distances)),
        "l1": float((wanted - drawn).abs().mean()),
        "psnr": float(psnr(drawn, wanted).mean()),
    }
    if name == "talk":
        figures["mouth_correlation"] = correlation(opening(seen), opening(mesh))
        figures["eye_correlation"] = correlation(eyes(seen), eyes(mesh))
    return figures


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's, of two curves."""
    return float(np.corrcoef(a, b)[0, 1])


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, of two lists without ties."""
    return correlation(*(np.argsort(np.argsort(values)).astype(np.float64) for values in (a, b)))


# ---- photographs


def stills(
    pipeline: ReenactPipeline, paths: list[Path], rows: list[list[Tensor]], say: Callable[[str], None]
) -> dict[str, Any]:
    """Photographs driven by made-up motions, in the whole photo.

    Every `LOOK_EVERY`th frame is measured. `pose_error`: the larger of yaw and pitch, degrees, mean over frames;
    `mouth_correlation` of the motion that talks, asked and got; `identity_distance` to the photo, mean over frames, and
    `largest_identity_distance`; `background_changed`: the largest difference outside the stage's mask, which must be 0;
    `refused`: no usable face.
    """
    pose, mouth, distances, largest, changed, refused = [], [], [], [], [], []
    for path in paths:
        shown: list[Tensor] = []
        for name, about in DRIVERS.items():
            motion = synthesise(seconds=FRAMES / FPS, fps=FPS, seed=1, **about)
            try:
                done: Any = pipeline(path, motion, consent=True, face=0, measure_every=LOOK_EVERY, output_type="pt")
            except StudioError as error:
                refused.append(path.name)
                say(f"{path.name}: {error}")
                break
            frames = [frame for frame in done.report.frames if frame.got]
            turn = [np.abs(np.subtract(frame.got, frame.asked)[:2]).max() for frame in frames]
            pose.append(float(np.mean(turn)))
            if name == "talk":
                mouth.append(correlation(*np.array([frame.mouth for frame in frames]).T))
            distances.append(float(np.mean([frame.identity_distance for frame in frames])))
            largest.append(max(frame.identity_distance for frame in frames))
            changed.append(outside(pipeline, path, done.frames))
            shown += [done.frames[i] for i in SHEET_FRAMES]
        if shown:
            rows.append(shown)
            say(f"{path.name}: pose {pose[-1]:.1f}, mouth {mouth[-1]:.2f}, identity {distances[-1]:.2f}")
    if not pose:
        raise InputError(f"the folder must hold portraits, no face was found in {len(paths)} photos: give another one")
    return {
        "photos": len(paths) - len(refused),
        "pose_error": spread(np.array(pose)),
        "mouth_correlation": spread(np.array(mouth)),
        "identity_distance": spread(np.array(distances)),
        "largest_identity_distance": spread(np.array(largest)),
        "background_changed": max(changed),
        "refused": refused,
    }


def outside(pipeline: ReenactPipeline, path: Path, frames: list[Tensor]) -> float:
    """The largest change of any pixel that the stage's mask does not reach."""
    subject = pipeline.prepare(path, 0)
    white = pipeline.stitched(subject, torch.ones_like(subject.stage.crop[0])) == subject.photo
    black = pipeline.stitched(subject, torch.zeros_like(subject.stage.crop[0])) == subject.photo
    still = white & black
    return max(float(((frame - subject.photo).abs() * still).max()) for frame in frames[::10])


def jitters(pipeline: ReenactPipeline, paths: list[Path], say: Callable[[str], None]) -> Iterator[float]:
    """How far the points of a drawn face tremble when the driver does not move, px of a 256 px face.

    The driver's mesh trembles by `STILL_NOISE` px of its 512 px picture, and is smoothed as a tracked one is.
    """
    rng = np.random.default_rng(0)
    calm = synthesise(seconds=STILL_FRAMES / FPS, fps=FPS, blink=False, sway=False)
    meshes = calm.placed + rng.normal(0, STILL_NOISE, calm.placed.shape).astype(np.float32)
    motion = smoothed(from_meshes(calm.times, meshes, calm.presence, calm.cuts, (512, 512)))
    for path in paths:
        try:
            done: Any = pipeline(path, motion, consent=True, face=0, stitch=False, measure_every=0, output_type="pt")
        except StudioError as error:
            say(f"{path.name}: {error}")
            continue
        mesh = place_aligned(pipeline.finder(), torch.stack(done.frames)).mesh[..., :2]
        yield float(np.linalg.norm(mesh - mesh.mean(0), axis=2).mean())


def depths(pipeline: ReenactPipeline, paths: list[Path]) -> dict[str, Any]:
    """The depth network's map of photographs.

    `rank_correlation` with the mesh's z at its points; `order`: the share in which the nose is nearer than the cheeks,
    and these than the sides of the head beside the ears.
    """
    correlations, order = [], []
    for path in paths:
        try:
            subject = pipeline.prepare(path, 0)
        except StudioError:
            continue
        mesh, depth = subject.stage.mesh, subject.stage.depth[0, 0].numpy()
        x, y = np.clip((mesh[:, :2] * depth.shape[0]).astype(int), 0, depth.shape[0] - 1).T
        correlations.append(rank_correlation(depth[y, x], mesh[:, 2]))
        side = depth.shape[0]
        ears = [depth[int(y[i]), np.clip(int(x[i]) + step, 0, side - 1)] for i, step in ((234, -2), (454, 2))]
        nose, cheeks = depth[y[1], x[1]], [depth[y[i], x[i]] for i in (50, 280)]
        order.append(nose < min(cheeks) and max(cheeks) < max(ears))
    return {
        "photos": len(order),
        "rank_correlation": spread(np.array(correlations)),
        "order": round(float(np.mean(order)), 3),
    }


# ---- speed


def speeds(pipeline: ReenactPipeline, path: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Frames a second with everything: following the driver, drawing, putting back; and the peak of memory, MB.

    The driver is the photo itself, made to move, as a stream of frames.
    """
    motion = synthesise(seconds=4, fps=FPS, **DRIVERS["talk"])
    frames = pipeline(path, motion, consent=True, face=0, output_type="pt", measure_every=0).frames
    found: dict[str, Any] = {}
    for size in (256, 512):
        begin = time.perf_counter()
        done = pipeline(path, frames, consent=True, face=0, size=size, output_type="frames", fps=FPS)
        count = sum(1 for _ in done.frames)
        found[f"fps_{size}"] = round(count / (time.perf_counter() - begin), 2)
        say(f"{size} px: {found[f'fps_{size}']} frames a second")
    for seconds in (5, 60):
        longer = synthesise(seconds=seconds, fps=FPS, **DRIVERS["talk"])
        done = pipeline(path, longer, consent=True, face=0, output_type="frames", measure_every=0)
        for _ in done.frames:
            pass
        found[f"peak_mb_{seconds}s"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return found
