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
FOREHEAD, CHIN, NOSE_BASE, NOSE_TIP = 10, 152, 2, 1

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

# Five points, the right eye's centre first, in crops that published restorers take and give (facexlib, 512 px), as
# shares of the side. They are the mean of such points on FFHQ, so that both alignments put a mean face alike.
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


def five_points(mesh: np.ndarray) -> np.ndarray:
    """Right and left eye's centre, tip of the nose, right and left corner of the mouth: (N,468,3) -> (N,5,2)."""
    eyes = [mesh[:, list(corners), :2].mean(1) for corners in (RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS)]
    return np.stack([*eyes, *(mesh[:, i, :2] for i in (NOSE_TIP, *MOUTH_CORNERS))], 1)
