"""The Reenact tab: a photo of a person who agreed to it in, a video out in which they move as somebody else does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.device import pick_device
from studio.ui.common import (
    PRIVATE,
    PROGRESS,
    Lane,
    answer,
    ask,
    connect,
    face_choice,
    fresh,
    line,
    more,
    upload,
)
from studio.ui.lane import Stopped, on_gpu, zero_gpu
from studio.ui.onward import Ends, onward
from studio.ui.reenact_call import LONGEST, MOVES, OnFrame, check, make_up, move, verdict

if TYPE_CHECKING:
    from pipelines.reenact import ReenactPipeline, ReenactReport

TITLE = "Reenact"
WAITING = "Choose a photo of one face, tick that the person agreed, then press Reenact."
CONSENT = "The person agreed to this, or died long ago"
REGIONS = [("Everything", "all"), ("The turn of the head alone", "pose"), ("Mouth", "mouth"), ("Eyes", "eyes")]
GPU_SECONDS = 120  # asked for where a GPU is lent


def load() -> ReenactPipeline:
    """The reenact pipeline, on the GPU where there is one."""
    from studio import ReenactPipeline  # seconds of imports, which the page need not wait for

    return ReenactPipeline.from_pretrained("reenact", device=pick_device("auto"))


# ---- widgets


def tab(pipeline: Callable[[], ReenactPipeline]) -> Ends:
    """Lay the tab out, inside a `gr.Blocks`, and connect it.

    Args:
        pipeline: gives the pipeline, loading it if need be.
    """
    with gr.Row(elem_classes="work"):
        with ask():
            photo = upload("Photo of a face")
            consent = gr.Checkbox(False, label=CONSENT, info="Needed; written into every result")
            by = gr.Radio(MOVES, value="made up", label="Moved by")
            with gr.Group() as made_up:
                yaw = gr.Textbox("0,20,-20,0", label="Yaw", info="Degrees, evenly spread over the time; above 0 left")
                smile = gr.Textbox("0,1,0", label="Smile", info="The same; 1 is broad")
                talk = gr.Textbox("", label="Talk", info="What the mouth says, such as: hello there. Without sound")
                seconds = gr.Slider(1, LONGEST, 4, step=0.5, label="Seconds")
            with gr.Group(visible=False) as driven:
                driving = upload("Driving video")
            with gr.Row():
                start = gr.Button("Reenact", variant="primary", min_width=120)
                stop = gr.Button("Cancel", min_width=120)
        with answer(WAITING) as message:
            shown, report = result()
        with more(), gr.Accordion("Options", open=False):
            options = further()
    fresh([photo, driving], message, WAITING)
    by.change(lambda chosen: [gr.update(visible=chosen == name) for _, name in MOVES], by, [made_up, driven], **PRIVATE)
    runner = Runner(pipeline)
    connect(
        start,
        stop,
        runner.lane,
        runner.reenact,
        [photo, consent, by, driving, yaw, smile, talk, seconds, *options],
        [shown, report, message],
        message=message,
        api_name="reenact",
        api_description="Move the face of a photo of a person who agreed to it as a face in a video moves, or as is "
        "made up. Returns an MP4 file, the JSON report and a message",
    )
    return Ends(photo)


def further() -> list[Any]:
    """What few people need."""
    return [
        gr.Checkbox(True, label="Relative", info="Add the driver's changes; off: the turn of the driver's head"),
        gr.Radio(REGIONS, value="all", label="What moves"),
        gr.Slider(0, 2, 1, step=0.1, label="Expression", info="How much of the driver's"),
        gr.Radio(
            [("256 px", 256), ("512 px", 512)], value=256, label="Face", info="Side of what is moved; 512 is slow"
        ),
        gr.Checkbox(True, label="Whole photo", info="Off: the aligned face alone"),
        face_choice("Face in the photo", "The only one", "1 is the largest"),
        face_choice("Face in the video", "The largest", "As one reads, 1 is the first"),
        gr.Checkbox(True, label="Sound", info="The driving video's"),
    ]


def result() -> tuple[gr.Video, gr.JSON]:
    """The video and the report."""
    file = onward(TITLE, usable=False).file
    shown = gr.Video(
        label="Synthetic: a photograph that was made to move",
        interactive=False,
        autoplay=True,
        loop=True,
        buttons=[],
    )
    shown.change(
        lambda path: gr.DownloadButton(value=path, interactive=bool(path)), shown, file, queue=False, **PRIVATE
    )
    with gr.Accordion("Report (JSON)", open=False):
        report = gr.JSON(label="Report")
    return shown, report


# ---- events


class Runner:
    """Runs the pipeline for the visitors.

    Args:
        pipeline: gives the pipeline, loading it if need be.
    """

    def __init__(self, pipeline: Callable[[], ReenactPipeline]) -> None:
        self.pipeline = pipeline
        self.lane = Lane()
        self._call = on_gpu(self.call, GPU_SECONDS)

    def reenact(
        self,
        photo: str | None,
        consent: bool = False,
        by: str = "made up",
        driving: str | None = None,
        yaw: str = "0,20,-20,0",
        smile: str = "0,1,0",
        talk: str = "",
        seconds: float = 4.0,
        relative: bool = True,
        region: str = "all",
        expression: float = 1.0,
        size: int = 256,
        stitch: bool = True,
        face: int = -1,
        driving_face: int = -1,
        sound: bool = True,
        request: gr.Request | None = None,
        progress: gr.Progress = PROGRESS,
    ) -> Iterator[list[Any]]:
        """Move the face of a photo. The result is a synthetic video; the person must have agreed to it.

        Args:
            photo: with one face, or with several and `face`.
            consent: the person of the photo agreed to this, or died long ago; needed.
            by: "made up", by yaw, smile, talk and seconds; or "video", by the driving video.
            driving: a video of a face, at most 750 frames.
            yaw: degrees, as "0,20,-20,0", evenly spread over the time; above 0 to the left of the picture.
            smile: likewise; 1 is broad.
            talk: what the mouth says.
            seconds: how long what is made up is, at most 20.
            relative: add the driver's changes; else the driver's turn of the head as it is.
            region: "all", "pose" (the turn of the head alone), "mouth" or "eyes".
            expression: how much of the driver's, 0 to 2.
            size: 256 or 512 px, side of the aligned face that is moved.
            stitch: the whole photo; else the aligned face alone.
            face: of the photo, 0 is the largest; -1 asks for a photo of one face.
            driving_face: of the video, from 0 as one reads; -1 is the largest.
            sound: lay the driving video's under it.
            request: filled in by gradio.
            progress: filled in by gradio.

        Raises:
            gr.Error: with the line of a `StudioError`.
        """
        settings = {
            "consent": bool(consent),
            "relative": bool(relative),
            "region": region,
            "expression_scale": float(expression),
            "stitch": bool(stitch),
            "size": int(size),
            "face": None if int(face) == -1 else int(face),
        }
        invented = {"yaw": yaw, "smile": smile, "talk": talk, "seconds": seconds} if by == "made up" else None

        def work(folder: Path, stop: threading.Event) -> tuple[list[Any], str]:
            check(settings, by, driving)
            motion = None if invented is None else make_up(**invented)
            progress(0, desc="Loading the model")
            self.pipeline()  # before a GPU is lent
            of = None if int(driving_face) == -1 else int(driving_face)
            shown, report, lacking = self._call(
                photo, folder, settings, motion, driving, of, bool(sound), told(stop, progress)
            )
            return [shown, report.to_dict(), line(verdict(report), done=True)], lacking

        yield from self.lane.steps(work, lambda message: [None, None, line(message)], [photo], request)

    def call(self, photo: str | None, folder: Path, *settings: Any) -> tuple[Path, ReenactReport, str]:
        """`move` with this runner's pipeline."""
        return move(self.pipeline(), photo, folder, *settings)


def told(stop: threading.Event, progress: Callable[..., Any]) -> OnFrame | None:
    """Says how many frames are done of how many, and ends the call with `Stopped` when `stop` is set.

    None where a call goes to another process, which it could not be sent to.
    """
    if zero_gpu():
        return None

    def on_frame(doing: str, done: int, total: int | None) -> None:
        if stop.is_set():
            raise Stopped
        progress((done, total), desc=doing, unit="frames")

    return on_frame
