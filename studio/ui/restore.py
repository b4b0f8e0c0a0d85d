"""The Restore tab: a photograph in, the restored one and a report of every face out; or many, and a zip."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from studio.batch import RESTORED
from studio.device import pick_device
from studio.errors import StudioError
from studio.faces.select import parse_boxes
from studio.ui import restore_many
from studio.ui.common import (
    HOUR,
    PRIVATE,
    PROGRESS,
    Lane,
    Models,
    answer,
    ask,
    connect,
    fresh,
    more,
    not_loaded,
    read,
    shelf,
    upload,
    warn,
)
from studio.ui.lane import follow, on_gpu, watched, zero_gpu
from studio.ui.onward import Ends, Onward
from studio.ui.restore_call import REFERENCE_STEPS, Result, restore_photo
from studio.ui.restore_choice import Found, click, mark, named, preview
from studio.ui.restore_options import looks, of_look, of_strip, options, strip
from studio.ui.restore_result import outputs, values

if TYPE_CHECKING:
    from pipelines.restore import RestorePipeline

TITLE = "Restore"
WAITING = "Choose a photo, then press Restore."
REFERENCE = (
    "What the damage took is drawn like this person, whose face is the largest there, in the one chosen face that is "
    "nearest to them. With a photo of somebody else it draws somebody else. Takes a few seconds more."
)
MISSING = (
    "Tick the box, then click two opposite corners of the face in the photo above, from forehead to chin. It gets a "
    "frame and a number as the others have."
)


def load(name: str = "restore") -> RestorePipeline:
    """The pipeline of a model, the committed one by default, on the GPU where there is one."""
    from studio import RestorePipeline  # seconds of imports, which the page need not wait for

    return RestorePipeline.from_pretrained(name, device=pick_device("auto"))


# ---- widgets


def tab(pipeline: Callable[[], RestorePipeline]) -> Ends:
    """Lay the tab out, inside a `gr.Blocks`, and connect it.

    Args:
        pipeline: gives the pipeline, loading it if need be.
    """
    models = Models(pipeline, load)
    with gr.Tabs() as parts:
        with gr.Tab("One photo", id="one"):
            photo, onward = one(models)
        with gr.Tab("Many photos", id="many"):
            restore_many.section(models)
    return Ends(photo, onward, {parts: gr.update(selected="one")})


def one(models: Models) -> tuple[gr.File, Onward]:
    """The part for one photo: choose faces, compare, look at every face."""
    found = gr.State(time_to_live=HOUR)
    with gr.Row(elem_classes="work"):
        with ask():
            photo = upload("Photo")
            chosen = gr.Image(
                label="Your photo: click a face to choose it, or to leave it out",
                alt_text="Your photo, with a numbered frame around every face",
                format="png",
                interactive=False,
                visible=False,
                buttons=[],
                height=320,
            )
            picked = gr.CheckboxGroup([], label="Faces to restore", visible=False)
            faces = gr.Textbox("all", label="Faces to restore", visible="hidden")  # as the endpoint takes them
            with gr.Row():
                start = gr.Button("Restore", variant="primary", min_width=120)
                stop = gr.Button("Cancel", min_width=120)
            with gr.Column() as examples:
                shelf(photo)
        with answer(WAITING) as message:
            further, shown = outputs()
        with more():
            look, ways = looks(), strip()
            with gr.Accordion("A face is missing?", open=False):
                gr.Markdown(MISSING)
                marking = gr.Checkbox(False, label="Mark a face in the photo above")
                boxes = gr.Textbox(
                    "",
                    label="Faces marked by hand",
                    info="x0,y0,x1,y1 in pixels of the photo, parted by semicolons; empty: none",
                )
                aligned = gr.Checkbox(
                    False, label="The photo is nothing but a face", info="cut as FFHQ or published restorers cut it"
                )
            with gr.Accordion("Another photo of the person (optional)", open=False):
                gr.Markdown(REFERENCE)
                reference = upload("A sharper photo", height=120)
            with gr.Accordion("Options", open=False):  # closed: on a phone the result would be far below them
                settings, background, drawing, model = options()
    runner = Runner(models)
    seen = [chosen, faces, picked, found]
    photo.change(preview, photo, [photo, *seen, boxes, aligned, examples], concurrency_limit=2, **PRIVATE).then(
        runner.look, [photo, found], seen, concurrency_limit=1, **PRIVATE
    )
    fresh([photo], message, WAITING)
    chosen.select(click, [faces, found, marking, boxes], [faces, chosen, found, marking, boxes], queue=False, **PRIVATE)
    boxes.change(runner.look, [photo, found, boxes, aligned], seen, concurrency_limit=1, **PRIVATE)
    aligned.input(runner.look, [photo, found, boxes, aligned], seen, concurrency_limit=1, **PRIVATE)
    picked.input(named, [picked, found], faces, queue=False, **PRIVATE)
    faces.change(mark, [faces, found], [chosen, picked], concurrency_limit=2, **PRIVATE)
    of_look(look, settings[0])
    chosen_way = of_strip(ways, look, settings[0])
    file, report, *rest = shown
    connect(
        start,
        stop,
        runner.lane,
        runner.restore,
        [photo, faces, *settings, reference, background, boxes, aligned, *drawing, model],
        [file, report, message, *rest, ways],
        message=message,
        after=[chosen_way],
        api_name="restore",
        api_description="Restore the faces of a photo. Returns the restored file (or null), the JSON report, and what "
        "the page shows: a message, the slider's PNG pair, the faces as an HTML table and as pictures, "
        "what was drawn, and the largest face in three ways",
    )
    # Not among the outputs of `run`, where a script would get this change of the button instead of a path.
    report.change(
        lambda found: gr.DownloadButton(interactive=bool(found and found["output"])),
        report,
        file,
        queue=False,
        **PRIVATE,
    )
    return photo, further


# ---- events


class Runner:
    """Runs the pipeline for the visitors.

    Args:
        models: gives the pipeline of a model, loading it if need be; or a function that gives ours alone.
    """

    def __init__(self, models: Models | Callable[[], RestorePipeline]) -> None:
        self.models = models if isinstance(models, Models) else Models(models, not_loaded)
        self.lane = Lane()
        self._call, self._find = on_gpu(self.call), on_gpu(self.find, seconds=15)

    def restore(
        self,
        photo: str | None,
        faces: str = "all",
        fidelity: float = 0.5,
        strength: float = 1.0,
        scale: float | str = "auto",
        identity_guard: float = 0.6,
        colorize: bool = False,
        file_format: str = "png",
        credentials: bool = True,
        reference: str | None = None,
        background: str = "lanczos",
        boxes: str = "",
        aligned: bool = False,
        region: str = "auto",
        seed: int = 0,
        model: str = "restore",
        request: gr.Request | None = None,
        progress: gr.Progress = PROGRESS,
    ) -> Iterator[list[Any]]:
        """Restore the faces of an uploaded photograph.

        Args:
            photo: JPEG, PNG, WebP, TIFF, BMP, AVIF, HEIC or GIF file.
            faces: "all", "largest", or numbers such as "0,2": largest first.
            fidelity: 0 to 1. 0 shows the model's idea of the face, 1 only what the photo shows.
            strength: 0 to 1, share of the restored face in the result.
            scale: 1, 1.5, 2, 3 or 4 times the photo's size; "auto" makes it as large as its largest face needs it.
            identity_guard: largest identity distance between a face before and after; 0 switches the guard off.
            colorize: give a black-and-white photo the model's colours in the faces.
            file_format: "png", "tiff" or "jpg".
            credentials: sign the file with Content Credentials.
            reference: another photo of the person, to draw what is lost like them.
            background: around the faces: "none" keeps the photo's size and pixels, "lanczos" enlarges them by
                interpolation, "span" and "realesrgan" draw them by a network.
            boxes: faces that are not found, "x0,y0,x1,y1" in pixels, parted by semicolons.
            aligned: the photo is nothing but a face, cut as FFHQ or published restorers cut it.
            region: "face", "head", "photo" (the rest is cleaned, too), or "auto": "photo" where the rest needs it.
            seed: another one draws another face, where the damage leaves a choice.
            model: "restore", which is ours, or a published one: "gfpgan-1.4", "codeformer" …; see docs/models.md.
            request: filled in by gradio.
            progress: filled in by gradio.

        Raises:
            gr.Error: with the line of a `StudioError`.
        """
        settings = {
            "faces": faces,
            "fidelity": fidelity,
            "strength": strength,
            "scale": scale,
            "identity_guard": identity_guard,
            "colorize": colorize,
            "file_format": file_format,
            "credentials": credentials,
            "reference": reference,
            "background": background,
            "boxes": boxes,
            "aligned": aligned,
            "region": region,
            "seed": seed,
            "model": model,
        }

        def work(folder: Path, stop: threading.Event) -> tuple[list[Any], str]:
            progress(0, desc="Loading the model")
            pipeline = self.models(model)
            on_step = follow(stop, progress, REFERENCE_STEPS, lambda _: "Drawing the person of the other photo")
            with nullcontext() if zero_gpu() else watched(pipeline, stop, progress, background):
                result = self._call(photo, folder, settings | {"on_step": on_step})
            return values(result), "" if result.report.status == RESTORED else result.message

        yield from self.lane.steps(work, lambda message: values(message=message), [photo, reference], request)

    def call(self, photo: str | None, folder: Path, settings: dict[str, Any]) -> Result:
        """`restore_photo` with the pipeline of the model in `settings`."""
        return restore_photo(self.models(settings["model"]), photo, folder, **settings)

    def find(self, path: str, boxes: str = "", aligned: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (N,4) of the faces in a file, in widths of the photo, and which are given; see `restore`."""
        photo = read(path)
        faces = self.models().find(photo, parse_boxes(boxes) or None, aligned)
        return faces.boxes / photo.width, faces.given

    def look(self, path: str | None, found: Found | None, boxes: str = "", aligned: bool = False) -> list[Any]:
        """Find the faces of the uploaded photo, so that they can be chosen by a click or from the list."""
        if path is None or found is None:
            return [gr.skip(), gr.skip(), gr.skip(), None]
        try:
            self.models()  # before a GPU is lent
            places, given = self._find(path, boxes, aligned)
        except StudioError as error:
            warn(error)
            return [gr.skip(), gr.skip(), gr.skip(), found]
        found = replace(found, boxes=places * found.pixels.shape[2], given=given)
        picture, picked = mark("all", found)
        return [picture, "all", picked, found]
