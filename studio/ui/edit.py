"""The Edit tab: a photo in, the same person older or younger, smiling, turned or with glasses out."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from torch import Tensor

from studio import images, provenance
from studio.device import pick_device
from studio.errors import InputError
from studio.ui.common import (
    HOUR,
    MAX_PIXELS,
    PRIVATE,
    PROGRESS,
    Lane,
    ask,
    connect,
    face_choice,
    fresh,
    line,
    more,
    results,
    upload,
)
from studio.ui.lane import follow, on_gpu

if TYPE_CHECKING:
    from studio.latents.editor import Editor, EditReport
    from studio.latents.photo_editor import PhotoEditor, PhotoEditReport

TITLE = "Edit"
WAITING = "Choose a photo of one face, or none for a generated person; say what is to change, then press Edit."
SEARCH = {True: 40, False: 100}  # steps, in the photo itself or for a likeness
MOST_KEPT = 16  # likenesses
AS_IT_SHOULD_BE = ("yaw", "pitch", "age")  # asked for as a value, the others as a change
TOLERANCE = {"yaw": 4.0, "pitch": 4.0, "age": 4.0}  # of what was asked for; of a change, `SHARE` of it
SHARE = 0.4
LIMITS = {"yaw": (-45.0, 45.0, 1.0), "pitch": (-35.0, 20.0, 1.0), "age": (30.0, 80.0, 1.0)}  # of widgets, and the step
CHANGES = (-3.0, 3.0, 0.5)  # likewise, of the others
NOTHING: dict[str, dict[str, float]] = {"asked": {}, "before": {}, "after": {}}
UNITS = {"yaw": "°", "pitch": "°", "age": " years"}


@dataclass(frozen=True)
class Likeness:
    """A face of the prior, kept while its visitor tries one change after another.

    Attributes:
        key: of the photo and the search, or of the generated person.
        w: (1,16,512) its latents.
        person: (128,) identity vector of the photo; None for a generated person.
        crop: (3,S,S) the photo's face, aligned; None likewise.
    """

    key: str
    w: Tensor
    person: Tensor | None
    crop: Tensor | None


def load() -> Editor:
    """The editor, on the GPU where there is one."""
    from studio.latents.editor import Editor  # seconds of imports, which the page need not wait for

    return Editor.from_pretrained(pick_device("auto"))


def load_inside(editor: Editor) -> PhotoEditor:
    """What edits a photo itself, around an editor that is loaded."""
    from studio.latents.photo_editor import PhotoEditor

    return PhotoEditor.from_pretrained(pick_device("auto"), editor)


# ---- widgets


def tab(editor: Callable[[], Editor]) -> None:
    """Lay the tab out, inside a `gr.Blocks`, and connect it.

    Args:
        editor: gives the editor, loading it if need be.
    """
    with gr.Row(elem_classes="work"):
        with ask():
            photo = upload("Photo of a face (optional)")
            age = gr.Number(0, label="Age in years", info="30 to 80, as read off a face; 0: as it is", precision=0)
            smile = gr.Slider(-3, 3, 0, step=0.5, label="Smile")
            glasses = gr.Slider(
                -3, 3, 0, step=0.5, label="Glasses", info="Below 0 takes them off, above 0 puts them on"
            )
            turn = gr.Checkbox(False, label="Turn the head", info="To the angle below")
            yaw = gr.Slider(
                -45, 45, 0, step=1, label="Left or right", info="Degrees; 0 looks into the camera, above 0 left"
            )
            with gr.Row():
                start = gr.Button("Edit", variant="primary", min_width=120)
                stop = gr.Button("Cancel", min_width=120)
            further = gr.Button("More of it", visible=False)
        message, found, report = results(WAITING, "Before, and edited", columns=3)
        with more(), gr.Accordion("Options", open=False):
            keep_pitch = gr.Checkbox(True, label="Look up or down as it is")
            pitch = gr.Slider(
                -35, 20, -8, step=1, label="Up or down", info="Degrees, if not as it is; about -8 is level"
            )
            mouth, eyes, brow, light = (
                gr.Slider(-3, 3, 0, step=0.5, label=name)
                for name in ("Mouth opening", "Eye opening", "Brow height", "Light from the right")
            )
            in_photo = gr.Checkbox(
                True, label="In the photo itself", info="Where the head is not turned; else a likeness, aligned"
            )
            face = face_choice("Face", "The only one", "1 is the largest")
            seed = gr.Number(12, label="Seed", info="Of the generated person, where there is no photo", precision=0)
            steps = gr.Slider(
                0, 200, 0, step=10, label="Steps", info="Of the search for a photo's likeness; 0: 40, or 100 alone"
            )
    fresh([photo], message, WAITING)
    changes = {"age": age, "smile": smile, "glasses": glasses, "yaw": yaw, "pitch": pitch}
    changes |= {"mouth": mouth, "eyes": eyes, "brow": brow, "light": light}
    report.change(
        lambda found: gr.Button(visible=bool(further_changes(found))), report, further, queue=False, **PRIVATE
    )
    asked = further.click(
        lambda found: [further_changes(found).get(name, gr.skip()) for name in changes],
        report,
        list(changes.values()),
        queue=False,
        **PRIVATE,
    )
    runner = Runner(editor)
    connect(
        start,
        stop,
        runner.lane,
        runner.edit,
        [
            *(photo, age, smile, glasses, turn, yaw, keep_pitch, pitch),
            *(mouth, eyes, brow, light, in_photo, face, seed, steps),
        ],
        [found, report, message],
        message=message,
        after=[asked],
        api_name="edit",
        api_description="Make a face older or younger, smile, turn, or wear glasses. Returns the face before and after "
        "and the edited photo as PNG (of a turned head: the photo's face, its synthetic likeness and that one edited), "
        "the JSON report and a message",
    )


def further_changes(report: dict[str, Any] | None) -> dict[str, float]:
    """What to ask for after a run that fell short: attribute to its next value; none where nothing is to be had."""
    found = misses(*((report or NOTHING)[part] for part in NOTHING))
    return {one.name: one.instead for one in found if one.instead is not None}


# ---- events


class Runner:
    """Runs the editor for the visitors.

    Args:
        editor: gives the editor, loading it if need be.
    """

    def __init__(self, editor: Callable[[], Editor]) -> None:
        self.editor = editor
        self.lane = Lane()
        self.kept: dict[str | None, Likeness] = {}  # by visitor
        self.inside: PhotoEditor | None = None  # loaded when a photo is first edited itself
        self._call = on_gpu(self.call)

    def edit(
        self,
        photo: str | None = None,
        age: float = 0.0,
        smile: float = 0.0,
        glasses: float = 0.0,
        turn: bool = False,
        yaw: float = 0.0,
        keep_pitch: bool = True,
        pitch: float = -8.0,
        mouth: float = 0.0,
        eyes: float = 0.0,
        brow: float = 0.0,
        light: float = 0.0,
        in_photo: bool = True,
        face: int = -1,
        seed: int = 12,
        steps: int = 0,
        request: gr.Request | None = None,
        progress: gr.Progress = PROGRESS,
    ) -> Iterator[list[Any]]:
        """Edit the face of a photo, or a generated one. What is changed is synthetic, no photograph any more.

        Args:
            photo: with one face, or with several and `face`; none edits a generated person.
            age: 30 to 80 years, as they are read off a face; 0 leaves it.
            smile: change, in standard deviations of generated faces.
            glasses: the same; below 0 takes them off.
            turn: turn the head to `yaw`.
            yaw: -45 to 45 degrees; 0 looks into the camera, above 0 to the left side of the picture.
            keep_pitch: look up or down as it is.
            pitch: -35 to 20 degrees, if it is not kept; about -8 is level.
            mouth: change of how far it is open, in standard deviations.
            eyes: the same.
            brow: change of their height, in standard deviations.
            light: above 0, more from the right of the picture.
            in_photo: change the photo itself, where the head is not turned; else a likeness of the only face, aligned.
            face: 0 is the largest; -1 asks for a photo of one face.
            seed: of the generated person.
            steps: of the search for the photo's likeness; 0 takes 40 in the photo itself, 100 for a likeness alone.
            request: filled in by gradio.
            progress: filled in by gradio.

        Raises:
            gr.Error: with the line of a `StudioError`.
        """
        wanted = {"yaw": yaw if turn else None, "pitch": None if keep_pitch else pitch, "age": age or None}
        shifts = {"smile": smile, "glasses": glasses, "mouth": mouth, "eyes": eyes, "brow": brow, "light": light}
        changes = {name: float(value) for name, value in wanted.items() if value is not None}
        changes |= {name: float(value) for name, value in shifts.items() if value}
        visitor = request and request.session_hash

        def work(folder: Path, stop: threading.Event) -> tuple[list[Any], str]:
            progress(0, desc="Loading the model")
            editor = self.editor()  # before a GPU is lent
            inside = in_photo and photo is not None and not {"yaw", "pitch"} & changes.keys()
            if inside and self.inside is None:
                self.inside = load_inside(editor)
            total = int(steps) or SEARCH[inside]
            on_step = follow(stop, progress, total, lambda _: "Searching for the likeness")
            kept = self.kept.get(visitor)
            who = (None if int(face) == -1 else int(face)) if inside else int(seed)
            found, shown, report, lacking = self._call(inside, photo, folder, changes, who, total, kept, on_step)
            self.keep(visitor, found)
            said = verdict_in_photo(report) if inside else verdict(report)
            return [shown, report.to_dict(), line(said, done=True)], lacking

        yield from self.lane.steps(work, lambda message: [[], None, line(message)], [photo], request)

    def keep(self, visitor: str | None, likeness: Likeness) -> None:
        """Keep a likeness for the visitor's next change, for an hour, and those of the last visitors only."""
        self.kept.pop(visitor, None)
        self.kept[visitor] = likeness
        while len(self.kept) > MOST_KEPT:
            self.kept.pop(next(iter(self.kept)))
        forget = threading.Timer(HOUR, self.kept.pop, (visitor, None))
        forget.daemon = True
        forget.start()

    def call(
        self, inside: bool, photo: str | None, folder: Path, *settings: Any
    ) -> tuple[Likeness, list[tuple[Path, str]], Any, str]:
        """`change_photo` or `change` with this runner's editors."""
        if inside:
            return change_photo(self.inside, photo, folder, *settings)
        return change(self.editor(), photo, folder, *settings)


# ---- the editor's calls


def change(
    editor: Editor,
    source: str | Path | None,
    folder: Path,
    changes: dict[str, float],
    seed: int,
    steps: int,
    kept: Likeness | None,
    on_step: Callable[..., Any] | None,
) -> tuple[Likeness, list[tuple[Path, str]], EditReport, str]:
    """Edit one face and write what the page shows: PNG files with captions.

    Returns:
        The likeness, to be handed to the next call; the files; the report; and why the results have no mark or no
        credentials ("" where they have both).

    Raises:
        InputError: nothing to change, a change beyond what the prior can draw, no likeness, or not one face.
        ImageError: a file that is no usable photo.
    """
    from studio.latents.editor import check_changes

    if not changes:
        raise InputError("a change is needed, got none: move a slider, or give an age or an angle")
    check_changes(editor.space, changes)
    likeness = find(editor, source, seed, steps, kept, on_step)
    moved, report = editor.edit(likeness.w, changes, likeness.person)
    data = None if source is None else Path(source).read_bytes()
    stated = changes if source else {**changes, "seed": seed}
    made = provenance.Operation("edit", "a likeness out of the prior, moved along its directions", stated)
    shown = [] if likeness.crop is None else [(images.save(likeness.crop, folder / "face.png"), "In the photo")]
    before = "Generated" if report.inversion_distance is None else f"Its likeness: {report.inversion_distance:.2f} away"
    lacking = ""
    for name, w, caption in (
        ("likeness", likeness.w, before),
        ("edited", moved, f"Edited: {report.edit_distance:.2f} from there"),
    ):
        file = folder / f"{name}.png"
        lacking = provenance.save_synthetic(editor.draw(w)[0], file, made, source=data)
        shown.append((file, caption))
    return likeness, shown, report, lacking


def change_photo(
    editor: PhotoEditor,
    source: str | Path,
    folder: Path,
    changes: dict[str, float],
    face: int | None,
    steps: int,
    kept: Likeness | None,
    on_step: Callable[..., Any] | None,
) -> tuple[Likeness, list[tuple[Path, str]], PhotoEditReport, str]:
    """Edit one face of a photo in its place; like `change`.

    Raises:
        InputError: nothing to change, a change beyond what the prior can draw, or no one face.
        ImageError: a file that is no usable photo.
    """
    from studio.latents.photo_editor import check_in_photo

    check_in_photo(editor.editor.space, changes)
    photo = images.load(source, max_pixels=MAX_PIXELS)
    key = f"face {face} in the photo, {key_of(source, steps)}"

    def each(step: int) -> None:
        if on_step is not None:
            on_step(editor, step - 1, None, {})

    known = kept.w if kept is not None and kept.key == key else None
    sitter = editor.find(photo, face, steps, each, known)
    edited, after, report = editor.edit(sitter, changes)
    data = Path(source).read_bytes()
    made = provenance.Operation("edit", "the face of a photo, changed by a prior of faces", changes)
    shown = [(images.save(sitter.crop[0], folder / "face.png"), "In the photo")]
    lacking = ""
    for name, picture, caption in (
        ("edited-face", after, f"Edited: {report.identity_distance:.2f} from there"),
        ("edited", edited, "The photo"),
    ):
        file = folder / f"{name}.png"
        lacking = provenance.save_synthetic(picture, file, made, source=data) or lacking
        shown.append((file, caption))
    return Likeness(key, sitter.inside.w.cpu(), sitter.person.cpu(), sitter.crop[0].cpu()), shown, report, lacking


def key_of(source: str | Path, steps: int) -> str:
    """Of a photo and the search for its likeness."""
    return f"{steps} steps, {hashlib.sha256(Path(source).read_bytes()).hexdigest()}"


def find(
    editor: Editor,
    source: str | Path | None,
    seed: int,
    steps: int,
    kept: Likeness | None,
    on_step: Callable[..., Any] | None,
) -> Likeness:
    """The likeness of a photo or a generated person: the one that was kept, where it is of the same."""
    if source is None:
        return Likeness(f"seed {seed}", editor.sample(seed), None, None)
    photo = images.load(source, max_pixels=MAX_PIXELS)
    key = key_of(source, steps)
    if kept is not None and kept.key == key:
        return kept

    def each(step: int, *_: Any) -> None:
        if on_step is not None:
            on_step(editor, step, None, {})

    w, person, crop = editor.likeness(photo, steps, each)
    return Likeness(key, w.cpu(), person.cpu(), crop.cpu())


@dataclass(frozen=True)
class Miss:
    """A change that did not become what was asked for.

    Attributes:
        name: of the attribute.
        asked, reached: in its unit; of standard deviations, the change.
        instead: what to ask for next; None where there is no more to be had.
    """

    name: str
    asked: float
    reached: float
    instead: float | None

    def __str__(self) -> str:
        unit = UNITS.get(self.name, "")
        said = f"{self.name} came to {self.reached:.1f}{unit} where {self.asked:.1f}{unit} was asked for"
        return said + ("" if self.instead is None else f" (next: {self.instead:g})")


def misses(asked: dict[str, float], before: dict[str, float], after: dict[str, float]) -> list[Miss]:
    """Changes that fell short by more than `TOLERANCE`, each with what to ask for to come nearer.

    Args:
        asked: years and degrees as they should be, the others by how much they should change.
        before: measured values.
        after: likewise.
    """
    found = []
    for name, aim in asked.items():
        start = before[name] if name in AS_IT_SHOULD_BE else 0.0
        reached = after[name] - (before[name] - start)
        wanted, lacking = aim - start, aim - reached
        if lacking * wanted > 0 and abs(lacking) > TOLERANCE.get(name, SHARE * abs(aim)):
            low, high, step = LIMITS.get(name, CHANGES)
            further = aim + (max(abs(lacking), step) if wanted > 0 else -max(abs(lacking), step))
            instead = min(high, max(low, round(further / step) * step))
            found.append(Miss(name, aim, reached, None if instead == aim else instead))
    return found


def missed(found: Sequence[Miss]) -> str:
    """What fell short, and what can be done; "" where nothing did."""
    if not found:
        return ""
    more = any(one.instead is not None for one in found)
    then = "Press “More of it” to ask for more" if more else "More than that is not in reach from this face"
    return f" Not all of it was reached: {', '.join(map(str, found))}. {then}."


def verdict_in_photo(report: PhotoEditReport) -> str:
    """The report in one line."""
    whose = "below 0.6 counts as the same person" if report.same_person else "another person, to the encoder"
    short = missed(misses(report.asked, report.before, report.after))
    return f"The photo, changed: {moves(report)}.{short} Identity distance {report.identity_distance:.2f}; {whose}."


def verdict(report: EditReport) -> str:
    """Likewise, of a likeness or a generated person."""
    short = missed(misses(report.asked, report.before, report.after))
    if report.total_distance is None:
        return f"Synthetic: {moves(report)}.{short} Identity distance of the edit {report.edit_distance:.2f}."
    return (
        f"A synthetic likeness: {moves(report)}.{short} Identity distance to the photo {report.total_distance:.2f}; "
        "below 0.6 counts as the same person. The search followed the encoder that measures it, so that it flatters."
    )


def moves(report: EditReport | PhotoEditReport) -> str:
    """What changed, from and to."""
    return ", ".join(
        f"{name} {report.before[name]:.1f} to {report.after[name]:.1f}{UNITS.get(name, '')}" for name in report.asked
    )
