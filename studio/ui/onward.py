"""What can be done with a result, at the same place in every tab: download it, or use it in another tab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gradio as gr

from studio.errors import InputError

TAKERS = ("Restore", "Upsample", "Turn", "Edit", "Reenact")  # tabs that a photo can be handed to
DOWNLOAD = "Download in full quality"
USE = "Use this in …"
NOT_YET = "there must be a result to use, got none: press the button under the photo first"
QUIET = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
TO_TOP = "() => { document.querySelector('[role=tab][aria-selected=true]').focus(); window.scrollTo(0, 0) }"


@dataclass(frozen=True)
class Onward:
    """The row above a result.

    Attributes:
        file: downloads it; its value is the file.
        use: the tab that it is to be used in; None where no tab takes it.
    """

    file: gr.DownloadButton
    use: gr.Dropdown | None = None


@dataclass(frozen=True)
class Ends:
    """Where a tab takes a photo, and what it hands on.

    Attributes:
        photo: where the photo goes; None where the tab takes none.
        onward: of its result; None where there is no photo in it.
        settings: what else is set when it is given a photo, and to what.
    """

    photo: gr.File | None = None
    onward: Onward | None = None
    settings: dict[Any, Any] = field(default_factory=dict)


def onward(title: str, label: str = DOWNLOAD, *, usable: bool = True) -> Onward:
    """Lay the row out, as the first thing of a result.

    Args:
        title: of the tab.
        label: of the download.
        usable: whether the result is one photo, which other tabs take.
    """
    with gr.Row(elem_classes="onward"):
        file = gr.DownloadButton(label, interactive=False, min_width=120)
        file.preprocess = lambda given: given and given.path  # gradio's own leaves an empty file behind for each
        if not usable:
            return Onward(file)
        choices = [(USE, ""), *((one, one) for one in TAKERS if one != title)]
        use = gr.Dropdown(
            choices, value="", label=USE, show_label=False, container=False, filterable=False, min_width=120
        )
    return Onward(file, use)


def follow_gallery(pictures: gr.Gallery, file: gr.DownloadButton, first: int) -> None:
    """Let a download be of the picture that is looked at; at first, of the one that was asked for.

    Args:
        pictures: of the result.
        file: the download.
        first: number of the picture that is taken at first, as in a list.
    """

    def all_new(found: Sequence[tuple[str, str]] | None) -> gr.DownloadButton:
        return one(found, first)

    def looked_at(found: Sequence[tuple[str, str]] | None, event: gr.SelectData) -> gr.DownloadButton:
        return one(found, event.index)

    pictures.change(all_new, pictures, file, **QUIET)
    pictures.select(looked_at, pictures, file, **QUIET)


def one(pictures: Sequence[tuple[str, str]] | None, number: int) -> gr.DownloadButton:
    """The download of one picture, which says which where there are several."""
    if not pictures:
        return gr.DownloadButton(DOWNLOAD, value=None, interactive=False)
    count = len(pictures)
    which = f"Download picture {number % count + 1} of {count}" if count > 1 else DOWNLOAD
    return gr.DownloadButton(which, value=pictures[number][0], interactive=True)


def connect_ends(tabs: gr.Tabs, ends: Mapping[str, Ends]) -> None:
    """Let every result be used in every tab that takes one.

    Args:
        tabs: of the page, whose ids are the titles in small letters.
        ends: of each tab, by its title.
    """
    takers = {title: ends[title] for title in TAKERS if title in ends}
    places = [end.photo for end in takers.values()]
    extras = [place for end in takers.values() for place in end.settings]
    for end in ends.values():
        if end.onward is not None and end.onward.use is not None:
            moved = end.onward.use.input(
                partial(hand_over, takers),
                [end.onward.use, end.onward.file],
                [end.onward.use, tabs, *places, *extras],
                **QUIET,
            )
            moved.success(None, js=TO_TOP, **QUIET)


def hand_over(takers: Mapping[str, Ends], title: str, path: str | None) -> list[Any]:
    """A result given to a tab, which is opened.

    Args:
        takers: the tabs that take one, by their title.
        title: of the chosen one; "" where the list was opened only.
        path: of the result.

    Returns:
        For the choice, which is empty again, the tabs, the photos of all takers, and their settings.

    Raises:
        gr.Error: there is no result.
    """
    if title and path is None:
        raise gr.Error(str(InputError(NOT_YET)), print_exception=False)
    photos = [path if one == title else gr.skip() for one in takers]
    settings = [v if one == title else gr.skip() for one, end in takers.items() for v in end.settings.values()]
    return ["", gr.Tabs(selected=title.lower()) if title else gr.skip(), *photos, *settings]
