"""The Turn tab: a photo of one face in, the same person looking into the camera or elsewhere out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio import images, provenance
from studio.device import pick_device
from studio.errors import InputError
from studio.ui.common import MAX_PIXELS, PROGRESS, Lane, ask, connect, face_choice, fresh, line, more, results, upload
from studio.ui.lane import follow, on_gpu
from studio.ui.onward import Ends

if TYPE_CHECKING:
    from pipelines.frontalize import FrontalizePipeline, FrontalizeReport

TITLE = "Turn"
WAITING = "Choose a photo of one face, then press Turn."
SEARCH = 20
REFINEMENT = 30


def load() -> FrontalizePipeline:
    """The pipeline, on the GPU where there is one."""
    from studio import FrontalizePipeline  # seconds of imports, which the page need not wait for

    return FrontalizePipeline.from_pretrained("frontalize", device=pick_device("auto"))


# ---- widgets


def tab(pipeline: Callable[[], FrontalizePipeline]) -> Ends:
    """Lay the tab out, inside a `gr.Blocks`, and connect it.

    Args:
        pipeline: gives the pipeline, loading it if need be.
    """
    with gr.Row(elem_classes="work"):
        with ask():
            photo = upload("Photo of a face")
            yaw = gr.Slider(
                -45, 45, 0, step=1, label="Left or right", info="Degrees; 0 looks into the camera, above 0 left"
            )
            with gr.Row():
                start = gr.Button("Turn", variant="primary", min_width=120)
                stop = gr.Button("Cancel", min_width=120)
        message, found, report, onward = results(TITLE, WAITING, "The face in the photo, and turned", columns=2)
        with more(), gr.Accordion("Options", open=False):
            keep_pitch = gr.Checkbox(True, label="Look up or down as in the photo")
            pitch = gr.Slider(
                -35, 20, -8, step=1, label="Up or down", info="Degrees, if not as it is; about -8 is level"
            )
            neutral = gr.Checkbox(False, label="Neutral expression", info="Mouth closed, no smile")
            background = gr.Checkbox(
                True, label="Keep the background", info="The photo's own, where the head turns by 12° at most"
            )
            face = face_choice("Face", "The only one", "1 is the largest")
            steps = gr.Slider(0, 100, SEARCH, step=10, label="Steps", info="Of the search; 0: as predicted")
    fresh([photo], message, WAITING)
    runner = Runner(pipeline)
    connect(
        start,
        stop,
        runner.lane,
        runner.frontalize,
        [photo, yaw, keep_pitch, pitch, neutral, background, face, steps],
        [found, report, message],
        message=message,
        api_name="frontalize",
        api_description="Turn the face of a photo into the camera, or to another angle. Returns the face of the photo "
        "and a synthetic likeness as PNG, the JSON report and a message",
    )
    return Ends(photo, onward)


# ---- events


class Runner:
    """Runs the pipeline for the visitors.

    Args:
        pipeline: gives the pipeline, loading it if need be.
    """

    def __init__(self, pipeline: Callable[[], FrontalizePipeline]) -> None:
        self.pipeline = pipeline
        self.lane = Lane()
        self._call = on_gpu(self.call)

    def frontalize(
        self,
        photo: str | None,
        yaw: float = 0.0,
        keep_pitch: bool = True,
        pitch: float = -8.0,
        neutral: bool = False,
        background: bool = True,
        face: int = -1,
        steps: int = SEARCH,
        request: gr.Request | None = None,
        progress: gr.Progress = PROGRESS,
    ) -> Iterator[list[Any]]:
        """Turn the face of a photo. The result is a synthetic likeness, not a photograph.

        Args:
            photo: with one face, or with several and `face`.
            yaw: -45 to 45 degrees; 0 looks into the camera, above 0 to the left side of the picture.
            keep_pitch: look up or down as in the photo.
            pitch: -35 to 20 degrees, if it is not kept; about -8 is level.
            neutral: close the mouth and take the smile away.
            background: keep the photo's own where the head turns little.
            face: 0 is the largest; -1 asks for a photo of one face.
            steps: of the search for a likeness, which starts from the front that a network predicts; 0 takes that.
            request: filled in by gradio.
            progress: filled in by gradio.

        Raises:
            gr.Error: with the line of a `StudioError`.
        """

        def work(folder: Path, stop: threading.Event) -> tuple[list[Any], str]:
            progress(0, desc="Loading the model")
            self.pipeline()  # before a GPU is lent
            settings = {
                "yaw": yaw,
                "pitch": None if keep_pitch else pitch,
                "expression": "neutral" if neutral else "keep",
                "background": "keep" if background else "generated",
                "face": None if int(face) == -1 else int(face),
                "num_inference_steps": int(steps),
                "refinement_steps": REFINEMENT,
            }
            total = int(steps) + REFINEMENT
            on_step = follow(stop, progress, total, lambda _: "Searching and turning")
            shown, report, lacking = self._call(photo, folder, settings, on_step)
            return [shown, report.to_dict(), line(verdict(report), done=True)], lacking

        yield from self.lane.steps(work, lambda message: [[], None, line(message)], [photo], request)

    def call(self, photo: str | None, folder: Path, *settings: Any) -> tuple[list[tuple[Path, str]], Any, str]:
        """`turn` with this runner's pipeline."""
        return turn(self.pipeline(), photo, folder, *settings)


# ---- the pipeline call


def turn(
    pipeline: FrontalizePipeline,
    source: str | Path | None,
    folder: Path,
    settings: dict[str, Any],
    on_step: Callable[..., Any] | None,
) -> tuple[list[tuple[Path, str]], FrontalizeReport, str]:
    """Turn one file and write what the page shows: PNG files with captions, the photo's face first.

    Returns:
        The files, the report, and why the result has no mark or no credentials ("" where it has both).

    Raises:
        InputError: no file, or an argument outside its range.
        ImageError: a file that is no usable photo.
    """
    if source is None:
        raise InputError("a photo is needed, got none: choose a file first")
    photo = images.load(source, max_pixels=MAX_PIXELS)
    output = pipeline(photo, **settings, callback_on_step_end=on_step, output_type="pt")
    report = output.reports[0]
    before = images.save(output.crops[0], folder / "face.png")
    after = folder / "turned.png"
    made = provenance.Operation("frontalize", "a likeness out of the prior, turned", settings)
    lacking = provenance.save_synthetic(output.images[0], after, made, source=Path(source).read_bytes())
    captions = (f"In the photo: yaw {report.pose_before[0]:+.0f}°", f"Synthetic: yaw {report.pose_after[0]:+.0f}°")
    return list(zip((before, after), captions, strict=True)), report, lacking


def verdict(report: FrontalizeReport) -> str:
    """The report in one line."""
    person = (
        "below 0.6, the same person to the encoder, which took part"
        if report.same_person
        else "0.6 and more: not this person any more"
    )
    return (
        f"Turned from {report.pose_before[0]:+.0f}° to {report.pose_after[0]:+.0f}°. A synthetic likeness: identity "
        f"distance to the photo {report.identity_distance:.2f} ({person})."
    )
