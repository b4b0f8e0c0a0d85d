"""One person's motion on another person's face.

The driver's change of pose and expression since a reference frame is added to the still's own (relative motion, as in
the first-order motion model, Siarohin et al., arXiv 2003.00196, section 3.4), in the head frame, so that nobody gets
the driver's proportions.
"""

from __future__ import annotations

import numpy as np

from studio.faces.mean_mesh import MEAN_MESH
from studio.motion.head import HeadPoses, angles, head_poses
from studio.motion.motion import Motion
from studio.motion.triangles import INNER_LIPS

REGIONS = ("all", "pose", "mouth", "eyes")
UPPER_LIP, LOWER_LIP = np.array(INNER_LIPS[1:10]), np.array(INNER_LIPS[:10:-1])
RIGHT_LIDS = (np.array((246, 161, 160, 159, 158, 157, 173)), np.array((7, 163, 144, 145, 153, 154, 155)))
LEFT_LIDS = (np.array((466, 388, 387, 386, 385, 384, 398)), np.array((249, 390, 373, 374, 380, 381, 382)))
DEGREES = 20.0  # of turn that count as much as a mouth open by a tenth of the crop
OPENING = 0.1
EYES_END, MOUTH_START = 0.52, 0.62  # rows of an aligned face: above the first are the eyes, below the second the mouth


def retarget(
    mesh: np.ndarray,
    motion: Motion,
    *,
    relative: bool = True,
    region: str = "all",
    expression_scale: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, int]:
    """The meshes of a still's face in every frame of a motion.

    Args:
        mesh: (468,3) of the still, in any unit.
        motion: of the driver.
        relative: add the driver's change since the frame that is most like the still; False takes the driver's turn of
            the head as it is, and the change of expression since the driver's calmest frame.
        region: "all"; "pose", the turn of the head alone; "mouth" or "eyes", the expression there alone.
        expression_scale: of the change of expression; 1 as the driver's.

    Returns:
        Meshes (T,468,3) float32 in the still's unit, the change of gaze (T,2) in half widths of an eye, and the
        reference frame.
    """
    pose = head_poses(mesh[None])
    own = pose.remove(mesh[None])
    reference = most_alike(own[0], pose, motion) if relative else calmest(motion)
    share = expression_scale * shares(region)[:, None]
    local = uncrossed(own + share * (motion.mesh - motion.mesh[reference]), own[0])
    if region in ("mouth", "eyes"):
        moved = HeadPoses(*(np.repeat(part, len(motion), 0) for part in (pose.scale, pose.rotation, pose.translation)))
    else:
        moved = turned(pose, motion.poses, reference, relative)
    gaze = motion.gaze - (motion.gaze[reference] if relative else 0)
    return moved.place(local), gaze * (region in ("all", "eyes")), reference


def turned(own: HeadPoses, driver: HeadPoses, reference: int, relative: bool) -> HeadPoses:
    """Poses (T) of the still's head (1), which follows the driver's (T)."""
    unit = own.scale / driver.scale[reference]
    rotation = driver.rotation
    if relative:
        rotation = driver.rotation @ driver.rotation[reference].T @ own.rotation
    return HeadPoses(
        driver.scale * unit,
        rotation.astype(np.float32),
        own.translation + unit * (driver.translation - driver.translation[reference]),
    )


def most_alike(local: np.ndarray, pose: HeadPoses, motion: Motion) -> int:
    """The frame whose pose and expression are nearest to a face's, (468,3) in the head frame; of equals the first."""
    turn = np.abs(angles(motion.rotation) - angles(pose.rotation)).max(1) / DEGREES
    shape = np.abs(gaps(motion.mesh) - gaps(local[None])).max(1) / OPENING
    return int((turn + shape + 10 * (motion.presence < 0.5)).argmin())


def calmest(motion: Motion) -> int:
    """The frame with the mouth least open."""
    return int((gaps(motion.mesh)[:, 0] + 10 * (motion.presence < 0.5)).argmin())


def gaps(local: np.ndarray) -> np.ndarray:
    """How far lips and lids of faces (T,468,3) are apart, (T,3): mouth, right eye, left eye; in the head frame."""
    pairs = ((UPPER_LIP, LOWER_LIP), RIGHT_LIDS, LEFT_LIDS)
    return np.stack([(local[:, low, 1] - local[:, up, 1]).mean(1) for up, low in pairs], 1)


def shares(region: str) -> np.ndarray:
    """(468,) in [0,1], how much the expression of each point is taken over."""
    if region in ("all", "pose"):
        return np.full(len(MEAN_MESH), float(region == "all"))
    y = MEAN_MESH[:, 1]
    low = np.clip((y - EYES_END) / (MOUTH_START - EYES_END), 0, 1)
    return low if region == "mouth" else 1 - low


def uncrossed(local: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Faces (T,468,3) whose lips and lids meet where they would cross, by a still's (468,3), whose may touch."""
    local = local.astype(np.float32).copy()
    for (up, low), share in (((UPPER_LIP, LOWER_LIP), 0.5), (RIGHT_LIDS, 1.0), (LEFT_LIDS, 1.0)):
        least = np.minimum(own[low, 1] - own[up, 1], 0)
        crossed = np.minimum(local[:, low, 1] - local[:, up, 1] - least, 0)
        local[:, up, 1] += share * crossed  # lids: the upper one gives way
        local[:, low, 1] -= (1 - share) * crossed
    return local
