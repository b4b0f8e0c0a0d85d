"""The Generate tab: photos of a person who agreed to it in, new pictures of that person out; or people of nowhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import torch

from studio import images, provenance
from studio.device import pick_device
from studio.errors import InputError
from studio.ui.common import MAX_PIXELS, PROGRESS, Lane, ask, connect, fresh, line, more, results, upload
from studio.ui.lane import follow, on_gpu
from studio.ui.onward import Ends

if TYPE_CHECKING:
    from pipelines.generate import GeneratePipeline, GenerateReport

TITLE = "Generate"
WAITING = "Press Generate for people who do not exist, or choose photos of one person first."
MAX_SAMPLES = 8
CONSENT = "The person agreed to this, or died long ago"


def load() -> GeneratePipeline:
    """The generate pipeline, on the GPU where there is one."""
    from studio import GeneratePipeline  # seconds of imports, which the page need not wait for

    return GeneratePipeline.from_pretrained("generate", device=pick_device("auto"))


# ---- widgets


def tab(pipeline: Callable[[], GeneratePipeline]) -> Ends:
    """Lay the tab out, inside a `gr.Blocks`, and connect it.

    Args:
        pipeline: gives the pipeline, loading it if need be.
    """
    with gr.Row(elem_classes="work"):
        with ask():
            photos = upload("Photos of one person (optional)", many=True)
            consent = gr.Checkbox(False, label=CONSENT, info="Needed with photos; written into every result")
            with gr.Row():
                start = gr.Button("Generate", variant="primary", min_width=120)
                stop = gr.Button("Cancel", min_width=120)
        message, found, report, onward = results(
            TITLE, WAITING, "Generated: synthetic pictures, marked as such", 0, columns=2
        )
        with more(), gr.Accordion("Options", open=False):
            samples = gr.Slider(1, MAX_SAMPLES, 4, step=1, label="Pictures")
            guidance = gr.Slider(0.5, 4, 1, step=0.5, label="Guidance", info="More resembles more, and varies less")
            correction = gr.Slider(0, 80, 40, step=10, label="Correction", info="Steps towards the person; 0: none")
            turn = gr.Checkbox(False, label="Turn the head", info="To the angle below; else it is left to chance")
            yaw = gr.Slider(-40, 40, 0, step=5, label="Left or right", info="Degrees; above 0 looks to the left")
            smile = gr.Slider(-2, 2, 0, step=0.5, label="Smile", info="0 leaves it to chance")
            age = gr.Number(0, label="Age in years", info="30 to 80, as read off a face; 0: as it is", precision=0)
            seed = gr.Number(0, label="Seed", info="0 draws others every time", precision=0)
    fresh([photos], message, WAITING)
    runner = Runner(pipeline)
    connect(
        start,
        stop,
        runner.lane,
        runner.generate,
        [photos, consent, samples, guidance, correction, turn, yaw, smile, age, seed],
        [found, report, message],
        message=message,
        api_name="generate",
        api_description="Generate pictures of a person who agreed to it, from photos, or of people who do not exist. "
        "Returns PNG files, the JSON report and a message",
    )
    return Ends(onward=onward)


# ---- events


class Runner:
    """Runs the pipeline for the visitors.

    Args:
        pipeline: gives the pipeline, loading it if need be.
    """

    def __init__(self, pipeline: Callable[[], GeneratePipeline]) -> None:
        self.pipeline = pipeline
        self.lane = Lane()
        self._call = on_gpu(self.call)

    def generate(
        self,
        photos: list[str] | None = None,
        consent: bool = False,
        samples: int = 4,
        guidance: float = 1.0,
        correction: int = 40,
        turn: bool = False,
        yaw: float = 0.0,
        smile: float = 0.0,
        age: float = 0.0,
        seed: int = 0,
        request: gr.Request | None = None,
        progress: gr.Progress = PROGRESS,
    ) -> Iterator[list[Any]]:
        """Generate pictures of one person from photos, or of people who do not exist. They are synthetic.

        Args:
            photos: of one person; none generates people who do not exist.
            consent: the person agreed to this; needed with photos.
            samples: how many pictures.
            guidance: how much the identity counts.
            correction: gradient steps towards the person.
            turn: turn the head to `yaw`; else it is left to chance.
            yaw: degrees, above 0 looks to the left.
            smile: in standard deviations from the average face; 0 leaves it to chance.
            age: 30 to 80 years, as it is read off a face; 0 leaves it as the person is.
            seed: 0 draws others every time.
            request: filled in by gradio.
            progress: filled in by gradio.

        Raises:
            gr.Error: with the line of a `StudioError`.
        """

        def work(folder: Path, stop: threading.Event) -> tuple[list[Any], str]:
            progress(0, desc="Loading the model")
            settings = {
                "num_images_per_prompt": int(samples),
                "guidance_scale": float(guidance),
                "correction_steps": int(correction),
                "yaw": float(yaw) if turn else None,
                "smile": float(smile) or None,
                "age": float(age) or None,
            }
            self.pipeline()  # before a GPU is lent
            on_step = follow(
                stop, progress, None, lambda given: "Correcting" if "identity_distance" in given else "Drawing"
            )
            shown, report, lacking = self._call(photos, folder, bool(consent), settings, int(seed), on_step)
            return [shown, report.to_dict(), line(verdict(report), done=True)], lacking

        yield from self.lane.steps(work, lambda message: [[], None, line(message)], photos or [], request)

    def call(self, photos: list[str] | None, folder: Path, *settings: Any) -> tuple[list[tuple[Path, str]], Any, str]:
        """`make` with this runner's pipeline."""
        return make(self.pipeline(), photos, folder, *settings)


# ---- the pipeline call


def make(
    pipeline: GeneratePipeline,
    photos: list[str] | None,
    folder: Path,
    consent: bool,
    settings: dict[str, Any],
    seed: int,
    on_step: Callable[..., Any] | None,
) -> tuple[list[tuple[Path, str]], GenerateReport, str]:
    """Generate and write what the page shows: PNG files with captions.

    Returns:
        The files, the report, and why the pictures have no mark or no credentials ("" where they have both).

    Raises:
        InputError: no consent, or an argument outside its range.
        ImageError: a file that is no usable photo.
    """
    if not 1 <= settings["num_images_per_prompt"] <= MAX_SAMPLES:
        raise InputError(f"pictures must be 1 to {MAX_SAMPLES} here, got {settings['num_images_per_prompt']}")
    loaded = [images.load(photo, max_pixels=MAX_PIXELS) for photo in photos or ()]
    output = pipeline(
        loaded or None,
        consent,
        **settings,
        generator=torch.Generator().manual_seed(seed) if seed else None,
        callback_on_step_end=on_step,
        output_type="pt",
    )
    about = "a synthetic picture" + (" of a person, made with the stated consent" if loaded else " of nobody")
    stated = {**settings, "seed": seed, "person": bool(loaded), "consent": consent}
    made = provenance.Operation("generate", about, {k: v for k, v in stated.items() if v is not None})
    shown, lacking = [], ""
    for k, (picture, sample) in enumerate(zip(output.images, output.report.samples, strict=True)):
        file = folder / f"generated_{k + 1}.png"
        lacking = provenance.save_synthetic(picture, file, made)
        who = sample.identity_distance
        shown.append((file, f"Picture {k + 1}" + ("" if who is None else f": identity distance {who:.2f}")))
    return shown, output.report, lacking


def verdict(report: GenerateReport) -> str:
    """The report in one line."""
    count = len(report.samples)
    said = f"{count} synthetic picture{'s' if count > 1 else ''}."
    if report.references:
        mean = sum(sample.identity_distance for sample in report.samples) / count
        said += f" Identity distance to the person {mean:.2f} on average; below 0.6 counts as the same person."
        if report.samples[0].prior_distance is not None:
            said += " The encoder that measures it was followed, so that it flatters."
    left = [reference.name for reference in report.references if reference.outlier]
    prints = [reference.name for reference in report.references if reference.monochrome and not reference.outlier]
    if prints:
        said += (
            f" In one tone only: {', '.join(prints)}. Restored with the prior's colours first, it is a better photo."
        )
    return said + (f" Left out, probably somebody else: {', '.join(left)}." if left else "")
