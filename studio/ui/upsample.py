"""The Upsample tab: a tiny face in, several large faces that shrink to it out."""

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
from studio.ui.common import PROGRESS, Lane, ask, connect, fresh, line, more, results, upload
from studio.ui.lane import follow, on_gpu
from studio.ui.onward import Ends

if TYPE_CHECKING:
    from pipelines.upsample import UpsamplePipeline, UpsampleReport

TITLE = "Upsample"
WAITING = "Choose a tiny face, then press Search."
MAX_PIXELS = 4_000_000  # of the input: what holds only a tiny face is small
MAX_SAMPLES = 8


def load() -> UpsamplePipeline:
    """The upsample pipeline, on the GPU where there is one."""
    from studio import UpsamplePipeline  # seconds of imports, which the page need not wait for

    return UpsamplePipeline.from_pretrained("upsample", device=pick_device("auto"))


# ---- widgets


def tab(pipeline: Callable[[], UpsamplePipeline]) -> Ends:
    """Lay the tab out, inside a `gr.Blocks`, and connect it.

    Args:
        pipeline: gives the pipeline, loading it if need be.
    """
    with gr.Row(elem_classes="work"):
        with ask():
            photo = upload("Tiny face")
            find = gr.Checkbox(
                False, label="Find the face", info="The file is a small photo with one face, not the face itself"
            )
            with gr.Row():
                start = gr.Button("Search", variant="primary", min_width=120)
                stop = gr.Button("Cancel", min_width=120)
        message, found, report, onward = results(
            TITLE, WAITING, "Guesses: the small face, then the samples", 1, columns=3, elem_classes="guesses"
        )
        with more(), gr.Accordion("Options", open=False):
            samples = gr.Slider(1, MAX_SAMPLES, 4, step=1, label="Samples", info="Each is another guess")
            steps = gr.Slider(10, 200, 50, step=10, label="Steps", info="More come nearer, and take longer")
            seed = gr.Number(0, label="Seed", info="0 starts at the nearest faces, others elsewhere", precision=0)
            reference = upload("Reference (optional): another photo of the person", height=120)
    fresh([photo, reference], message, WAITING)
    runner = Runner(pipeline)
    connect(
        start,
        stop,
        runner.lane,
        runner.upsample,
        [photo, find, samples, steps, seed, reference],
        [found, report, message],
        message=message,
        api_name="upsample",
        api_description="Search for large faces that shrink to a tiny one. Returns the small face and the samples as "
        "PNG, the JSON report and a message",
    )
    return Ends(photo, onward, {find: True})  # a result holds more than a tiny face


# ---- events


class Runner:
    """Runs the pipeline for the visitors.

    Args:
        pipeline: gives the pipeline, loading it if need be.
    """

    def __init__(self, pipeline: Callable[[], UpsamplePipeline]) -> None:
        self.pipeline = pipeline
        self.lane = Lane()
        self._call = on_gpu(self.call)

    def upsample(
        self,
        photo: str | None,
        find: bool = False,
        samples: int = 4,
        steps: int = 50,
        seed: int = 0,
        reference: str | None = None,
        request: gr.Request | None = None,
        progress: gr.Progress = PROGRESS,
    ) -> Iterator[list[Any]]:
        """Search for large faces that shrink to a tiny one. They are guesses, not the person.

        Args:
            photo: the tiny face, 8 to 128 px a side, or a small photo with one face.
            find: the file is such a photo.
            samples: how many guesses.
            steps: of the search at most.
            seed: 0 starts at the nearest faces, others elsewhere.
            reference: another photo of the person who should be seen.
            request: filled in by gradio.
            progress: filled in by gradio.

        Raises:
            gr.Error: with the line of a `StudioError`.
        """

        def work(folder: Path, stop: threading.Event) -> tuple[list[Any], str]:
            progress(0, desc="Loading the model")
            self.pipeline()  # before a GPU is lent
            settings = (find, int(samples), int(steps), int(seed), reference)
            on_step = follow(stop, progress, int(steps), lambda _: "Searching")
            shown, report, lacking = self._call(photo, folder, *settings, on_step)
            return [shown, report.to_dict(), line(verdict(report), done=True)], lacking

        yield from self.lane.steps(work, lambda message: [[], None, line(message)], [photo, reference], request)

    def call(self, photo: str | None, folder: Path, *settings: Any) -> tuple[list[tuple[Path, str]], Any, str]:
        """`search` with this runner's pipeline."""
        return search(self.pipeline(), photo, folder, *settings)


# ---- the pipeline call


def search(
    pipeline: UpsamplePipeline,
    source: str | Path | None,
    folder: Path,
    find: bool,
    samples: int,
    steps: int,
    seed: int,
    reference: str | Path | None,
    on_step: Callable[..., Any] | None = None,
) -> tuple[list[tuple[Path, str]], UpsampleReport, str]:
    """Search one file and write what the page shows: PNG files with captions, the small face first.

    Returns:
        The files, the report, and why the guesses have no mark or no credentials ("" where they have both).

    Raises:
        InputError: no file, or an argument outside its range.
        ImageError: a file that is no usable photo.
    """
    if source is None:
        raise InputError("a tiny face is needed, got none: choose a file first")
    if not 1 <= samples <= MAX_SAMPLES:
        raise InputError(f"samples must be 1 to {MAX_SAMPLES} here, got {samples}: ask for less")
    photo = images.load(source, max_pixels=MAX_PIXELS)
    output = pipeline(
        photo,
        num_images_per_prompt=samples,
        num_inference_steps=steps,
        aligned=not find,
        reference=reference,
        generator=torch.Generator().manual_seed(seed) if seed else None,
        callback_on_step_end=on_step,
        output_type="pt",
    )
    report, small = output.reports[0], output.small[0]
    factor = max(1, output.images[0][0].shape[-1] // small.shape[-1] // 2)
    enlarged = small.repeat_interleave(factor, 1).repeat_interleave(factor, 2)  # its pixels, to be seen as they are
    shown = [(images.save(enlarged, folder / "small.png"), f"The small face, {report.size} px")]
    settings = {"num_images_per_prompt": samples, "num_inference_steps": steps, "aligned": not find, "seed": seed}
    made = provenance.Operation(
        "upsample", "a guess: one of the faces that shrink to the source", {**settings, "reference": bool(reference)}
    )
    data, lacking = Path(source).read_bytes(), ""
    for k, (picture, sample) in enumerate(zip(output.images[0], report.samples, strict=True)):
        caption = f"Guess {k + 1}: error {sample.drawn_error:.4f}, {'found' if sample.found else 'not found'}"
        file = folder / f"guess_{k + 1}.png"
        lacking = provenance.save_synthetic(picture, file, made, source=data)
        shown.append((file, caption))
    return shown, report, lacking


def verdict(report: UpsampleReport) -> str:
    """The report in one line."""
    found = sum(sample.found for sample in report.samples)
    count = len(report.samples)
    apart = report.mean_identity_distance
    differ = "" if apart is None else f" Identity distance between them {apart:.2f} (0.6 and more: different people)."
    return (
        f"{found} of {count} were found to shrink to the small face, the others fitted to it. "
        f"These are guesses, not the person.{differ}"
    )
