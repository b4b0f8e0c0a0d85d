"""A motion: what one head does over time, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from studio.errors import InputError
from studio.faces.templates import POINTS
from studio.motion.head import HeadPoses, angles

SHAPES = {
    "times": ("T",),
    "presence": ("T",),
    "scale": ("T",),
    "rotation": ("T", 3, 3),
    "translation": ("T", 3),
    "mesh": ("T", POINTS, 3),
    "gaze": ("T", 2),
    "cuts": ("T",),
    "frame": (2,),
}


@dataclass(frozen=True)
class Motion:
    """What one head does. Row i is frame i.

    Attributes:
        times: (T,) float64 seconds, rising, the first frame at 0 or later.
        presence: (T,) float32 in [0,1], how sure the mesh is that there is a face; where it is below 0.5 the frame
            repeats the last pose that was seen.
        scale, rotation, translation: (T,), (T,3,3), (T,3) float32, see `HeadPoses`; pixels of the driving picture.
        mesh: (T,468,3) float32 in the head frame (`studio.motion.head`): the face's shape and its expression.
        gaze: (T,2) float32: where the eyes look, right of the picture and down, in shares of the half width of an eye;
            0 is straight out of the head.
        cuts: (T,) bool, the first frame after a change of shot.
        frame: (2,) int64 width and height of the driving picture in pixels.
    """

    times: np.ndarray
    presence: np.ndarray
    scale: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    mesh: np.ndarray
    gaze: np.ndarray
    cuts: np.ndarray
    frame: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.times)
        for name, shape in SHAPES.items():
            wanted = tuple(count if side == "T" else side for side in shape)
            if getattr(self, name).shape != wanted:
                raise InputError(f"a motion's {name} must be {wanted}, got {getattr(self, name).shape}")
            if not np.isfinite(getattr(self, name)).all():
                raise InputError(f"a motion's {name} must be finite, got a NaN or an infinity: track the video again")
        if not count or (np.diff(self.times) <= 0).any():
            raise InputError(f"a motion must have frames with rising times, got {count} frames: track the video again")

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, index: slice | np.ndarray) -> Motion:
        """The frames of a slice or of an index array."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return Motion(**{name: part if name == "frame" else part[index] for name, part in parts.items()})

    @property
    def poses(self) -> HeadPoses:
        """Where the head is in every frame."""
        return HeadPoses(self.scale, self.rotation, self.translation)

    @property
    def angles(self) -> np.ndarray:
        """(T,3) float32 yaw, pitch and roll in degrees, see `studio.faces.pose`."""
        return angles(self.rotation)

    @property
    def placed(self) -> np.ndarray:
        """(T,468,3) float32, the mesh in pixels of the driving picture."""
        return self.poses.place(self.mesh)

    @property
    def fps(self) -> float:
        """Frames a second, nominally; of a single frame 25."""
        gaps = np.diff(self.times)
        return float(1 / np.median(gaps)) if len(gaps) else 25.0

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file."""
        save_file({f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)}, str(path))

    @classmethod
    def load(cls, path: str | Path) -> Motion:
        """Reads what `save` wrote.

        Raises:
            InputError: there is no such file, or it holds no motion.
        """
        try:
            parts = load_file(str(path))
        except (OSError, SafetensorError) as error:
            raise InputError(f"a motion must be a file of `studio motion`, {path} cannot be read: {error}") from error
        if set(parts) != set(SHAPES):
            raise InputError(f"a motion must hold {', '.join(SHAPES)}, {path} holds {', '.join(sorted(parts))}")
        return cls(**parts)
