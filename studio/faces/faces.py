"""`Faces`: everything known about the faces of one photo, aligned by index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from studio.errors import InputError
from studio.faces.align import ffhq_transform
from studio.faces.templates import LEFT_EYE_CORNERS, POINTS, RIGHT_EYE_CORNERS

# What follows the first axis, which is the face.
_SHAPES = {"boxes": (4,), "scores": (), "mesh": (POINTS, 3), "mesh_scores": (), "pose": (3,)}
_UNTOLD: Any = None  # the constructor puts an array in its place
_MORE = {"given": (), "quality": (), "frames": (2, 3)}  # fields that need not be told


@dataclass(frozen=True, eq=False)
class Faces:
    """The faces of one photo. Row i of every field is face i; pixel k of the photo covers [k, k+1).

    Args:
        boxes: (N,4) float32, (x0, y0, x1, y1) in pixels of the photo; may reach outside it.
        scores: (N,) float32 in [0,1], how sure the detector is.
        mesh: (N,468,3) float32, (x, y, z) in pixels of the photo; a smaller z is nearer to the camera.
        mesh_scores: (N,) float32 in [0,1], how sure the mesh is that it lies on a face.
        pose: (N,3) float32, yaw, pitch and roll in degrees, as `pose_from_mesh` defines them.
        given: (N,) bool, faces that the caller pointed at; none of them by default.
        quality: (N,) float32 in [0,1], how much of the face is to be seen, and how well; 1 by default.
        frames: (N,2,3) float32, unit square to pixels of the photo: the FFHQ-aligned crop of each face where that is
            known better than from its mesh; None where the mesh tells.
        doubtful: (M,4) float32, boxes of places that look a little like a face and are none of these.

    Raises:
        InputError: the fields differ in length, or one has another shape or holds nan or infinity.
    """

    boxes: np.ndarray
    scores: np.ndarray
    mesh: np.ndarray
    mesh_scores: np.ndarray
    pose: np.ndarray
    given: np.ndarray = _UNTOLD
    quality: np.ndarray = _UNTOLD
    frames: np.ndarray | None = None
    doubtful: np.ndarray = _UNTOLD

    def __post_init__(self) -> None:
        count = len(self.boxes)
        usual = {"given": np.zeros(count, bool), "quality": np.ones(count), "doubtful": np.zeros((0, 4))}
        for name, array in usual.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, array)
        object.__setattr__(self, "doubtful", np.asarray(self.doubtful, dtype=np.float32).reshape(-1, 4))
        for name, shape in (_SHAPES | _MORE).items():
            if getattr(self, name) is None:
                continue
            array = np.asarray(getattr(self, name), dtype=bool if name == "given" else np.float32)
            if array.shape != (count, *shape):
                raise InputError(f"{name} must be {(count, *shape)}, as there are {count} boxes, got {array.shape}")
            if not np.isfinite(array).all():
                raise InputError(f"{name} must be finite, got nan or infinity: drop that face")
            object.__setattr__(self, name, array)

    @classmethod
    def empty(cls) -> Faces:
        """No faces."""
        return cls(**{name: np.zeros((0, *shape), np.float32) for name, shape in _SHAPES.items()})

    @classmethod
    def cat(cls, parts: Sequence[Faces]) -> Faces:
        """The faces of all parts, in order; none for no parts."""
        if not parts:
            return cls.empty()
        names = (*_SHAPES, "given", "quality", "doubtful")
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        joined["doubtful"] = np.unique(joined["doubtful"], axis=0)
        if any(part.frames is not None for part in parts):
            joined["frames"] = np.concatenate([part.crops(1) for part in parts])
        return cls(**joined)

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[Faces]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: int | slice | Sequence[int] | np.ndarray) -> Faces:
        """Some of the faces, always as `Faces`: an index gives one face, a slice, list or boolean mask any number.

        Raises:
            IndexError: an index is out of range, or a mask has another length.
        """
        chosen: Any = [key] if isinstance(key, int | np.integer) else key
        if not isinstance(chosen, slice):
            chosen = np.asarray(chosen)
            chosen = chosen if len(chosen) else chosen.astype(int)  # an empty list is float to numpy: no index
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        some: dict[str, Any] = {name: array for name, array in known.items() if name != "doubtful"}
        some = {name: None if array is None else array[chosen] for name, array in some.items()}
        return Faces(**some, doubtful=self.doubtful)

    def crops(self, size: int) -> np.ndarray:
        """(N,2,3) float32 crop_to_image of the FFHQ-aligned crops of `size` pixels: `frames`, or as the mesh lies."""
        if self.frames is None:
            return ffhq_transform(self.mesh, size)
        return self.frames * np.array([1 / size, 1 / size, 1], np.float32)

    @property
    def largest(self) -> Faces:
        """The face with the largest box alone; none of none."""
        areas = (self.boxes[:, 2:] - self.boxes[:, :2]).prod(1)
        return self[[int(areas.argmax())] if len(self) else []]

    @property
    def widths(self) -> np.ndarray:
        """(N,) float32, box widths in pixels of the photo."""
        return self.boxes[:, 2] - self.boxes[:, 0]

    @property
    def eye_distances(self) -> np.ndarray:
        """(N,) float32, distance between the eyes' centres in the picture's plane, pixels of the photo."""
        right, left = (self.mesh[:, list(eye), :2].mean(1) for eye in (RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS))
        return np.linalg.norm(left - right, axis=1)

    def to_dicts(self) -> list[dict[str, object]]:
        """One JSON-able dict per face, without the mesh: box (x0, y0, x1, y1), score, mesh_score, pose in degrees."""
        return [
            {
                "box": [round(float(v), 2) for v in self.boxes[i]],
                "score": round(float(self.scores[i]), 4),
                "mesh_score": round(float(self.mesh_scores[i]), 4),
                "quality": round(float(self.quality[i]), 4),
                "pose": dict(zip(("yaw", "pitch", "roll"), (round(float(v), 2) for v in self.pose[i]), strict=True)),
            }
            for i in range(len(self))
        ]
