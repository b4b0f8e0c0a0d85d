"""Which of the 468 mesh points is what, and where other people's networks expect them.

The numbering is that of MediaPipe's face mesh. "Left" and "right" are the person's own, so the right eye is on the
left of an unmirrored picture.
"""

from __future__ import annotations

import numpy as np

POINTS = 468

# Outer and inner corner.
RIGHT_EYE_CORNERS = (33, 133)
LEFT_EYE_CORNERS = (263, 362)
MOUTH_CORNERS = (61, 291)
FOREHEAD, CHIN, NOSE_BASE = 10, 152, 2

# Closed outlines, in order; the oval starts at the forehead.
FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)

# dlib's five points as mesh points, and their places in a chip without padding, as shares of its side.
DLIB_POINTS = (263, 362, 33, 133, 2)
DLIB_TEMPLATE = np.array(
    [
        (0.8595674595992, 0.2134981538014),
        (0.6460604764104, 0.2289674387677),
        (0.1205750620789, 0.2137274526848),
        (0.3340850613712, 0.2290642403242),
        (0.4901123135679, 0.6277975316475),
    ]
)
DLIB_PADDING = 0.25

# Right eye, left eye, tip of the nose, right and left corner of the mouth: each the mean of the mesh points that lie
# nearest to where other detectors put it. On 40 generated faces, aligned as FFHQ is, their means are within 2 px of 512
# of the template below, but for a shift of all.
FIVE_POINTS = ((33, 133, 159, 145), (263, 362, 386, 374), (1, 4), (76,), (306,))

# The five points in crops that published restorers take and give (facexlib, 512 px), as shares of the side. They are
# the mean of such points on FFHQ, so that both alignments put a mean face alike.
FACEXLIB_TEMPLATE = (
    np.array(
        [
            (192.98138, 239.94708),
            (318.90277, 240.1936),
            (256.63416, 314.01935),
            (201.26117, 371.41043),
            (313.08905, 371.15118),
        ]
    )
    / 512
)

# Likewise in the crops of ArcFace (112 px). As published, whole numbers are the centres of pixels; here halves are.
ARCFACE_TEMPLATE = (
    np.array([(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]) + 0.5
) / 112


def five_points(mesh: np.ndarray) -> np.ndarray:
    """Right and left eye's centre, tip of the nose, right and left corner of the mouth: (N,468,3) -> (N,5,2)."""
    return np.stack([mesh[:, list(indices), :2].mean(1) for indices in FIVE_POINTS], 1)
