"""The Restore tab: a photograph in, the restored one and a report of every face out."""

from __future__ import annotations

import html
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import gradio as gr
import torch

from studio import images
from studio.batch import NO_FACE, RESTORED, UNCHANGED, FileReport, cut
from studio.errors import ImageError, InputError, StudioError
from studio.faces.select import parse
from studio.images import Photo

if TYPE_CHECKING:
    from pipelines.restore import FaceReport, RestorePipeline

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MAX_PIXELS = 50_000_000  # of the result: several float32 copies of it must fit into a small machine
SHOWN_SIDE = 1600  # px, longer side of what the page shows; the download has every pixel
CROP_SIDE = 256  # px, in the strip of faces
STRIP = 40  # faces in the strip, largest first
COLUMNS = ["Face", "Restored", "Identity distance", "Yaw °", "Crop px", "Reason"]
WAITING = "Choose a photo, then press Restore."
STOPPED = "Stopped. Nothing was restored."
PROGRESS = gr.Progress()

# One sentence, wherever the number is shown.
DISTANCE = "before against after; below 0.6 counts as the same person; the encoder took part in training"


class Stopped(Exception):  # noqa: N818 - not an error: the visitor pressed Cancel
    """Ends a pipeline call from inside."""


@dataclass
class Result:
    """What the tab shows.

    Attributes:
        report: as the command line writes it.
        message: the report in one line.
        file: the restored photo, whole and in full quality; None where no face was restored.
        shown: the photo before and after, PNG files of one size; None where no face was restored.
        strip: PNG file of a face before and after, and its caption.
    """

    report: FileReport
    message: str
    file: Path | None = None
    shown: tuple[Path, Path] | None = None
    strip: list[tuple[Path, str]] = field(default_factory=list)


# ---- widgets


def tab(pipeline: Callable[[], RestorePipeline]) -> None:
    """Lay the tab out, inside a `gr.Blocks`, and connect it.

    Args:
        pipeline: gives the pipeline, loading it if need be.
    """
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            # Not gr.Image: it takes neither HEIC nor damaged files to our loader, and would cut 16 bits to 8.
            upload = gr.File(label="Photo", file_types=["image", *images.SUFFIXES], height=150)
            chosen = gr.Image(
                label="Your photo", alt_text="Your photo", interactive=False, visible=False, buttons=[], height=220
            )
            examples(upload)
            with gr.Row():
                start = gr.Button("Restore", variant="primary", min_width=120)
                stop = gr.Button("Cancel", min_width=120)
            with gr.Accordion("Options", open=False):  # closed: on a phone the result would be far below them
                settings = options()
        with gr.Column(scale=3, min_width=320):
            shown = outputs()
    runner = Runner(pipeline)
    upload.change(preview, upload, chosen, api_visibility="private", show_progress="hidden", concurrency_limit=2)
    running = start.click(
        runner.run,
        [upload, *settings],
        shown,
        api_name="restore",
        api_description="Restore the faces of a photo. Returns the restored PNG (or null), the JSON report, and what "
        "the page shows: a message, the slider's PNG pair, the faces as an HTML table and as before-and-after pictures",
        concurrency_limit=1,
        concurrency_id="pipelines",
        scroll_to_output=True,
        show_progress_on=shown[3],
    )
    file, report, message, *_ = shown
    # Not among the outputs of `run`, where a script would get this change of the button instead of a path.
    report.change(
        lambda found: gr.DownloadButton(interactive=bool(found and found["output"])),
        report,
        file,
        api_visibility="private",
        show_progress="hidden",
        queue=False,
    )
    stop.click(
        runner.stop, None, message, cancels=[running], queue=False, api_visibility="private", show_progress="hidden"
    )


def options() -> list[gr.components.Component]:
    """The arguments of the pipeline, in the order of `Runner.run`."""
    return [
        gr.Dropdown(
            ["all", "largest"],
            value="all",
            label="Faces to restore",
            info="all, largest, or numbers such as 0,2 (0 is the largest face)",
            allow_custom_value=True,
        ),
        gr.Slider(
            0, 1, 0.5, step=0.05, label="Fidelity", info="0: the model's idea of the face. 1: only what the photo shows"
        ),
        gr.Slider(0, 1, 1, step=0.05, label="Strength", info="Share of the restored face in the result"),
        gr.Radio([("1×", 1), ("2×", 2), ("4×", 4)], value=1, label="Size of the result"),
        gr.Slider(
            0,
            1,
            0.6,
            step=0.05,
            label="Identity guard",
            info="Largest identity distance allowed; a face above it is blended back. 0 switches the guard off",
        ),
        gr.Checkbox(False, label="Colorize", info="Give a black-and-white photo the model's colours in the faces"),
    ]


def outputs() -> list[gr.components.Component]:
    """Where the result goes, in the order of `values`; what a script wants comes first."""
    message = gr.HTML(line(WAITING))
    slider = gr.ImageSlider(
        label="Before and after", format="png", max_height=640, interactive=False, buttons=["fullscreen"]
    )
    file = gr.DownloadButton("Download PNG in full quality", interactive=False)
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
    with gr.Accordion("Report (JSON)", open=False):
        report = gr.JSON(label="Report")
    return [file, report, message, slider, faces, strip]


def examples(upload: gr.File) -> None:
    """Pictures that one click puts into `upload`; nothing where the folder has none."""
    files = sorted(path for path in EXAMPLES.glob("*") if path.suffix.lower() in (".png", ".jpg"))
    if files:
        shelf = gr.Dataset(
            components=[gr.Image(label="Example", render=False)],
            samples=[[str(path)] for path in files],
            label="Examples (generated people, damaged on purpose)",
            type="index",
        )
        shelf.click(lambda index: str(files[index]), shelf, upload, api_visibility="private", show_progress="hidden")


def line(text: str) -> str:
    """A message that screen readers say when it changes."""
    return f'<p role="status" class="message">{html.escape(text)}</p>'


def values(result: Result | None = None, message: str = "") -> list[Any]:
    """A result for the widgets of `outputs`; without one they are emptied, and only the message is shown."""
    if result is None:
        return [None, None, line(message), None, "", []]
    return [
        result.file,
        asdict(result.report),
        line(result.message),
        result.shown,
        table(result.report.faces),
        result.strip,
    ]


def table(faces: Sequence[dict[str, Any]]) -> str:
    """`FaceReport.to_dict` of each face as a line of an HTML table; nothing without faces.

    Not a gr.Dataframe, whose columns become unreadable on a phone.
    """
    if not faces:
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row(face))}</tr>" for face in faces)
    return (
        f'<div class="faces" tabindex="0"><table><caption>Faces</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def row(face: dict[str, Any]) -> list[Any]:
    """One face as `COLUMNS`. A distance where nothing was done would be 0, and read as perfect."""
    return [
        face["index"],
        "yes" if face["restored"] else "no",
        f"{face['identity_distance']:.2f}" if face["restored"] else "–",
        round(face["pose"][0]),
        round(face["crop_pixels"]),
        face["reason"],
    ]


# ---- events


class Runner:
    """Runs the pipeline for the visitors, one at a time, and stops it for them.

    Args:
        pipeline: gives the pipeline, loading it if need be.
    """

    def __init__(self, pipeline: Callable[[], RestorePipeline]) -> None:
        self._pipeline = pipeline
        self._busy = threading.Lock()  # the queue lets one in, but a cancelled one may still be on its way out
        self._stops: dict[str | None, threading.Event] = {}

    def run(
        self,
        photo: str | None,
        faces: str = "all",
        fidelity: float = 0.5,
        strength: float = 1.0,
        scale: int = 1,
        identity_guard: float = 0.6,
        colorize: bool = False,
        request: gr.Request | None = None,
        progress: gr.Progress = PROGRESS,
    ) -> Iterator[list[Any]]:
        """Restore an uploaded file: first empties the page, so that no earlier result stays, then fills it.

        Raises:
            gr.Error: with the line of a `StudioError`.
        """
        yield values(message="Working …")
        visitor = request and request.session_hash
        stop = self._stops[visitor] = threading.Event()
        settings = {
            "faces": faces,
            "fidelity": fidelity,
            "strength": strength,
            "scale": scale,
            "identity_guard": identity_guard,
            "colorize": colorize,
        }
        try:
            with TemporaryDirectory() as folder:  # gradio copies the files it is given, then comes back here
                with self._busy:
                    progress(0, desc="Loading the model")
                    pipeline = self._pipeline()
                    with watched(pipeline, stop, progress):
                        result = restore_photo(pipeline, photo, Path(folder), **settings)
                if result.report.status != RESTORED:
                    gr.Warning(html.escape(result.message, quote=False))
                yield values(result)
        except Stopped:
            yield values(message=STOPPED)
        except StudioError as error:
            yield values(message=str(error))
            raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from error
        finally:
            if self._stops.get(visitor) is stop:  # and not already the next run's
                del self._stops[visitor]

    def stop(self, request: gr.Request) -> Any:
        """End what this visitor has running, before the next network of the pipeline; the message says so.

        gradio throws away what a cancelled run yields, so that the message has to come from here.
        """
        stop = self._stops.get(request.session_hash)
        if stop is None:
            return gr.skip()
        stop.set()
        return line(STOPPED)


@contextmanager
def watched(pipeline: RestorePipeline, stop: threading.Event, progress: Callable[..., Any]) -> Iterator[None]:
    """Follow a pipeline call from its networks: say how far it is, and end it with `Stopped` when `stop` is set."""
    begun = 0

    def before(name: str, inputs: tuple[Any, ...]) -> None:
        nonlocal begun
        if stop.is_set():
            raise Stopped
        if name == "restorer":
            begun += len(inputs[0])
            progress((begun, None), desc="Restoring", unit="faces")

    progress(0, desc="Looking for faces")
    networks = [(name, part) for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)]
    hooks = [
        network.register_forward_pre_hook(lambda _, inputs, name=name: before(name, inputs))
        for name, network in networks
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def preview(path: str | None) -> Iterator[Any]:
    """The uploaded photo, as our loader reads it; hidden where there is none."""
    if path is None:
        yield gr.Image(value=None, visible=False)
        return
    try:
        with TemporaryDirectory() as folder:
            photo = images.load(path, max_pixels=MAX_PIXELS)
            yield gr.Image(value=show(photo, *fit(photo), Path(folder) / "photo.png"), visible=True)
    except ImageError as error:
        gr.Warning(html.escape(str(error), quote=False))
        yield gr.Image(value=None, visible=False)


# ---- the pipeline call


def restore_photo(
    pipeline: RestorePipeline,
    source: str | Path | None,
    folder: Path,
    *,
    faces: str = "all",
    fidelity: float = 0.5,
    strength: float = 1.0,
    scale: int = 1,
    identity_guard: float = 0.6,
    colorize: bool = False,
) -> Result:
    """Restore one file and write what the page shows.

    Args:
        pipeline: what restores.
        source: the photo.
        folder: of everything written.
        faces: "all", "largest" or numbers such as "0,2".
        fidelity: as in the pipeline's call, like the next two.
        strength: one number for all faces.
        scale: 1, 2 or 4.
        identity_guard: as in the pipeline's call, but 0 switches it off.
        colorize: as in the pipeline's call.

    Raises:
        InputError: no photo, or an argument outside its range.
        ImageError: a file that is no usable photo, or one whose result would be too large.
    """
    start = time.perf_counter()
    if source is None:
        raise InputError("a photo is needed, got none: choose a file first")
    photo = images.load(source, max_pixels=MAX_PIXELS // max(1, scale) ** 2)
    output = pipeline(
        photo,
        faces=parse(faces),
        fidelity=fidelity,
        strength=strength,
        scale=scale,
        identity_guard=identity_guard or None,
        colorize=colorize,
    )
    report = FileReport(photo.name, faces=[face.to_dict() for face in output.reports[0]])
    result = Result(report, verdict(report, output.reports[0]))
    after = output.photos[0]
    if report.status == RESTORED:
        result.file = images.save(after, folder / f"{Path(photo.name).stem}_restored.png")
        report.output = result.file.name
        result.shown = (
            show(photo, *fit(after), folder / "before.png"),
            show(after, *fit(after), folder / "after.png"),
        )
        result.strip = [pair(photo, after, face, scale, folder) for face in output.reports[0][:STRIP]]
    report.seconds = round(time.perf_counter() - start, 3)
    return result


def verdict(report: FileReport, faces: Sequence[FaceReport]) -> str:
    """Fill in the report's status and reason, and say them in one line."""
    restored = [face for face in faces if face.restored]
    left = Counter(face.reason.split(":")[0] for face in faces if not face.restored)
    reasons = ", ".join(f"{count} {reason}" for reason, count in left.items())
    if not faces:
        report.status, report.reason = NO_FACE, "no face was found"
        return "No face was found in this photo, so nothing was restored."
    found = f"{len(faces)} face{'s' if len(faces) > 1 else ''} found"
    if not restored:
        report.status, report.reason = UNCHANGED, reasons
        return f"{found}, none restored: {reasons}."
    report.status = RESTORED
    skipped = f" Left as they were: {reasons}." if reasons else ""
    held = sum(bool(face.reason) for face in restored)
    guarded = f" Blended back by the identity guard: {held}." if held else ""
    distances = sorted(face.identity_distance for face in restored)
    span = " to ".join(dict.fromkeys(f"{value:.2f}" for value in (distances[0], distances[-1])))
    return f"{found}, {len(restored)} restored.{skipped}{guarded} Identity distance {span} ({DISTANCE})."


# ---- pictures of the page


def fit(photo: Photo) -> tuple[int, int]:
    """Height and width of a photo as the page shows it."""
    share = min(1.0, SHOWN_SIDE / max(photo.height, photo.width))
    return max(1, round(photo.height * share)), max(1, round(photo.width * share))


def show(photo: Photo, height: int, width: int, path: Path) -> Path:
    """Write a photo for the page: 8 bits, with alpha and colour profile."""
    small = photo.with_pixels(images.resize(photo.pixels, height, width))
    return images.save(replace(small, bits=8, exif=None), path)


def pair(before: Photo, after: Photo, face: FaceReport, scale: int, folder: Path) -> tuple[Path, str]:
    """Write one face before and after, side by side; the caption says what was done."""
    crops = [cut(before.pixels, face.box, 1.0), cut(after.pixels, face.box, scale)]
    width = max(1, round(CROP_SIDE * crops[0].shape[2] / crops[0].shape[1]))
    both = torch.cat([images.resize(crop, CROP_SIDE, width) for crop in crops], 2)
    path = images.save(Photo(both, icc=before.icc), folder / f"face_{face.index}.png")
    done = f"identity distance {face.identity_distance:.2f}" if face.restored else "left as it was"
    return path, f"Face {face.index}: {done}{f' ({face.reason})' if face.reason else ''}"
