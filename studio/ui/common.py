"""What the tabs share: the one lane for heavy work, its buttons, messages, and pictures."""

from __future__ import annotations

import html
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from studio import images, models
from studio.errors import ImageError, InputError, StudioError
from studio.images import Photo
from studio.memory import Ceiling
from studio.ui import as_code
from studio.ui.lane import Stop, Stopped, departure, stoppable
from studio.ui.onward import Onward, follow_gallery, onward

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HOUR = 3600
MAX_PIXELS = 50_000_000  # of a result: several float32 copies of it must fit into a small machine
SHOWN_SIDE = 1600  # px, longer side of what the page shows; the download has every pixel
LOOK = 0.1  # s, between two looks whether it is one's turn, or one has left
QUEUED = "Waiting for your turn …"
FULL = "Too many visitors are waiting: try again in a minute."
WORKING = "Working …"
STOPPED = "Stopped. Nothing was kept."
STATES = {QUEUED: "queued", WORKING: "working"}  # of messages; `line` knows two more, "said" and "done"
FAILED = "Something went wrong on the machine that runs this page ({}). Its log says more: try another photo."
CHOOSE = "choose one at “Face”, under Options; in a script, face 0 is the largest"
IN_WORDS = {"pass face=0 for the largest": CHOOSE, "pass face 0 for the largest": CHOOSE}
"""What errors of pipelines say to scripts, and what the page says instead."""
PROGRESS = gr.Progress()
FACES = 20  # that one can choose from in a photo by their number
SIZES = [("Auto", "auto"), ("1×", 1), ("1.5×", 1.5), ("2×", 2), ("3×", 3), ("4×", 4)]  # of results of restoring
BACKGROUNDS = [
    ("Keep", "none"),
    ("Interpolate", "lanczos"),
    ("Draw, quickly (SPAN)", "span"),
    ("Draw (Real-ESRGAN)", "realesrgan"),
]
LANE = {"concurrency_limit": 1, "concurrency_id": "pipelines"}
"""For every event that runs a network for long: one at a time in the whole app, the others wait in the queue."""
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""For events of the page alone, which are no endpoint."""

# One sentence, wherever an identity distance is shown.
DISTANCE = "before against after; below 0.6 counts as the same person; the encoder took part in training"


class Lane:
    """Does the heavy work of one tab for its visitors, one at a time, and stops it for them."""

    _busy = threading.Lock()  # of all tabs: the queue lets one in, but a cancelled one may still be on its way out
    _ceiling = Ceiling()

    def __init__(self) -> None:
        self.stops: dict[str | None, threading.Event] = {}

    def steps(
        self,
        work: Callable[[Path, threading.Event], tuple[list[Any], str]],
        empty: Callable[[str], list[Any]],
        uploads: Sequence[str | None],
        request: gr.Request | None,
    ) -> Iterator[list[Any]]:
        """What an event yields: first an emptied page, so that no earlier result stays, then the result.

        Args:
            work: makes the widgets' values, and a warning to show beside them (or ""). It gets a folder that is
                there until gradio has copied what it returned, and an event that is set when the visitor cancels or
                leaves. It ends at the next layer of a network then, without looking itself.
            empty: the widgets' values without a result, with a message.
            uploads: files that `work` reads; those that are no usable photo are deleted at once.
            request: tells the visitors apart; None outside of a server.

        Raises:
            gr.Error: with the line of a `StudioError`; with another line, and the whole story in the log, where
                something failed that should not.
        """
        stop = Stop(departure())
        yield empty(WORKING)
        visitor = request and request.session_hash
        self.stops[visitor] = stop
        try:
            with TemporaryDirectory() as folder:
                with self.turn(stop), stoppable(stop):
                    values, warning = work(Path(folder), stop)
                if warning:
                    gr.Warning(html.escape(warning, quote=False))
                yield values
        except Stopped:
            yield empty(STOPPED)
        except StudioError as error:
            for upload in uploads:
                forget_unreadable(upload)
            yield empty(on_page(error))
            raise gr.Error(html.escape(on_page(error), quote=False), print_exception=False) from error
        except Exception as error:
            logging.getLogger(__name__).exception("a run failed")
            said = FAILED.format(type(error).__name__)
            yield empty(said)
            raise gr.Error(said, print_exception=False) from error
        finally:
            if self.stops.get(visitor) is stop:  # and not already the next run's
                del self.stops[visitor]

    @contextmanager
    def turn(self, stop: threading.Event) -> Iterator[None]:
        """Wait until the lane is free, and keep it meanwhile; afterwards memory that nobody needs is given back.

        Raises:
            Stopped: the visitor left before.
        """
        while not self._busy.acquire(timeout=LOOK):
            if stop.is_set():
                raise Stopped
        try:
            yield
        finally:
            self._ceiling.hold()
            self._busy.release()

    def stop(self, request: gr.Request, shown: str = "") -> Any:
        """End what this visitor has running, before the next layer of a network; the message says so.

        gradio throws away what a cancelled run yields, so that the message has to come from here.

        Args:
            request: tells the visitors apart.
            shown: the message that they see; where they wait for their turn, that is what ends.
        """
        stop = self.stops.get(request.session_hash)
        if stop is None and not waiting(shown):
            return gr.skip()
        if stop is not None:
            stop.set()
        return line(STOPPED)


class Models:
    """The restorers that a visitor can choose from: ours, and one of the others at a time, loaded when asked for.

    Args:
        ours: gives our pipeline, loading it if need be.
        load: loads the pipeline of a name.
    """

    def __init__(self, ours: Callable[[], Any], load: Callable[[str], Any]) -> None:
        self._ours, self._load = ours, load
        self._lock = threading.Lock()
        self._other: tuple[str, Any] | None = None

    def __call__(self, name: str = "restore") -> Any:
        """The pipeline of a model in the list; no other name is taken, which could be a path of this machine.

        Raises:
            InputError: another name.
        """
        if name == "restore":
            return self._ours()
        listed = [one.name for one in models.chosen("restore")]
        if name not in listed:
            raise InputError(f"model must be one of {', '.join(listed)}, got {name!r}: choose one of them")
        with self._lock:
            if self._other is None or self._other[0] != name:
                self._other = None  # before the next one takes its place in memory
                self._other = name, self._load(name)
            return self._other[1]


def not_loaded(name: str) -> Any:
    """In place of a loader, where there is one model alone.

    Raises:
        InputError: always.
    """
    raise InputError(f"model must be restore here, got {name!r}: no other one is loaded")


def model_picker() -> gr.Dropdown:
    """A list of the restorers, and the table of all models below it."""
    listed = models.chosen("restore")
    picker = gr.Dropdown(
        [(choice(one), one.name) for one in listed],
        value=listed[0].name if listed else None,  # the licence filter may leave none
        label="Restorer",
        info="Others are fetched when first chosen. Of those fidelity is only CodeFormer's own",
    )
    with gr.Accordion("What they are, and whose", open=False):
        gr.HTML(rows("Models", models.HEAD, [models.row(one) for one in [*listed, *models.chosen("background")]]))
    return picker


def choice(model: models.Model) -> str:
    """One line of the picker."""
    cost = f", {model.seconds:g} s a face" if model.seconds else ""
    allowed = {"yes": "commercial use allowed", "no": "no commercial use", "check": "licence to be checked"}
    return f"{model.title} ({model.megabytes} MB{cost}; {allowed[model.commercial]})"


# ---- widgets


def fidelity_slider() -> gr.Slider:
    """How much is drawn, for one photo and for many."""
    return gr.Slider(
        0, 1, 0.5, step=0.05, label="Fidelity", info="0: the model's idea of the face. 1: only what the photo shows"
    )


def results(
    title: str, waiting: str, label: str, first: int = -1, **settings: Any
) -> tuple[gr.HTML, gr.Gallery, gr.JSON, Onward]:
    """The column of a tab that draws pictures: its message, the pictures, the report, and what can be done with them.

    Args:
        title: of the tab.
        waiting: the message before the first call.
        label: of the pictures.
        first: number of the picture that is downloaded unless another one is looked at.
        settings: for the gallery, its `columns` say.
    """
    with answer(waiting) as message:
        further = onward(title)
        found = gr.Gallery(
            label=label,
            format="png",
            height="auto",
            object_fit="contain",
            buttons=["fullscreen"],
            interactive=False,
            **settings,
        )
        with gr.Accordion("Report (JSON)", open=False):
            report = gr.JSON(label="Report")
    follow_gallery(found, further.file, first)
    return message, found, report, further


# The three parts of a tab, `with gr.Row(elem_classes="work")`. Side by side on a desktop; on a phone one below the
# other, so that the result stands under the button, and what few people need below it.


def ask() -> gr.Column:
    """What is asked for: the photo, the choices everybody makes, the button."""
    return gr.Column(elem_classes="ask", min_width=280)


def more() -> gr.Column:
    """What few people need."""
    return gr.Column(elem_classes="more", min_width=280)


@contextmanager
def answer(waiting: str) -> Iterator[gr.HTML]:
    """The message, and what is inside, which is seen only when the message says that there is a result."""
    with gr.Column(elem_classes="answer", min_width=280):
        message = gr.HTML(line(waiting), elem_classes="said")
        with gr.Column(elem_classes="result"):
            yield message


def connect(
    start: gr.Button,
    stop: gr.Button,
    lane: Lane,
    event: Callable[..., Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    *,
    message: gr.HTML,
    api_name: str,
    api_description: str,
    after: Sequence[Any] = (),
) -> None:
    """Let one button start the heavy work of a tab and another one end it.

    Args:
        start: button that calls `event`.
        stop: button that ends it.
        lane: of the tab.
        event: a generator; its name is that of the MCP tool.
        inputs: its arguments' widgets.
        outputs: where its values go.
        message: says how far it is, and that it was stopped.
        api_name: of the endpoint.
        api_description: of the endpoint.
        after: other events of the page, as gradio returned them, which `event` follows, too.
    """
    shown: Any = message.parent.children[-1]  # once there is a result
    with shown:
        fields, fill = as_code.section(event, inputs, api_name)
    told = {"api_name": api_name, "api_description": api_description}
    runs = []
    for trigger, shown in ((start.click, told), *((one.then, {"api_visibility": "private"}) for one in after)):
        trigger(fill, list(inputs), fields, queue=False, **PRIVATE)
        queued = trigger(lambda: line(QUEUED), None, message, queue=False, **PRIVATE)
        runs.append(
            queued.then(
                event,
                list(inputs),
                list(outputs),
                show_progress_on=message,
                trigger_mode="once",
                **shown,
                **LANE,
            )
        )
        runs[-1].failure(not_taken, message, message, queue=False, **PRIVATE)

    def end(shown: str, request: gr.Request) -> Any:
        return lane.stop(request, shown)

    stop.click(end, message, message, cancels=runs, queue=False, **PRIVATE)


def not_taken(shown: str) -> Any:
    """The message after a run that failed: the run's own, or, if it never began, that the queue was full."""
    return line(FULL) if waiting(shown) else gr.skip()


def waiting(shown: str | None) -> bool:
    """Whether a message says that the visitor waits for their turn."""
    return 'data-state="queued"' in (shown or "")


def fresh(photos: Sequence[gr.File], message: gr.HTML, said: str) -> None:
    """Take the result away when another photo is chosen: beside it, it would be taken for the new one's.

    Args:
        photos: where they are chosen.
        message: of the tab, which hides the result.
        said: what it then says.
    """
    for photo in photos:
        photo.change(lambda: line(said), None, message, queue=False, **PRIVATE)


# ---- words


def line(text: str, *, done: bool = False) -> str:
    """A message that screen readers say when it changes; its state shows and hides what is beside it (see `CSS`).

    Args:
        text: the message.
        done: there is a result, which is shown.
    """
    state = "done" if done else STATES.get(text, "said")
    return f'<p role="status" class="message" data-state="{state}">{html.escape(text)}</p>'


def warn(error: StudioError) -> None:
    """Show an error as a note that goes away."""
    gr.Warning(html.escape(on_page(error), quote=False))


def on_page(error: StudioError) -> str:
    """The line of an error, which says what to do on the page where it says what to pass in a script."""
    said = str(error)
    for passed, done in IN_WORDS.items():
        said = said.replace(passed, done)
    return said


def rows(title: str, head: Sequence[str], body: Sequence[Sequence[Any]]) -> str:
    """An HTML table with a caption; nothing without lines.

    Not a gr.Dataframe, whose columns become unreadable on a phone.
    """
    if not body:
        return ""
    top = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    cells = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in body)
    return (
        f'<div class="faces" tabindex="0"><table><caption>{html.escape(title)}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{cells}</tbody></table></div>"
    )


# ---- pictures and files


def upload(label: str, *, many: bool = False, height: int = 150) -> gr.File:
    """A place for photos. It takes any file: our loader says what is wrong with one, and then it is deleted.

    What gradio refuses, by its name say, would lie around for an hour. Not gr.Image, which takes neither HEIC nor
    damaged files to our loader, and would cut 16 bits to 8.
    """
    file = gr.File(label=label, file_count="multiple" if many else "single", height=height)
    file._process_single_file = lambda given: given.path  # gradio's own leaves an empty file behind for each
    return file


def face_choice(label: str, otherwise: str, info: str) -> gr.Dropdown:
    """A choice of one face: the page counts from 1, what is handed on from 0.

    Args:
        label: of the choice.
        otherwise: what -1 means, which is chosen at first.
        info: the order in which they are counted.
    """
    return gr.Dropdown([(otherwise, -1), *((str(k + 1), k) for k in range(FACES))], value=-1, label=label, info=info)


def read(source: str | Path | None, scale: float | str = 1) -> Photo:
    """A photo whose result, `scale` times as large, is not too large for the app.

    Raises:
        InputError: no photo.
        ImageError: a file that is no usable photo, or one whose result would be too large.
    """
    if source is None:
        raise InputError("a photo is needed, got none: choose a file first")
    larger = 1 if isinstance(scale, str) else max(1, scale)
    return images.load(source, max_pixels=int(MAX_PIXELS / larger**2))


def forget_unreadable(path: str | None) -> None:
    """Delete an upload that is no usable photo; no other file is touched."""
    if path is None or not Path(path).resolve().is_relative_to(Path(gr.utils.get_upload_folder()).resolve()):
        return
    try:
        read(path)
    except ImageError:
        Path(path).unlink(missing_ok=True)
        with suppress(OSError):  # its folder, unless something else is in it
            Path(path).parent.rmdir()


def fit(photo: Photo, side: int = SHOWN_SIDE) -> tuple[int, int]:
    """Height and width of a photo as the page shows it."""
    share = min(1.0, side / max(photo.height, photo.width))
    return max(1, round(photo.height * share)), max(1, round(photo.width * share))


def show(photo: Photo, height: int, width: int, path: Path) -> Path:
    """Write a photo for the page: 8 bits, with alpha and colour profile."""
    small = photo.with_pixels(images.resize(photo.pixels, height, width))
    return images.save(replace(small, bits=8, exif=None), path)


def examples() -> list[Path]:
    """Photos to try the app with: generated people, damaged on purpose. None where the folder is not there."""
    return sorted(path for path in EXAMPLES.glob("*") if path.suffix.lower() in (".png", ".jpg"))


def offer(label: str, targets: Sequence[gr.File], values: Sequence[Any]) -> None:
    """A button that puts example photos into `targets`; nothing where there are none."""
    if examples():
        gr.Button(label, size="sm").click(
            lambda: list(values) if len(values) > 1 else values[0],
            None,
            list(targets),
            **PRIVATE,
        )


def shelf(target: gr.File) -> None:
    """Example pictures that one click puts into `target`; nothing where the folder has none.

    Not gr.Dataset or gr.Examples, whose pictures have no names for a screen reader.
    """
    if files := examples():
        gr.Markdown("Or an example (generated people, damaged on purpose):")
        shown = gr.Gallery(
            [(str(path), path.stem.replace("-", " ").capitalize()) for path in files],
            label="Examples",
            show_label=False,
            columns=len(files),
            height="auto",
            allow_preview=False,
            buttons=[],
            interactive=False,
            elem_classes="shelf",
        )

        def choose(event: gr.SelectData) -> str:
            return str(files[event.index])

        shown.select(choose, None, target, **PRIVATE)
