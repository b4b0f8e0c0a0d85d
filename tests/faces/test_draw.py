from __future__ import annotations

import numpy as np

from studio.faces.draw import draw
from studio.faces.faces import Faces
from tests.faces.synthetic import faces_of, head, smooth_image


def test_draws_every_face_and_keeps_the_size():
    image = smooth_image(240, 320)
    faces = faces_of(head((80, 100)), head((240, 120), height=60), head((318, 2), height=20))
    picture = draw(image, faces)
    assert picture.size == (320, 240) and picture.mode == "RGB"
    changed = (np.asarray(picture) != np.asarray(draw(image, Faces.empty()))).any(-1)
    for x0, y0, x1, y1 in faces.boxes[:2].astype(int):
        assert changed[y0:y1, x0:x1].mean() > 0.02
        assert changed[y1 + 2 : y1 + 14, x0 : x0 + 60].any()
    assert not changed[:, :20].any()
