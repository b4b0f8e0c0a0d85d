"""The Upsample tab: a tiny face in, several large faces that shrink to it out."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import gradio as gr
import torch

from studio import images
from studio.errors import InputError, StudioError

if TYPE_CHECKING:
    from pipelines.upsample import UpsamplePipeline, UpsampleReport

WAITING = "Choose a tiny face, then press Search."
STOPPED = "Stopped. Nothing was found."
MAX_PIXELS = 4_000_000  # of the input: what holds only a tiny face is small
MAX_SAMPLES = 8
PROGRESS = gr.Progress()


class Stopped(Exception):  # noqa: N818 - not an error: the visitor pressed Cancel
    """Ends a search from inside."""


# ---- widgets


def tab(pipeline: Callable[[], UpsamplePipeline]) -> None:
    """Lay the tab out, inside a `gr.Blocks`, and connect it.

    Args:
        pipeline: gives the pipeline, loading it if need be.
    """
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            upload = gr.File(label="Tiny face", file_types=["image", *images.SUFFIXES], height=150)
            find = gr.Checkbox(
                False, label="Find the face", info="The file is a small photo with one face, not the face itself"
            )
            with gr.Row():
                start = gr.Button("Search", variant="primary", min_width=120)
                stop = gr.Button("Cancel", min_width=120)
            with gr.Accordion("Options", open=False):
                samples = gr.Slider(1, MAX_SAMPLES, 4, step=1, label="Samples", info="Each is another guess")
                steps = gr.Slider(10, 200, 80, step=10, label="Steps", info="More come nearer, and take longer")
                seed = gr.Number(0, label="Seed", info="0 starts at the nearest faces, others elsewhere", precision=0)
                reference = gr.File(
                    label="Reference (optional): another photo of the person",
                    file_types=["image", *images.SUFFIXES],
                    height=120,
                )
        with gr.Column(scale=3, min_width=320):
            message = gr.HTML(line(WAITING))
            found = gr.Gallery(
                label="Guesses: the small face, then the samples",
                format="png",
                columns=2,
                height="auto",
                object_fit="contain",
                buttons=["download", "fullscreen"],
                interactive=False,
            )
            with gr.Accordion("Report (JSON)", open=False):
                report = gr.JSON(label="Report")
    runner = Runner(pipeline)
    running = start.click(
        runner.run,
        [upload, find, samples, steps, seed, reference],
        [found, report, message],
        api_name="upsample",
        api_description="Search for large faces that shrink to a tiny one. Returns the small face and the samples as "
        "PNG, the JSON report and a message",
        concurrency_limit=1,
        concurrency_id="pipelines",
        scroll_to_output=True,
        show_progress_on=found,
    )
    stop.click(
        runner.stop, None, message, cancels=[running], queue=False, api_visibility="private", show_progress="hidden"
    )


def line(text: str) -> str:
    """A message that screen readers say when it changes."""
    return f'<p role="status" class="message">{html.escape(text)}</p>'


# ---- events


class Runner:
    """Runs the pipeline for the visitors, one at a time, and stops it for them.

    Args:
        pipeline: gives the pipeline, loading it if need be.
    """

    def __init__(self, pipeline: Callable[[], UpsamplePipeline]) -> None:
        self._pipeline = pipeline
        self._busy = threading.Lock()
        self._stops: dict[str | None, threading.Event] = {}

    def run(
        self,
        photo: str | None,
        find: bool = False,
        samples: int = 4,
        steps: int = 80,
        seed: int = 0,
        reference: str | None = None,
        request: gr.Request | None = None,
        progress: gr.Progress = PROGRESS,
    ) -> Iterator[list[Any]]:
        """Search an uploaded file: first empties the page, then fills it.

        Raises:
            gr.Error: with the line of a `StudioError`.
        """
        yield [[], None, line("Working …")]
        visitor = request and request.session_hash
        stop = self._stops[visitor] = threading.Event()

        def on_step(pipeline: UpsamplePipeline, step: int, timestep: int, given: dict[str, Any]) -> dict[str, Any]:
            if stop.is_set():
                raise Stopped
            progress((step + 1, int(steps)), desc="Searching", unit="steps")
            return given

        try:
            with TemporaryDirectory() as folder:  # gradio copies the files it is given, then comes back here
                with self._busy:
                    progress(0, desc="Loading the model")
                    pipeline = self._pipeline()
                    shown, report = search(
                        pipeline, photo, Path(folder), find, int(samples), int(steps), int(seed), reference, on_step
                    )
                yield [shown, report.to_dict(), line(verdict(report))]
        except Stopped:
            yield [[], None, line(STOPPED)]
        except StudioError as error:
            yield [[], None, line(str(error))]
            raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from error
        finally:
            if self._stops.get(visitor) is stop:  # and not already the next run's
                del self._stops[visitor]

    def stop(self, request: gr.Request) -> Any:
        """End what this visitor has running, before the next step; the message says so."""
        stop = self._stops.get(request.session_hash)
        if stop is None:
            return gr.skip()
        stop.set()
        return line(STOPPED)


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
    on_step: Callable[..., Any],
) -> tuple[list[tuple[Path, str]], UpsampleReport]:
    """Search one file and write what the page shows: PNG files with captions, the small face first.

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
        num_samples=samples,
        steps=steps,
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
    for k, (picture, sample) in enumerate(zip(output.images[0], report.samples, strict=True)):
        caption = f"Guess {k + 1}: error {sample.downscale_error:.4f}, {'found' if sample.converged else 'not found'}"
        shown.append((images.save(picture, folder / f"guess_{k + 1}.png"), caption))
    return shown, report


def verdict(report: UpsampleReport) -> str:
    """The report in one line."""
    found = sum(sample.converged for sample in report.samples)
    count = len(report.samples)
    apart = report.mean_identity_distance
    differ = "" if apart is None else f" Identity distance between them {apart:.2f} (0.6 and more: different people)."
    return f"{found} of {count} shrink to the small face. These are guesses, not the person.{differ}"
