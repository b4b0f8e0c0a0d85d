"""What the tests of the web app share: a toy pipeline, and order in what gradio leaves behind."""

import asyncio
import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.restore import FaceReport, RestoreOutput
from studio import images
from studio.base import StudioPipeline
from studio.errors import InputError
from studio.faces.faces import Faces
from studio.identity.album import AlbumMaker
from studio.identity.compare import Comparer
from studio.identity.encoder import IdentityEncoder
from tests import tiny

# For every test that serves the app. gradio asks pandas for two options that pandas is about to drop.
MARKS = [
    pytest.mark.usefixtures("_loops"),
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
    # gradio leaves a socket open where a port is taken, and its client where it is refused.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"),
]


def files_in(folder):
    """Paths of all files, while an app deletes some: `rglob` raises where a folder goes meanwhile."""
    return [Path(inside, name) for inside, _, names in os.walk(folder) for name in names]


@contextmanager
def closed_loops():
    """Closes the event loops that gradio makes for every app outside of one, and never runs."""
    made, new = [], asyncio.new_event_loop

    def recorded():
        made.append(new())
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "new_event_loop", recorded)
        yield
    asyncio.set_event_loop(None)
    for loop in made:
        if not loop.is_running():
            loop.close()


class ToyRestore(StudioPipeline):
    """Two faces in every photo that is not black, side by side; the second is too small. `restorer` tints the first."""

    leads = False

    def __init__(self, restorer):
        super().__init__()
        self.register_modules(restorer=restorer)

    @classmethod
    def _components(cls, name):
        return {"restorer": tiny.tiny_net()}

    @torch.inference_mode()
    def __call__(
        self,
        image,
        faces="all",
        fidelity=0.5,
        strength=1.0,
        scale=1,
        background="lanczos",
        region="auto",
        identity_guard=0.6,
        caution=True,
        colorize=False,
        reference=None,
        reference_steps=12,
        boxes=None,
        aligned=False,
        num_inference_steps=4,
        generator=None,
        keep_readings=False,
        output_type="pil",
        callback_on_step_end=None,
        callback_on_step_end_tensor_inputs=None,
        return_dict=True,
    ):
        if not 0 <= fidelity <= 1:
            raise InputError(f"fidelity must be from 0 to 1, got {fidelity}: 0.5 is the usual choice")
        photo = images.load(image)
        for step in range(reference_steps if reference is not None and callback_on_step_end else 0):
            callback_on_step_end(self, step, step, {"identity_distance": 0.5})
        if photo.pixels.max() == 0 and not boxes and not aligned:
            nothing = photo.pixels.new_zeros(photo.height, photo.width)
            return RestoreOutput([images.to_pil(photo.pixels)], [Faces.empty()], [[]], [photo], [1], [nothing])
        size = 2 if scale == "auto" else scale
        tinted = photo.with_pixels(
            images.resize(self.restorer(photo.pixels[None])[0], photo.height * size, photo.width * size)
        )
        reports = [self.report(photo, i, faces in ("all", "largest") or i in faces, reference) for i in (0, 1)]
        drawn = tinted.pixels.new_zeros(tinted.height, tinted.width)
        drawn[:, : tinted.width // 2] = 0.5
        return RestoreOutput([images.to_pil(tinted.pixels)], [Faces.empty()], [reports], [tinted], [size], [drawn])

    def find(self, photo, boxes=None, aligned=False):
        """Boxes as in the reports, and those that are given; of an aligned photo, one of the whole."""
        half, height = photo.width / 2, photo.height
        found = [[0, 0, half, height], [half, 0, 2 * half, height]] if photo.pixels.max() > 0 else []
        places = [[0, 0, 2 * half, height]] if aligned else [*found, *(boxes or [])]
        count = len(places)
        zeros = np.zeros(count, np.float32)
        mesh, pose = np.zeros((count, 468, 3), np.float32), np.zeros((count, 3), np.float32)
        return Faces(np.array(places, np.float32).reshape(count, 4), zeros, mesh, zeros, pose)

    def report(self, photo, i, chosen, reference=None):
        restored = i == 0 and chosen
        half = photo.width / 2
        return FaceReport(
            index=i,
            box=[i * half, 0.0, (i + 1) * half, float(photo.height)],
            pose=[12.3, 0.0, 0.0],
            score=0.9,
            restored=restored,
            reason="" if restored else "too small: 3.0 px between the eyes, 4 are needed" if i else "not selected",
            strength=float(restored),
            fidelity=0.5,
            identity_distance=0.31 if restored else 0.0,
            reference_before=None if reference is None else 0.6 + 0.1 * i,
            reference_after=None if reference is None else 0.4 + 0.2 * i,
            guided=reference is not None and i == 0,
            crop_pixels=80.0,
        )


class Slow:
    """Takes its time, and counts how many are at work at once."""

    def __init__(self, pipeline, seconds=0.1):
        self.seconds = seconds
        self.pipeline, self.components, self.find = pipeline, pipeline.components, pipeline.find
        self.leads = pipeline.leads
        self.inside, self.most, self.lock = 0, 0, threading.Lock()

    def __call__(self, *arguments, **settings):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(self.seconds)
        try:
            return self.pipeline(*arguments, **settings)
        finally:
            with self.lock:
                self.inside -= 1


class Long(Slow):
    """Works for a time in many small steps of a network, as real ones do; `inside` is how many are at work."""

    def __call__(self, *arguments, **settings):
        with self.lock:
            self.inside += 1
        try:
            end = time.perf_counter() + self.seconds
            while time.perf_counter() < end:
                self.components["restorer"](tiny.image(32, 32)[None])
                time.sleep(0.02)
            return self.pipeline(*arguments, **settings)
        finally:
            with self.lock:
                self.inside -= 1


class ToyComparer(Comparer):
    """The real one over toy networks: two faces in any photo that is not of one colour."""

    def __init__(self):
        pipeline = tiny.restore_pipeline()
        finder = tiny.TwoFaces(pipeline.finder().detector, pipeline.mesh)
        super().__init__(finder, IdentityEncoder(pipeline.identity))


class ToyAlbum(AlbumMaker):
    """Likewise: the real one over toy networks."""

    def __init__(self, finder=tiny.TwoFaces):
        pipeline = tiny.restore_pipeline()
        super().__init__(finder(pipeline.finder().detector, pipeline.mesh), IdentityEncoder(pipeline.identity))
