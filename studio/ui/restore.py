"""The Restore tab: a photograph in, the restored one and a report of every face out; or many, and a zip."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np
import torch

from studio import images
from studio.background import NETWORKS
from studio.batch import NO_FACE, NONE_FOUND, RESTORED, UNCHANGED, FileReport, cut, seeded, with_credentials
from studio.device import pick_device
from studio.errors import ImageError, InputError, StudioError
from studio.faces.draw import draw_choice, draw_cross, draw_invented
from studio.faces.select import parse, parse_boxes
from studio.images import Photo
from studio.ui import restore_many
from studio.ui.common import (
    BACKGROUNDS,
    DISTANCE,
    HOUR,
    PRIVATE,
    PROGRESS,
    SIZES,
    Lane,
    Models,
    answer,
    ask,
    connect,
    fit,
    forget_unreadable,
    fresh,
    line,
    model_picker,
    more,
    not_loaded,
    read,
    rows,
    shelf,
    show,
    upload,
    warn,
)
from studio.ui.lane import follow, on_gpu, watched, zero_gpu

if TYPE_CHECKING:
    from pipelines.restore import FaceReport, RestorePipeline

TITLE = "Restore"
CROP_SIDE = 256  # px, in the strip of faces
CHOICE_SIDE = 800  # px, of the photo on which faces are chosen
STRIP = 40  # faces in the strip, largest first
REGIONS = [("Automatic", "auto"), ("Face", "face"), ("Whole head", "head"), ("Whole photo", "photo")]
LOOKS = {"Natural": 0.8, "Balanced": 0.5, "Sharpest": 0.2}  # fidelity
FORMATS = {"png": ".png", "tiff": ".tif", "jpg": ".jpg"}
COLUMNS = ["Face", "Restored", "Identity distance", "Why"]
WAITING = "Choose a photo, then press Restore."
REFERENCE = (
    "What the damage took is drawn like this person, whose face is the largest there, in the one chosen face that is "
    "nearest to them. With a photo of somebody else it draws somebody else. Takes a few seconds more."
)
REFERENCE_STEPS = 12
MISSING = (
    "Tick the box, then click two opposite corners of the face in the photo above, from forehead to chin. It gets a "
    "frame and a number as the others have."
)
NOBODY = (
    "No face was found in this photo, so nothing was restored. If there is one, mark it under “A face is missing?”, or "
    "say there that the photo is nothing but a face."
)
CORNER = 6  # px, of the cross at the first corner


@dataclass
class Result:
    """What the tab shows.

    Attributes:
        report: as the command line writes it.
        message: the report in one line.
        file: the restored photo, whole and in full quality; None where no face was restored.
        shown: the photo before and after, PNG files of one size; None where no face was restored.
        strip: PNG file of a face before and after, and its caption.
        invented: PNG file of the result in grey, in colour where the prior drew it; None where no face was restored.
    """

    report: FileReport
    message: str
    file: Path | None = None
    shown: tuple[Path, Path] | None = None
    strip: list[tuple[Path, str]] = field(default_factory=list)
    invented: Path | None = None


@dataclass
class Found:
    """The faces of an upload, to choose from.

    Attributes:
        pixels: the photo as shown, (3,H,W) uint8 RGB: it is kept for every visitor, so it is small.
        boxes: (N,4), x0, y0, x1, y1 in those pixels.
        given: (N,) bool, those that were marked by hand.
        scale: pixels of the photo for one of those.
        corner: (x, y) where a face that was not found begins, once the first corner is clicked; else None.
    """

    pixels: torch.Tensor
    boxes: np.ndarray
    given: np.ndarray
    scale: float = 1.0
    corner: tuple[int, int] | None = None


def load(name: str = "restore") -> RestorePipeline:
    """The pipeline of a model, the committed one by default, on the GPU where there is one."""
    from studio import RestorePipeline  # seconds of imports, which the page need not wait for

    return RestorePipeline.from_pretrained(name, device=pick_device("auto"))


# ---- widgets


def tab(pipeline: Callable[[], RestorePipeline]) -> None:
    """Lay the tab out, inside a `gr.Blocks`, and connect it.

    Args:
        pipeline: gives the pipeline, loading it if need be.
    """
    models = Models(pipeline, load)
    with gr.Tabs():
        with gr.Tab("One photo"):
            one(models)
        with gr.Tab("Many photos"):
            restore_many.section(models)


def one(models: Models) -> None:
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
            shown = outputs()
        with more():
            look = looks()
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
    file, report, *rest = shown
    connect(
        start,
        stop,
        runner.lane,
        runner.restore,
        [photo, faces, *settings, reference, background, boxes, aligned, *drawing, model],
        [file, report, message, *rest],
        message=message,
        api_name="restore",
        api_description="Restore the faces of a photo. Returns the restored file (or null), the JSON report, and what "
        "the page shows: a message, the slider's PNG pair, the faces as an HTML table and as before-and-after pictures",
    )
    # Not among the outputs of `run`, where a script would get this change of the button instead of a path.
    report.change(  # ty: ignore[missing-attribute] - gradio makes `change` at run time
        lambda found: gr.DownloadButton(interactive=bool(found and found["output"])),
        report,
        file,
        queue=False,
        **PRIVATE,
    )


def looks() -> gr.Radio:
    """Three ways to restore, in words, over the one number that tells them apart."""
    return gr.Radio(
        list(LOOKS),
        value="Balanced",
        label="How",
        info="Natural stays close to what the photo shows. Sharpest draws more, and invents more. Balanced is between",
    )


def of_look(look: gr.Radio, fidelity: gr.Slider) -> None:
    """Let the three ways and the number under Options follow each other."""
    look.input(lambda name: LOOKS[name], look, fidelity, queue=False, **PRIVATE)
    names = {value: name for name, value in LOOKS.items()}
    fidelity.release(lambda value: names.get(round(value, 2)), fidelity, look, queue=False, **PRIVATE)


def options() -> tuple[list[gr.components.Component], gr.Radio, list[gr.components.Component], gr.Dropdown]:
    """The arguments of the pipeline but for the choice of faces, and those of the file, in the order of `restore`.

    Background, region, seed and model are shown among them, but came later, so that they are later arguments.
    """
    model = model_picker()
    settings = [
        gr.Slider(
            0, 1, 0.5, step=0.05, label="Fidelity", info="0: the model's idea of the face. 1: only what the photo shows"
        ),
        gr.Slider(0, 1, 1, step=0.05, label="Strength", info="Share of the restored face in the result"),
        gr.Radio(
            SIZES,
            value="auto",
            label="Size of the result",
            info="Auto enlarges a photo whose faces are too small to show what was restored",
        ),
    ]
    background = gr.Radio(
        BACKGROUNDS,
        value="lanczos",
        label="Around the faces",
        info="Real-ESRGAN sharpens and cleans, but takes a minute or two for each million pixels, and paints grain and "
        "printing screens over. Keep: the photo's own size and pixels",
    )
    drawing = [
        gr.Radio(
            REGIONS,
            value="auto",
            label="What is restored",
            info="The whole photo: the rest is cleaned of noise, blocks and blur, without inventing anything. "
            "Automatic: where the rest needs it",
        ),
        gr.Number(
            0,
            label="Seed",
            precision=0,
            info="Where the damage leaves a choice, another number draws another face that it may have been",
        ),
    ]
    settings += [
        gr.Slider(
            0,
            1,
            0.6,
            step=0.05,
            label="Identity guard",
            info="Largest identity distance allowed; a face above it is blended back. 0 switches the guard off",
        ),
        gr.Checkbox(False, label="Colorize", info="Give a black-and-white photo the model's colours in the faces"),
        gr.Radio(
            [("PNG", "png"), ("TIFF", "tiff"), ("JPEG", "jpg")],
            value="png",
            label="File",
            info="PNG and TIFF keep everything, 16 bits and transparency included. JPEG is smaller and keeps neither",
        ),
        gr.Checkbox(
            True,
            label="Content Credentials",
            info="Sign the file: which faces were restored, by what, with which settings. Not your name, nor the "
            "photo's",
        ),
    ]
    return settings, background, drawing, model


def outputs() -> list[gr.components.Component]:
    """Where the result goes, in the order of `values` but for the message; what a script wants comes first."""
    slider = gr.ImageSlider(
        label="Before and after", format="png", max_height=640, interactive=False, buttons=["fullscreen"]
    )
    file = gr.DownloadButton("Download in full quality", interactive=False)
    strip = gr.Gallery(
        label="Faces, before and after",
        format="png",
        columns=2,
        height="auto",
        object_fit="contain",
        buttons=[],
        interactive=False,
        elem_classes="pairs",
    )
    faces = gr.HTML()
    with gr.Accordion("What the model drew, because the photo does not tell", open=False):
        invented = gr.Image(
            show_label=False,
            alt_text="The result in grey, in colour where the model drew its detail",
            format="png",
            interactive=False,
            buttons=["fullscreen"],
        )
    with gr.Accordion("Report (JSON)", open=False):
        report = gr.JSON(label="Report")
    return [file, report, slider, faces, strip, invented]


def values(result: Result | None = None, message: str = "") -> list[Any]:
    """A result for the widgets of `outputs`; without one they are emptied, and only the message is shown."""
    if result is None:
        return [None, None, line(message), None, "", [], None]
    return [
        result.file,
        asdict(result.report),
        line(result.message, done=result.shown is not None),
        result.shown,
        rows("Faces", COLUMNS, [row(face) for face in result.report.faces]),
        result.strip,
        result.invented,
    ]


def row(face: dict[str, Any]) -> list[Any]:
    """One face as `COLUMNS`; people count from 1. A distance where nothing was done would be 0, and read as perfect."""
    return [
        face["index"] + 1,
        "yes" if face["restored"] else "no",
        f"{face['identity_distance']:.2f}" if face["restored"] else "–",
        ", ".join(text for text in (face["reason"], face["note"]) if text),
    ]


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


def preview(path: str | None) -> list[Any]:
    """The uploaded photo, as our loader reads it; an upload that is no usable photo is taken off and deleted."""
    nobody = gr.CheckboxGroup(choices=[], value=[], visible=False)
    nothing = [gr.Image(value=None, visible=False), "all", nobody, None, "", False, gr.Column(visible=True)]
    if path is None:
        return [gr.skip(), *nothing]
    try:
        photo = read(path)
    except ImageError as error:
        warn(error)
        forget_unreadable(path)
        return [None, *nothing]
    small = images.resize(photo.pixels, *fit(photo, CHOICE_SIDE)).mul(255).round().to(torch.uint8)
    found = Found(small, np.zeros((0, 4)), np.zeros(0, bool), photo.width / small.shape[2])
    return [gr.skip(), framed("all", found), "all", nobody, found, "", False, gr.Column(visible=False)]


def mark(faces: str | None, found: Found | None) -> list[Any]:
    """The photo with a frame around every face, and the faces to tick; those that will be restored stand out.

    Of one face there is nothing to choose.
    """
    if found is None:
        return [gr.skip(), gr.skip()]
    chosen = indices(faces, found)
    choices = [(f"Face {i + 1}", i) for i in range(len(found.boxes))]
    return [framed(faces, found), gr.CheckboxGroup(choices=choices, value=chosen, visible=len(choices) > 1)]


def framed(faces: str | None, found: Found) -> gr.Image:
    """The photo with a frame around every face, and a cross where the corner of another one was clicked."""
    picture = draw_choice(found.pixels / 255, found.boxes, indices(faces, found))
    if found.corner is not None:
        draw_cross(picture, found.corner, CORNER)
    return gr.Image(value=picture, visible=True)


def named(picked: list[int], found: Found | None) -> Any:
    """The choice of faces as the endpoint takes it, from the ticked ones; the last one cannot be taken out."""
    if found is None:
        return gr.skip()
    return "all" if len(picked) in (0, len(found.boxes)) else ",".join(map(str, sorted(picked)))


def click(faces: str | None, found: Found | None, marking: bool, boxes: str | None, event: gr.SelectData) -> list[Any]:
    """A click into the photo: chooses a face, or is a corner of one that was not found.

    Returns:
        For the choice of faces, the photo, `Found`, the tick box of marking, and the boxes as text.
    """
    if found is None or not marking:
        return [toggle(faces, found, event), gr.skip(), gr.skip(), gr.skip(), gr.skip()]
    x, y = event.index
    if found.corner is None:
        found = replace(found, corner=(x, y))
        return [gr.skip(), framed(faces, found), found, gr.skip(), gr.skip()]
    corners = np.array([found.corner, (x, y)])
    found = replace(found, corner=None)
    low, high = corners.min(0) * found.scale, corners.max(0) * found.scale
    if (high - low).min() < 1:  # a double click, say
        return [gr.skip(), framed(faces, found), found, gr.skip(), gr.skip()]
    box = ",".join(f"{value:.0f}" for value in (*low, *high))
    return [gr.skip(), gr.skip(), found, False, "; ".join(part for part in (boxes, box) if part)]


def toggle(faces: str | None, found: Found | None, event: gr.SelectData) -> Any:
    """The choice after a click into the photo: the smallest face under it is added, or taken out."""
    if found is None:
        return gr.skip()
    x, y = event.index
    inside = (found.boxes[:, :2] <= (x, y)).all(1) & (found.boxes[:, 2:] >= (x, y)).all(1)
    if not inside.any():
        return gr.skip()
    area = np.where(inside, (found.boxes[:, 2:] - found.boxes[:, :2]).prod(1), np.inf)
    return toggled(faces, int(area.argmin()), found)


def toggled(faces: str | None, index: int, found: Found) -> str:
    """A choice of faces with one more, or one less; the last one cannot be taken out."""
    chosen = sorted(set(indices(faces, found)) ^ {index})
    return "all" if len(chosen) in (0, len(found.boxes)) else ",".join(map(str, chosen))


def indices(faces: str | None, found: Found) -> list[int]:
    """The faces that a choice means, as far as it can be understood."""
    count = len(found.boxes)
    try:
        choice = parse(faces or "all")
    except InputError:
        return []
    if choice == "largest":
        areas = (found.boxes[:, 2:] - found.boxes[:, :2]).prod(1)
        return [int(areas.argmax())] if count else []
    if choice == "given":
        return np.flatnonzero(found.given).tolist()
    return list(range(count)) if choice == "all" else [i for i in choice if 0 <= i < count]


# ---- the pipeline call


def restore_photo(
    pipeline: RestorePipeline,
    source: str | Path | None,
    folder: Path,
    *,
    faces: str = "all",
    fidelity: float = 0.5,
    strength: float = 1.0,
    scale: float | str = "auto",
    identity_guard: float = 0.6,
    colorize: bool = False,
    file_format: str = "png",
    credentials: bool = True,
    reference: str | Path | None = None,
    background: str = "lanczos",
    boxes: str = "",
    aligned: bool = False,
    region: str = "auto",
    seed: int = 0,
    model: str = "restore",
    on_step: Callable[..., Any] | None = None,
) -> Result:
    """Restore one file and write what the page shows.

    Args:
        pipeline: what restores.
        source: the photo.
        folder: of everything written.
        faces: "all", "largest" or numbers such as "0,2".
        fidelity: as in the pipeline's call, like the next two.
        strength: one number for all faces.
        scale: 1, 1.5, 2, 3, 4 or "auto", see `RestorePipeline.__call__`.
        identity_guard: as in the pipeline's call, but 0 switches it off.
        colorize: as in the pipeline's call.
        file_format: a key of `FORMATS`.
        credentials: sign the result, where that can be done; the report says where it was not.
        reference: another photo of the person, or None; as in the pipeline's call.
        background: as in the pipeline's call.
        boxes: of faces that are not found, "x0,y0,x1,y1" parted by semicolons.
        aligned: as in the pipeline's call.
        region: as in the pipeline's call.
        seed: of the pipeline's generator.
        model: what restores, for the credentials.
        on_step: the pipeline's `callback_on_step_end`.

    Raises:
        InputError: no photo, or an argument outside its range.
        ImageError: a file that is no usable photo, or one whose result would be too large.
        CredentialsError: the result cannot be signed with the certificate that is set.
    """
    start = time.perf_counter()
    if file_format not in FORMATS:
        raise InputError(f"file_format must be one of {', '.join(FORMATS)}, got {file_format!r}: choose one of them")
    photo = read(source, scale)
    settings = {
        "faces": parse(faces),
        "fidelity": fidelity,
        "strength": strength,
        "scale": scale,
        "background": background,
        "region": region,
        "seed": int(seed),
        "identity_guard": identity_guard or None,
        "colorize": colorize,
    }
    if given := parse_boxes(boxes):
        settings["boxes"] = given
    if aligned:
        settings["aligned"] = True
    if reference is not None:
        steps = REFERENCE_STEPS if model == "restore" else 0  # published ones are only measured with it
        settings |= {"reference": read(reference), "reference_steps": steps}
    # No picture in 8 bits, which nobody looks at.
    output = pipeline(photo, **seeded(settings), callback_on_step_end=on_step, output_type="pt")
    report = FileReport(photo.name, faces=[face.to_dict() for face in output.reports[0]])
    report.doubtful = output.faces[0].doubtful.round(1).tolist()
    result = Result(report, verdict(report, output.reports[0]))
    if count := len(report.doubtful):
        more = f"{count} more places may be faces" if count > 1 else "One more place may be a face"
        result.message += f" {more}: mark what is missing under “A face is missing?”."
    after = output.photos[0]
    if report.status == RESTORED or background in NETWORKS:
        suffix = FORMATS[file_format]
        data = images.encode(after, suffix)
        report.credentials = "not wanted"
        if credentials:
            told = {"model": model, **settings}
            data, report.credentials = with_credentials(data, suffix, Path(source).read_bytes(), told, report.faces)
        if report.credentials not in ("written", "not wanted"):
            result.message += f" No Content Credentials: {report.credentials}."
        result.file = images.write(data, folder / f"{Path(photo.name).stem}_restored{suffix}")
        report.output, report.scale = result.file.name, output.scales[0]
        if scale == "auto" and report.scale > 1:
            result.message += f" The result is {report.scale:g} times as large as the photo, to show its faces."
        result.shown = (
            show(photo, *fit(after), folder / "before.png"),
            show(after, *fit(after), folder / "after.png"),
        )
        overlay = draw_invented(after.pixels, output.invented[0])
        result.invented = show(Photo(overlay, icc=after.icc), *fit(after), folder / "invented.png")
        if background in NETWORKS:
            result.message += f" The photo around the faces was drawn by the network {background}."
        result.strip = [pair(photo, after, face, output.scales[0], folder) for face in output.reports[0][:STRIP]]
    report.seconds = round(time.perf_counter() - start, 3)
    return result


def verdict(report: FileReport, faces: Sequence[FaceReport]) -> str:
    """Fill in the report's status and reason, and say them in one line."""
    restored = [face for face in faces if face.restored]
    left = Counter(face.reason.split(":")[0] for face in faces if not face.restored)
    reasons = ", ".join(f"{count} {reason}" for reason, count in left.items())
    if not faces:
        report.status, report.reason = NO_FACE, NONE_FOUND
        return NOBODY
    found = f"{len(faces)} face{'s' if len(faces) > 1 else ''} found"
    if not restored:
        report.status, report.reason = UNCHANGED, reasons
        return f"{found}, none restored: {reasons}."
    report.status = RESTORED
    skipped = f" Left as they were: {reasons}." if reasons else ""
    held = sum("identity guard" in face.reason for face in restored)
    guarded = f" Blended back by the identity guard: {held}." if held else ""
    careful = sum(bool(face.reason) and "identity guard" not in face.reason for face in restored)
    guarded += f" Restored with care, as the report says: {careful}." if careful else ""
    distances = sorted(face.identity_distance for face in restored)
    span = " to ".join(dict.fromkeys(f"{value:.2f}" for value in (distances[0], distances[-1])))
    said = f"{found}, {len(restored)} restored.{skipped}{guarded} Identity distance {span} ({DISTANCE})."
    nearest = min(
        (face for face in restored if face.reference_after is not None),
        key=lambda face: face.reference_before,
        default=None,
    )
    if nearest is None:
        return said
    way = f"from {nearest.reference_before:.2f} to {nearest.reference_after:.2f} from the person of the other photo"
    return f"{said} Face {nearest.index + 1} went {way}" + ("." if nearest.guided else ", and no nearer by it.")


def pair(before: Photo, after: Photo, face: FaceReport, scale: int, folder: Path) -> tuple[Path, str]:
    """Write one face before and after, side by side; the caption says what was done."""
    crops = [cut(before.pixels, face.box, 1.0), cut(after.pixels, face.box, scale)]
    width = max(1, round(CROP_SIDE * crops[0].shape[2] / crops[0].shape[1]))
    both = torch.cat([images.resize(crop, CROP_SIDE, width) for crop in crops], 2)
    path = images.save(Photo(both, icc=before.icc), folder / f"face_{face.index}.png")
    done = f"identity distance {face.identity_distance:.2f}" if face.restored else "left as it was"
    return path, f"Face {face.index + 1}: {done}{f' ({face.reason})' if face.reason else ''}"
