"""The About tab: whose weights these are, under which licence, how well they do, and what not to expect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

import studio
from studio import models, provenance, weights
from studio.ui.common import rows

TITLE = "About"

LIMITS = """
## What not to expect

- A restored face is a plausible one, not the true one. Do not take it as evidence of who somebody was: the identity
  distance says how far it moved from the photo, and the guard blends it back above its threshold.
- Pure profiles are often not found, and faces with less than 4 px between the eyes are left alone. The report says why.
- Faces are restored at 512 px. On a face that is larger and sharp already, lower the strength, or leave it out.
- Upsampled faces are guesses out of the model, not the person; so is who belongs together in an album. Relatives,
  children and poor photographs are confused most.
- Distances are measured with an encoder that also took part in training, so they flatter the result.

## Privacy

Photos are read on the machine that runs this page and nowhere else; nothing is counted, logged or sent. Uploads and
results are deleted from it one to two hours later, unreadable uploads at once. Place, owner's name and serial numbers
are dropped from the EXIF data.
"""


def load() -> None:
    """Nothing: the tab runs no model."""


def tab(_: Callable[[], Any]) -> None:
    """Lay the tab out."""
    gr.Markdown(f"## Face Studio {studio.__version__}\n\nCode: Apache-2.0. Everything runs on this machine.")
    gr.HTML(
        rows(
            "Weights",
            ["Name", "What it is", "Whose, and from what", "Licence", "Commercial use"],
            [(one.name, one.title, one.source, one.licence, one.commercial) for one in weights.entries().values()],
        )
    )
    gr.HTML(rows("Models that can be chosen", models.HEAD, [models.row(one) for one in models.chosen()]))
    gr.Markdown(f"{credentials()}\n{LIMITS}")
    gr.Markdown("## Model cards")
    for card in cards():
        with gr.Accordion(card.parent.name, open=False):
            gr.Markdown(card.read_text(encoding="utf-8"))


def credentials() -> str:
    """What happens to results here, as far as Content Credentials go."""
    if reason := provenance.reason_not(".png"):
        return f"## Content Credentials\n\nResults are **not signed** here: {reason}."
    who = "the certificate that is set" if provenance.own_certificate() else "a self-made test certificate"
    return (
        f"## Content Credentials\n\nResults are signed with {who}: what was done, by what, with which settings. A file "
        "that was changed afterwards shows it; `studio verify FILE` tells."
    )


def cards() -> list[Path]:
    """The model cards of the weights trained here."""
    return sorted(path for path in weights.COMMITTED.glob("*/README.md") if path.parent.name in weights.entries())
