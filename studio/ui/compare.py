"""The Compare tab: two photographs in, both faces, their distance and what it is worth out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio import images
from studio.images import Photo
from studio.ui.common import Lane, answer, ask, connect, examples, fresh, line, offer, read, upload

if TYPE_CHECKING:
    from studio.identity.compare import Comparer

TITLE = "Compare"
WAITING = "Choose two photos, then press Compare."


def load() -> Comparer:
    """The committed encoder and the detectors."""
    from studio.identity.compare import Comparer

    return Comparer.from_pretrained()


def tab(comparer: Callable[[], Comparer]) -> None:
    """Lay the tab out and connect it.

    Args:
        comparer: gives the comparer, loading it if need be.
    """
    with gr.Row(elem_classes="work"):
        with ask():
            first = upload("One photo")
            second = upload("The other photo")
            offer("Use two examples", [first, second], [str(path) for path in examples()[:2]])
            with gr.Row():
                start = gr.Button("Compare", variant="primary", min_width=120)
                stop = gr.Button("Cancel", min_width=120)
        with answer(WAITING) as message:
            faces = gr.Gallery(
                label="The two faces", format="png", columns=2, height="auto", buttons=[], interactive=False
            )
            with gr.Accordion("Report (JSON)", open=False):
                report = gr.JSON(label="Report")
    fresh([first, second], message, WAITING)
    runner = Runner(comparer)
    connect(
        start,
        stop,
        runner.lane,
        runner.compare,  # its name is that of the MCP tool
        [first, second],
        [report, message, faces],
        message=message,
        api_name="compare",
        api_description="Compare the largest faces of two photos. Returns the JSON report, the message, and both faces",
    )


class Runner:
    """Compares for the visitors.

    Args:
        comparer: gives the comparer, loading it if need be.
    """

    def __init__(self, comparer: Callable[[], Comparer]) -> None:
        self.comparer = comparer
        self.lane = Lane()

    def compare(self, first: str | None, second: str | None, request: gr.Request | None = None) -> Iterator[list[Any]]:
        """Tell whether two photographs show the same person, as far as that can be told.

        Args:
            first: a photo; its largest face counts.
            second: another one.
            request: filled in by gradio.

        Raises:
            gr.Error: with the line of a `StudioError`.
        """

        def work(folder: Path, stop: threading.Event) -> tuple[list[Any], str]:
            found = self.comparer()(read(first), read(second))
            shown = []
            for name, crop, eyes in zip(("one", "other"), found.crops, found.eye_distances, strict=True):
                path = images.save(Photo(crop), folder / f"{name}.png")
                shown.append((path, f"The {name} photo: {eyes:.0f} px between the eyes"))
            return [found.to_dict(), line(found.sentence, done=True), shown], ""

        yield from self.lane.steps(work, lambda message: [None, line(message), []], [first, second], request)
