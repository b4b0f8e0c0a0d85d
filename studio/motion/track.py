"""Following one face through a video: the finder where it must look, one pass of the mesh where it need not."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from studio import weights
from studio.errors import InputError, NoFaceError
from studio.faces.align import similarity, transform_points
from studio.faces.faces import Faces
from studio.faces.select import select
from studio.find import MIN_PRESENCE, FaceFinder
from studio.motion.gaze import bridged, gaze_of, irises
from studio.motion.head import head_poses
from studio.motion.motion import Motion
from studio.motion.smooth import smoothed, stretches
from studio.networks.iris import IrisNet

SETTLING = 2  # passes of one crop after the finder, whose mean over eight crops lies a little elsewhere
# Steps of a face from frame to frame, in its own sides: up to the first it trembles, from the second on it moves.
TREMBLES, MOVES = 0.003, 0.01
BARELY = 0.25  # presence of a frame whose face is not the one that is followed, at most
EVERY = 3  # frames between two looks of the finder while the face is lost
ASTRAY = 1.5  # sides of the face, further away than which a face is somebody else, where there were several
THUMB = (36, 64)  # of the pictures that cuts are seen in
BINS = 16
# A cut changes both: how the brightness is spread over the picture (1 - correlation; a flash changes it little), and
# the share of the pixels that changed their shade (a moving head changes it little).
SPREAD, SHADES = 0.25, 0.15


def track(
    frames: Iterable[tuple[float, Tensor]],
    finder: FaceFinder,
    *,
    face: int | None = None,
    smooth: bool = True,
    on_frame: Callable[[int, float], None] | None = None,
    iris: IrisNet | None = None,
) -> Motion:
    """Follow one face through a video.

    The finder looks at the first frame, after a cut, and where the face is lost; between them one pass of the mesh
    goes on from the frame before. Where there is no face, the last pose is held (`Motion.presence` is below 0.5).

    Args:
        frames: time in seconds, rising, and (3,H,W) float32 RGB in [0,1]; all of one size.
        finder: finds faces.
        face: which of several in the first frame that shows any, as one reads; None is the largest.
        smooth: take the trembling away, see `studio.motion.smooth`.
        on_frame: told the number of each frame when it is done, and the presence in [0,1].
        iris: says where the eyes look; None takes the weights of the store.

    Returns:
        The motion, one row for each frame.

    Raises:
        InputError: no frames, frames of several sizes, times that do not rise, or no face of that number.
        NoFaceError: no frame shows a face.
        MissingWeightsError: the iris network is not on this machine and could not be fetched.
    """
    if face is not None and face < 0:
        raise InputError(f"face must be 0 or more, got {face}: number faces as one reads")
    net = iris or IrisNet.from_pretrained(weights.path("iris")).to(memory_format=torch.channels_last)
    net.to(finder.mesh.device).eval()
    follower, cuts = Follower(finder, face), CutFinder()
    times, meshes, presence, breaks, centres = [], [], [], [], []
    size = None
    for index, (seconds, frame) in enumerate(frames):
        size = size or frame.shape
        if frame.shape != size:
            raise InputError(f"frames must be of one size, got {tuple(size)} and {tuple(frame.shape)}: cut the video")
        frame = frame.to(finder.mesh.device, torch.float32)
        breaks.append(cuts(frame))
        seen, sure = follower(frame, breaks[-1])
        times.append(float(seconds))
        meshes.append(seen)
        presence.append(sure)
        centres.append(np.zeros((2, 2)) if seen is None or sure < MIN_PRESENCE else irises(net, frame, seen))
        if on_frame:
            on_frame(index, sure)
    if size is None:
        raise InputError("there must be frames, got none: check the start and the end of the video")
    known = [mesh for mesh in meshes if mesh is not None]
    if not known:
        raise NoFaceError(f"the video must show a face, none was found in {len(times)} frames: choose another stretch")
    placed = np.stack([known[0] if mesh is None else mesh for mesh in meshes])
    motion = from_meshes(np.array(times), placed, np.array(presence), np.array(breaks), size, np.stack(centres))
    return smoothed(motion) if smooth else motion


def from_meshes(
    times: np.ndarray,
    meshes: np.ndarray,
    presence: np.ndarray,
    cuts: np.ndarray,
    size: tuple[int, ...],
    irises: np.ndarray | None = None,
) -> Motion:
    """The motion of placed meshes.

    Args:
        times: (T,) seconds.
        meshes: (T,468,3) in pixels.
        presence: (T,) in [0,1].
        cuts: (T,) bool.
        size: (…,H,W) of the picture.
        irises: (T,2,2) their centres in pixels; None looks straight ahead.
    """
    poses = head_poses(meshes)
    local = poses.remove(meshes)
    gaze = np.zeros((len(times), 2), np.float32)
    if irises is not None:
        gaze = np.where((presence >= MIN_PRESENCE)[:, None], gaze_of(irises, poses, local), np.float32(np.nan))
    motion = Motion(
        times=np.asarray(times, np.float64),
        presence=np.asarray(presence, np.float32),
        scale=poses.scale,
        rotation=poses.rotation,
        translation=poses.translation,
        mesh=local,
        gaze=np.zeros_like(gaze),
        cuts=np.asarray(cuts, bool),
        frame=np.array([size[-1], size[-2]], np.int64),
    )
    for part in stretches(motion):
        motion.gaze[part] = bridged(gaze[part], motion.times[part])
    return hold_gaze(motion)


def hold_gaze(motion: Motion) -> Motion:
    """Where no face is seen, the eyes look where they looked last."""
    for i in np.flatnonzero(motion.presence < MIN_PRESENCE):
        motion.gaze[i] = motion.gaze[max(i - 1, 0)]
    return motion


class Follower:
    """Where one face is, from frame to frame.

    Args:
        finder: finds faces.
        face: which of several, as one reads; None is the largest.
    """

    def __init__(self, finder: FaceFinder, face: int | None) -> None:
        self.finder, self.face = finder, face
        self.mesh: np.ndarray | None = None
        self.before: np.ndarray | None = None  # the mesh of the frame before, for the crop to move on with the face
        self.fresh, self.alone, self.lost = True, True, 0

    def __call__(self, frame: Tensor, cut: bool) -> tuple[np.ndarray | None, float]:
        """The mesh (468,3) in pixels of a frame (3,H,W), or the last one, and its presence in [0,1]."""
        sure = 0.0
        if cut:
            self.fresh, self.lost = True, 0
        elif not (self.fresh or self.lost):
            mesh, sure = self.finder.follow(frame, self.awaited())
            if self.before is None and sure >= MIN_PRESENCE:  # its speed was not known yet
                mesh, sure = self.finder.follow(frame, mesh)
            if sure >= MIN_PRESENCE:
                self.before, self.mesh = self.mesh, mesh
                return mesh, sure
        if self.lost % EVERY == 0:
            faces = self.finder(frame)
            chosen = self.first(faces) if self.fresh else self.nearest(faces)
            if chosen is not None and faces.mesh_scores[chosen] >= MIN_PRESENCE:
                mesh = faces.mesh[chosen]
                for _ in range(SETTLING):
                    mesh, sure = self.finder.follow(frame, mesh)
                if sure >= MIN_PRESENCE:
                    self.fresh, self.lost, self.before, self.mesh = False, 0, None, mesh
                    return mesh, sure
        self.lost += 1
        return self.mesh, min(sure, BARELY)

    def awaited(self) -> np.ndarray:
        """Where the face will be if it moves on as it did, (468,3) pixels; what trembles is not followed."""
        assert self.mesh is not None
        if self.before is None:
            return self.mesh
        onward = similarity(self.before[None, :, :2], self.mesh[None, :, :2])
        step = transform_points(self.mesh[None, :, :2], onward)[0] - self.mesh[:, :2]
        speed = float(np.linalg.norm(step, axis=1).mean() / np.ptp(self.mesh[:, :2], axis=0).max())
        share = np.clip((speed - TREMBLES) / (MOVES - TREMBLES), 0, 1)
        return np.concatenate([self.mesh[:, :2] + share * step, self.mesh[:, 2:]], 1)

    def first(self, faces: Faces) -> int | None:
        """Which face of a new shot to follow: the wanted one in the first shot, else the largest."""
        if not len(faces):
            return None
        wanted, self.alone = self.face if self.mesh is None else None, len(faces) == 1
        if wanted is None:
            return select(faces, "largest")[0]
        if wanted >= len(faces):
            raise InputError(f"there must be a face {wanted}, the video shows {len(faces)}: count from 0, as one reads")
        return wanted

    def nearest(self, faces: Faces) -> int | None:
        """Which face found after a loss is the one that was followed; none if they are somebody else."""
        if not len(faces) or self.mesh is None:
            return None
        low, high = self.mesh[:, :2].min(0), self.mesh[:, :2].max(0)
        middles = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
        away = np.linalg.norm(middles - (low + high) / 2, axis=1) / (high - low).max()
        chosen = int(away.argmin())
        return chosen if away[chosen] <= ASTRAY or (self.alone and len(faces) == 1) else None


class CutFinder:
    """Sees changes of shot, from one small picture to the next."""

    def __init__(self) -> None:
        self.last: tuple[Tensor, Tensor] | None = None

    def __call__(self, frame: Tensor) -> bool:
        """Whether a frame (3,H,W) begins a new shot; the first one does not."""
        small = F.interpolate(frame[None], THUMB, mode="area")[0]
        shades = torch.stack([torch.histc(channel, BINS, 0, 1) for channel in small]) / small[0].numel()
        grey = small.mean(0) - small.mean()
        last, self.last = self.last, (grey, shades)
        if last is None:
            return False
        alike = (grey * last[0]).mean() / (grey.square().mean() * last[0].square().mean()).sqrt().clamp_min(1e-6)
        return 1 - float(alike) > SPREAD and float((shades - last[1]).abs().sum() / 6) > SHADES
