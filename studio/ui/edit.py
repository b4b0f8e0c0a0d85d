"""The Edit tab: a photo in, the same person older or younger, smiling, turned or with glasses out."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import torch
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
from studio.ui.onward import Ends

if TYPE_CHECKING:
    from pipelines.edit import EditPipeline, EditReport

TITLE = "Edit"
WAITING = "Choose a photo of one face, or none for a generated person; say what is to change, then press Edit."
MOST_KEPT = 16  # likenesses
TOLERANCE = {"yaw": 4.0, "pitch": 4.0, "age": 4.0}  # of what was asked for; of a change, `SHARE` of it
SHARE = 0.4
# Of widgets, and the step. These are asked for as a value, the others as a change.
LIMITS = {"yaw": (-45.0, 45.0, 1.0), "pitch": (-35.0, 20.0, 1.0), "age": (30.0, 80.0, 1.0)}
CHANGES = (-3.0, 3.0, 0.5)  # likewise, of the others
NOTHING: dict[str, dict[str, float]] = {"asked": {}, "before": {}, "after": {}}
UNITS = {"yaw": "°", "pitch": "°", "age": " years"}


@dataclass(frozen=True)
class Likeness:
    """A photo's face in the prior, kept while its visitor tries one change after another.

    Attributes:
        key: of the photo and the search.
        w: (1,16,512) its latents.
    """

    key: str
    w: Tensor


def load() -> EditPipeline:
    """The pipeline, on the GPU where there is one."""
    from studio import EditPipeline  # seconds of imports, which the page need not wait for

    return EditPipeline.from_pretrained("edit", device=pick_device("auto"))


# ---- widgets


def tab(pipeline: Callable[[], EditPipeline]) -> Ends:
    """Lay the tab out, inside a `gr.Blocks`, and connect it.

    Args:
        pipeline: gives the pipeline, loading it if need be.
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
        message, found, report, onward = results(TITLE, WAITING, "Before, and edited", columns=3)
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
    runner = Runner(pipeline)
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
    return Ends(photo, onward)


def further_changes(report: dict[str, Any] | None) -> dict[str, float]:
    """What to ask for after a run that fell short: attribute to its next value; none where nothing is to be had."""
    found = misses(*((report or NOTHING)[part] for part in NOTHING))
    return {one.name: one.instead for one in found if one.instead is not None}


# ---- events


class Runner:
    """Runs the pipeline for the visitors.

    Args:
        pipeline: gives the pipeline, loading it if need be.
    """

    def __init__(self, pipeline: Callable[[], EditPipeline]) -> None:
        self.pipeline = pipeline
        self.lane = Lane()
        self.kept: dict[str | None, Likeness] = {}  # by visitor
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
            in_photo: change the photo itself, where the head is not turned; else a likeness, aligned.
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
            self.pipeline()  # before a GPU is lent
            from pipelines.edit import STEPS, method_of

            method = method_of(photo, "auto" if in_photo else "likeness", changes)
            who = int(seed) if photo is None else None if int(face) == -1 else int(face)
            total = int(steps) or STEPS[method]
            on_step = follow(stop, progress, total, lambda _: "Searching for the likeness")
            kept = self.kept.get(visitor)
            found, shown, report, lacking = self._call(photo, folder, method, changes, who, total, kept, on_step)
            if found is not None:
                self.keep(visitor, found)
            return [shown, report.to_dict(), line(verdict(report), done=True)], lacking

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
        self, photo: str | None, folder: Path, *settings: Any
    ) -> tuple[Likeness | None, list[tuple[Path, str]], Any, str]:
        """`change` with this runner's pipeline."""
        return change(self.pipeline(), photo, folder, *settings)


# ---- the pipeline call


def change(
    pipeline: EditPipeline,
    source: str | Path | None,
    folder: Path,
    method: str,
    changes: dict[str, float],
    who: int | None,
    steps: int,
    kept: Likeness | None,
    on_step: Callable[..., Any] | None,
) -> tuple[Likeness | None, list[tuple[Path, str]], EditReport, str]:
    """Edit one face and write what the page shows: PNG files with captions.

    Args:
        pipeline: what edits.
        source: the photo; None for a generated person.
        folder: of the files.
        method: "photo" or "likeness".
        changes: what is asked for.
        who: index of the face in the photo, or None for the only one; the seed of a generated person.
        steps: of the search.
        kept: what the call before gave back.
        on_step: called after each step of the search.

    Returns:
        The photo's likeness, to be handed to the next call (None for a generated person); the files; the report; and
        why the results have no mark or no credentials ("" where they have both).

    Raises:
        InputError: nothing to change, a change beyond what the prior can draw, no likeness, or no one face.
        ImageError: a file that is no usable photo.
    """
    from pipelines.edit import MADE

    if not changes:
        raise InputError("a change is needed, got none: move a slider, or give an age or an angle")
    if source is None:
        data, key, known, stated = None, "", None, {**changes, "seed": who}
        whose = {"generator": torch.Generator().manual_seed(who)}
    else:
        data, stated = Path(source).read_bytes(), changes
        key = f"{method}, face {who}, {steps} steps, {hashlib.sha256(data).hexdigest()}"
        known = kept.w if kept is not None and kept.key == key else None
        whose = {"image": images.load(source, max_pixels=MAX_PIXELS), "face": who}
        whose["num_inference_steps"] = steps if known is None else None
    output = pipeline(**whose, method=method, **changes, latents=known, callback_on_step_end=on_step, output_type="pt")
    report, sitter = output.reports[0], output.prepared[0]
    made = provenance.Operation("edit", MADE[report.method], stated)
    shown = []
    if sitter.portrait is not None:
        shown.append((images.save(sitter.portrait.crop, folder / "face.png"), "In the photo"))
    edited = f"Edited: {report.edit_distance:.2f} from there"
    if report.method == "photo":
        new = [("edited-face", output.faces[0], edited), ("edited", output.photos[0], "The photo")]
    else:
        before = "Generated" if source is None else f"Its likeness: {report.likeness_distance:.2f} away"
        new = [("likeness", pipeline.draw(sitter.w)[0], before), ("edited", output.photos[0], edited)]
    lacking = ""
    for name, picture, caption in new:
        file = folder / f"{name}.png"
        lacking = provenance.save_synthetic(picture, file, made, source=data) or lacking
        shown.append((file, caption))
    return (Likeness(key, sitter.w.cpu()) if key else None), shown, report, lacking


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
        start = before[name] if name in LIMITS else 0.0
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


def verdict(report: EditReport) -> str:
    """The report in one line."""
    moved = f"{moves(report)}.{missed(misses(report.asked, report.before, report.after))}"
    if report.identity_distance is None:
        return f"Synthetic: {moved} Identity distance of the edit {report.edit_distance:.2f}."
    if report.method == "photo":
        whose = "below 0.6 counts as the same person" if report.same_person else "another person, to the encoder"
        return f"The photo, changed: {moved} Identity distance {report.identity_distance:.2f}; {whose}."
    return (
        f"A synthetic likeness: {moved} Identity distance to the photo {report.identity_distance:.2f}; "
        "below 0.6 counts as the same person. The search followed the encoder that measures it, so that it flatters."
    )


def moves(report: EditReport) -> str:
    """What changed, from and to."""
    return ", ".join(
        f"{name} {report.before[name]:.1f} to {report.after[name]:.1f}{UNITS.get(name, '')}" for name in report.asked
    )
