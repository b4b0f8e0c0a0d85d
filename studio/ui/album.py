"""The Album tab: many photographs in; their faces, grouped by person, a table and a zip out."""

from __future__ import annotations

import base64
import html
import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio import images
from studio.errors import InputError
from studio.identity.album import THRESHOLD, Album, AlbumFace, counted
from studio.ui import common
from studio.ui.common import (
    PRIVATE,
    PROGRESS,
    Lane,
    answer,
    ask,
    connect,
    examples,
    forget_unreadable,
    fresh,
    line,
    offer,
    rows,
    upload,
)
from studio.ui.lane import Stopped
from studio.ui.onward import onward

if TYPE_CHECKING:
    from studio.identity.album import AlbumMaker

TITLE = "Album"
MOST = 200  # photos at a time
SHOWN = 600  # faces on the page; the zip has all
SIDE = 128  # px, of a face on the page
COLUMNS = ["Photo", "Face", "Reason"]
WAITING = f"Choose up to {MOST} photos, then press Group by person."


def load() -> AlbumMaker:
    """The committed encoder and the detectors."""
    from studio.identity.album import AlbumMaker

    return AlbumMaker.from_pretrained()


def tab(maker: Callable[[], AlbumMaker]) -> None:
    """Lay the tab out and connect it.

    Args:
        maker: gives the maker, loading it if need be.
    """
    with gr.Row(elem_classes="work"):
        with ask():
            photos = upload("Photos to group", many=True, height=220)
            offer("Use the examples", [photos], [[str(path) for path in examples()]])
            threshold = gr.Slider(
                0.3,
                0.7,
                THRESHOLD,
                step=0.025,
                label="Threshold",
                info="Lower: fewer strangers together, more people in two groups. Higher: the other way round",
            )
            with gr.Row():
                start = gr.Button("Group by person", variant="primary", min_width=120)
                stop = gr.Button("Cancel", min_width=120)
        with answer(WAITING) as message:
            file = onward(TITLE, "Download as a zip", usable=False).file
            people = gr.HTML()
            with gr.Accordion("Report (JSON)", open=False):
                report = gr.JSON(label="Report")
    fresh([photos], message, WAITING)
    runner = Runner(maker)
    connect(
        start,
        stop,
        runner.lane,
        runner.album,
        [photos, threshold],
        [file, report, message, people],
        message=message,
        api_name="album",
        api_description="Group the faces of many photos by person. Returns a zip (the faces in a folder for each "
        "person, album.csv and album.json) or null, the JSON report, and what the page shows: a message and HTML",
    )
    report.change(
        lambda found: gr.DownloadButton(interactive=bool(found and found["faces"])),
        report,
        file,
        queue=False,
        **PRIVATE,
    )


class Runner:
    """Makes albums for the visitors.

    Args:
        maker: gives the maker, loading it if need be.
    """

    def __init__(self, maker: Callable[[], AlbumMaker]) -> None:
        self.maker = maker
        self.lane = Lane()

    def album(
        self,
        photos: list[str] | None,
        threshold: float = THRESHOLD,
        request: gr.Request | None = None,
        progress: gr.Progress = PROGRESS,
    ) -> Iterator[list[Any]]:
        """Group the faces of many photographs by person, as far as that can be told.

        Args:
            photos: up to 200 files.
            threshold: largest mean distance of two groups that are joined.
            request: filled in by gradio.
            progress: filled in by gradio.

        Raises:
            gr.Error: with the line of a `StudioError`.
        """

        def work(folder: Path, stop: threading.Event) -> tuple[list[Any], str]:
            def on_photo(done: int, count: int) -> None:
                if stop.is_set():
                    raise Stopped
                progress((done, count), desc="Looking for faces", unit="photos")

            progress(0, desc="Loading the model")
            found = group_photos(self.maker(), photos or [], threshold, on_photo)
            for i in found.failed:
                forget_unreadable((photos or [])[i])
            archive = zipped(found, folder / "album.zip") if found.faces else None
            return [archive, found.to_dict(), line(found.sentence, done=True), page(found)], ""

        yield from self.lane.steps(work, lambda message: [None, None, line(message), ""], photos or [], request)


# ---- the call


def group_photos(
    maker: AlbumMaker, sources: Sequence[str], threshold: float, on_photo: Callable[[int, int], None]
) -> Album:
    """Make an album of uploads; files of one name are told apart by a number.

    Raises:
        InputError: no photo, too many, or a threshold that is not above 0.
    """
    if len(sources) > MOST:
        raise InputError(f"at most {MOST} photos can be grouped at a time, got {len(sources)}: choose fewer")
    names = numbered([Path(source).name for source in sources])
    return maker(sources, threshold, names=names, max_pixels=common.MAX_PIXELS, on_photo=on_photo)


def numbered(names: Sequence[str]) -> list[str]:
    """Names of which no two are alike: a name that is there already gets a number."""
    taken: list[str] = []
    for name in names:
        path, number, one = Path(name), 2, name
        while one in taken:
            one, number = f"{path.stem}-{number}{path.suffix}", number + 1
        taken.append(one)
    return taken


# ---- the page


def page(album: Album) -> str:
    """The people as HTML, each with the own faces, then what is set aside and what could not be used."""
    parts, left = [], SHOWN
    for number, person in enumerate(album.people, 1):
        if left > 0:
            title = f"Person {number}: {counted(len(person), 'photo')}"
            parts.append(gallery(title, [(album.faces[i], caption(album, i)) for i in person[:left]]))
        left -= len(person)
    if left < 0:
        parts.append(f"<p>{counted(-left, 'more face')}: in the zip.</p>")
    if aside := album.set_aside[:SHOWN]:
        parts.append(gallery("Set aside", [(album.faces[i], caption(album, i)) for i in aside]))
    unused = [(album.names[i], "–", "no face was found: cut the photo closer to it") for i in album.without_face]
    unused += [(album.names[i], "–", reason) for i, reason in album.failed.items()]
    return "".join(parts) + rows("Not in the album", COLUMNS, unused)


def caption(album: Album, index: int) -> str:
    """One face in words."""
    face = album.faces[index]
    name = album.names[face.photo]
    if face.reason:
        return f"{name}: {face.reason}"
    return name if face.distance is None else f"{name}: {face.distance:.2f} from the others"


def gallery(title: str, faces: Sequence[tuple[AlbumFace, str]]) -> str:
    """Faces under a title; HTML, and not a gr.Gallery, because their number is known only afterwards."""
    cells = "".join(
        f'<li><img src="data:image/jpeg;base64,{jpeg(face)}" alt="Face in {html.escape(said)}" width="{SIDE}" '
        f'height="{SIDE}"><span>{html.escape(said)}</span></li>'
        for face, said in faces
    )
    return f'<section class="person"><h3>{html.escape(title)}</h3><ul>{cells}</ul></section>'


def jpeg(face: AlbumFace) -> str:
    """The face as base64 of a small JPEG."""
    small = images.resize(face.crop / 255, SIDE, SIDE)
    return base64.b64encode(images.encode(small, ".jpg", quality=85)).decode()


def zipped(album: Album, path: Path) -> Path:
    """Write the album: a folder for each person with the faces (PNG), `album.csv` and `album.json`."""
    folder = {i: f"person-{number:03}" for number, person in enumerate(album.people, 1) for i in person}
    with zipfile.ZipFile(path, "w") as archive:  # stored: the pictures are compressed already
        for i, face in enumerate(album.faces):
            stem = re.sub(r"[^\w.-]", "_", Path(album.names[face.photo]).stem)
            name = f"{folder.get(i, 'set-aside')}/{face.photo + 1:03}_{stem}_{face.index}.png"
            archive.writestr(name, images.encode(face.crop / 255, ".png"))
        archive.writestr("album.csv", album.to_csv())
        archive.writestr("album.json", json.dumps(album.to_dict(), indent=1))
    return path
