"""A motion that needs no video of anybody: key frames, spoken text, blinks, a head that is never quite still."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from studio.errors import InputError
from studio.motion.expression import expressed
from studio.motion.head import PIVOT, rotations
from studio.motion.motion import Motion

SIDE = 512  # px of the picture, in which the head lies as in an FFHQ-aligned crop
MOST = {"yaw": 60, "pitch": 40, "roll": 60, "smile": 1.5, "mouth": 1.5, "brow": 1.5, "gaze_x": 1, "gaze_y": 1}
MOST_FRAMES = 20_000

# What a mouth does for a sound: how far it opens, is pursed, is drawn wide (a share of a smile), and is pressed shut
# whatever else it does.
SHAPES = {
    "open": (0.6, 0.0, 0.05, 0.0),
    "mid": (0.4, 0.0, 0.15, 0.0),
    "wide": (0.2, 0.0, 0.4, 0.0),
    "round": (0.36, 0.7, 0.0, 0.0),
    "tight": (0.12, 0.9, 0.0, 0.0),
    "shut": (0.0, 0.05, 0.0, 1.0),
    "teeth": (0.05, -0.1, 0.1, 0.5),
    "tongue": (0.16, 0.0, 0.1, 0.0),
    "rest": (0.0, 0.0, 0.0, 0.0),
}
HELD = ("shut", "teeth")  # for half their time, so that a frame shows them
# Letters, longest first: the shape, and how long it is held in beats.
LETTERS = {
    **dict.fromkeys(("oo", "ou", "ew", "wh", "qu"), ("tight", 1.3)),
    **dict.fromkeys(("ee", "ea", "ie", "ey"), ("wide", 1.3)),
    **dict.fromkeys(("ai", "ay", "ei"), ("mid", 1.3)),
    **dict.fromkeys(("oa", "ow", "oi", "oy", "au", "aw"), ("round", 1.3)),
    **dict.fromkeys(("sh", "ch"), ("tight", 0.8)),
    **dict.fromkeys(("th", "ng", "ck"), ("tongue", 0.8)),
    **dict.fromkeys(("ph",), ("teeth", 0.8)),
    **dict.fromkeys("a", ("open", 1.1)),
    **dict.fromkeys("e", ("mid", 1.0)),
    **dict.fromkeys("iy", ("wide", 1.0)),
    **dict.fromkeys("o", ("round", 1.1)),
    **dict.fromkeys("uw", ("tight", 1.0)),
    **dict.fromkeys("mbp", ("shut", 1.0)),
    **dict.fromkeys("fv", ("teeth", 0.8)),
    **dict.fromkeys("cdghjklnqrstxz", ("tongue", 0.6)),
}
PAUSES = {" ": 0.6, ",": 2.0, ";": 2.0, ":": 2.0, ".": 3.0, "!": 3.0, "?": 3.0}
BEAT = 0.095  # seconds; "hello there" takes about one
QUIET = 0.12  # share of the time that is silent before the text and after it, where there is time
BLINK, BLINKS = (0.07, 0.03, 0.12), (2.0, 5.0)  # seconds: shutting, shut, opening; and from one to the next
SWAY = {"yaw": 1.2, "pitch": 0.8, "roll": 0.6}  # degrees, about


def synthesise(
    *,
    seconds: float = 4,
    fps: float = 25,
    yaw: Sequence[float] = (0,),
    pitch: Sequence[float] = (0,),
    roll: Sequence[float] = (0,),
    smile: Sequence[float] = (0,),
    mouth: Sequence[float] = (0,),
    brow: Sequence[float] = (0,),
    gaze_x: Sequence[float] = (0,),
    gaze_y: Sequence[float] = (0,),
    talk: str = "",
    blink: bool = True,
    sway: bool = True,
    seed: int = 0,
) -> Motion:
    """Make up a motion.

    Key frames are spread evenly over the time, one holds throughout; between them the head moves smoothly and stands
    still for a moment at each.

    Args:
        seconds: how long.
        fps: frames a second.
        yaw: degrees, above 0 to the left of the picture, see `studio.faces.pose`.
        pitch: degrees, above 0 up.
        roll: degrees, above 0 clockwise.
        smile: 1 is broad, below 0 the corners of the mouth go down.
        mouth: 1 is well open.
        brow: 1 is raised, below 0 lowered.
        gaze_x: in half widths of an eye, above 0 to the right of the picture.
        gaze_y: likewise, above 0 down.
        talk: what is said, in letters of any language that uses these; said faster where the time is short.
        blink: blink every two to five seconds.
        sway: move the head a little all the time.
        seed: of blinks and sway.

    Returns:
        The motion of the mean face in a picture of 512 x 512.

    Raises:
        InputError: a number is out of its range, key frames are missing, or the text has no letters.
    """
    keys = {"yaw": yaw, "pitch": pitch, "roll": roll, "smile": smile, "mouth": mouth, "brow": brow}
    keys |= {"gaze_x": gaze_x, "gaze_y": gaze_y}
    times = check(seconds, fps, keys)
    rng = np.random.default_rng(seed)
    curves = {name: between(values, times) for name, values in keys.items()}
    if sway:
        for name, size in SWAY.items():
            curves[name] += size * wander(times, rng)
    if talk:
        opened, curves["pucker"], wide, pressed = spoken(talk, times).T
        curves["mouth"], curves["smile"] = curves["mouth"] * (1 - pressed) + opened, curves["smile"] + wide
    if blink:
        curves["eyes"] = blinks(times, rng)
    turns = np.stack([curves.pop(name) for name in ("yaw", "pitch", "roll")], 1)
    gaze = np.stack([curves.pop(name) for name in ("gaze_x", "gaze_y")], 1)
    count = len(times)
    return Motion(
        times=times,
        presence=np.ones(count, np.float32),
        scale=np.full(count, SIDE, np.float32),
        rotation=rotations(turns),
        translation=np.tile((SIDE * PIVOT).astype(np.float32), (count, 1)),
        mesh=expressed(curves),
        gaze=gaze.astype(np.float32),
        cuts=np.zeros(count, bool),
        frame=np.array([SIDE, SIDE], np.int64),
    )


def check(seconds: float, fps: float, keys: dict[str, Sequence[float]]) -> np.ndarray:
    """The times (T,) of the frames.

    Raises:
        InputError: see `synthesise`.
    """
    if not (0 < seconds <= 3600 and 1 <= fps <= 120):
        raise InputError(f"seconds must be in (0,3600] and fps in [1,120], got {seconds} and {fps}")
    for name, values in keys.items():
        if not len(values):
            raise InputError(f"{name} must have a key frame, got none: give one number at least")
        if not all(abs(value) <= MOST[name] for value in values):
            raise InputError(f"{name} must be from -{MOST[name]} to {MOST[name]}, got {', '.join(map(str, values))}")
    count = max(round(seconds * fps), 1)
    if count > MOST_FRAMES:
        raise InputError(f"a motion must have {MOST_FRAMES} frames at most, got {count}: take fewer seconds or fps")
    return np.arange(count) / fps


def between(values: Sequence[float], times: np.ndarray) -> np.ndarray:
    """Key frames, spread evenly over the times (T,), and what lies between: (T,)."""
    keys = np.array([*values, values[-1]] if len(values) == 1 else values, np.float64)
    return eased(times, np.linspace(0, max(times[-1], 1e-6), len(keys)), keys[:, None])[:, 0]


def eased(times: np.ndarray, key_times: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Keys (K,D) at rising times (K,), K at least 2, and smoothly what lies between: (T,D), never beyond two keys."""
    left = np.clip(np.searchsorted(key_times, times, "right") - 1, 0, len(keys) - 2)
    share = np.clip((times - key_times[left]) / (key_times[left + 1] - key_times[left]), 0, 1)
    share = (share * share * (3 - 2 * share))[:, None]
    return keys[left] + share * (keys[left + 1] - keys[left])


def wander(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A slow curve (T,) of about unit size that never repeats itself soon, 0 at the start."""
    curve = np.zeros(len(times))
    for period in (5.3, 3.1, 1.9):
        phase = rng.uniform(0, 2 * np.pi)
        curve += period / 5.3 * (np.sin(2 * np.pi * times / period + phase) - np.sin(phase))
    return curve / 1.5


def blinks(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How far the eyes are shut, (T,) in [0,1]: lids fall fast and rise slower, now and then."""
    down, shut, up = BLINK
    lids, at = np.zeros(len(times)), rng.uniform(0.5, BLINKS[0])
    while at < times[-1]:
        lids = np.maximum(lids, np.interp(times, [at - down, at, at + shut, at + shut + up], [0, 1, 1, 0], 0, 0))
        if len(times) > 1:  # at its deepest in some frame, whatever the frame rate
            lids[np.abs(times - at).argmin()] = 1
        at += rng.uniform(*BLINKS)
    return lids


def sounds(text: str) -> list[tuple[str, float]]:
    """What a mouth does for a text: shapes of `SHAPES` and how long each is held, in beats.

    Raises:
        InputError: no letter of it is known.
    """
    pattern = "|".join(sorted((re.escape(key) for key in (*LETTERS, *PAUSES)), key=len, reverse=True))
    found: list[tuple[str, float]] = []
    for key in re.findall(pattern, text.lower()):
        if key in PAUSES:
            found.append(("rest" if PAUSES[key] > 1 else found[-1][0] if found else "rest", PAUSES[key]))
        else:
            found.append(LETTERS[key])
    if not any(shape != "rest" for shape, _ in found):
        raise InputError(f"the text must have letters a to z, got {text!r}: write as it sounds")
    return found


def spoken(text: str, times: np.ndarray) -> np.ndarray:
    """What a mouth that says a text does at the times (T,): (T,4) as in `SHAPES`, at rest before and after."""
    shapes = sounds(text)
    whole = float(times[-1]) + 1e-6
    beat = min(BEAT, whole * (1 - 2 * QUIET) / sum(length for _, length in shapes))
    at = min(whole * QUIET, 0.4)
    key_times, keys = [at], [SHAPES["rest"]]
    for shape, length in shapes:
        for share in (0.25, 0.75) if shape in HELD else (0.5,):
            key_times.append(at + beat * length * share)
            keys.append(SHAPES[shape])
        at += beat * length
    return eased(times, np.array([*key_times, at]), np.array([*keys, SHAPES["rest"]]))
