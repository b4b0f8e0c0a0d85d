"""What the Restore tab shows of a restored photo: where it goes, and what goes there."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import gradio as gr

from studio.ui.common import line, rows
from studio.ui.onward import Onward, onward
from studio.ui.restore_call import Result

COLUMNS = ["Face", "Restored", "Identity distance", "Why"]


def outputs() -> tuple[Onward, list[Any]]:
    """Where the result goes: what can be done with it; and all in the order of `values`, but for the message.

    What a script wants comes first.
    """
    further = onward("Restore")
    slider = gr.ImageSlider(
        label="Before and after", format="png", max_height=640, interactive=False, buttons=["fullscreen"]
    )
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
    return further, [further.file, report, slider, faces, strip, invented]


def values(result: Result | None = None, message: str = "") -> list[Any]:
    """A result for the widgets of `outputs`; without one they are emptied, and only the message is shown."""
    if result is None:
        return [None, None, line(message), None, "", [], None, []]
    return [
        result.file,
        asdict(result.report),
        line(result.message, done=result.shown is not None),
        result.shown,
        rows("Faces", COLUMNS, [row(face) for face in result.report.faces]),
        result.strip,
        result.invented,
        result.ways,
    ]


def row(face: dict[str, Any]) -> list[Any]:
    """One face as `COLUMNS`; people count from 1. A distance where nothing was done would be 0, and read as perfect."""
    return [
        face["index"] + 1,
        "yes" if face["restored"] else "no",
        f"{face['identity_distance']:.2f}" if face["restored"] else "–",
        ", ".join(text for text in (face["reason"], face["note"]) if text),
    ]
