"""The tables of docs/results.md, from the JSON of the benchmarks: `python -m studio.benchmarks.results docs`.

No figure on that page is typed by hand. A row names a file of docs/figures and where in it the figure stands.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from studio.errors import InputError


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        label: what was measured.
        cells: one text for each column. {place|format} stands for a figure, as in "{input/niqe|.1f}".
    """

    label: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """One table: a file of docs/figures, and what to show of it."""

    name: str
    file: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def _before_and_after(label: str, figure: str, style: str) -> Row:
    recipes = ("gfpgan", "codeformer_large", "upscaled")
    cells = (
        f"{{recipes/{one}/input/{figure}|{style}}} → {{recipes/{one}/fidelity 0.5/{figure}|{style}}}" for one in recipes
    )
    return Row(label, tuple(cells))


def _change(label: str, key: str) -> Row:
    place = f"in_photo/changes/{key}"
    distance = f"{place}/identity_distance"
    return Row(label, (f"{{{place}/moved|.2f}}", f"{{{distance}/mean|.2f}}, {{{distance}/worst|.2f}}"))


RESTORE = Table(
    "restore",
    "restore-found.json",
    ("damaged a little (`gfpgan`)", "damaged heavily (`codeformer_large`)", "enlarged by a website"),
    (
        Row(
            "face found in the damaged picture",
            tuple(f"{{recipes/{one}/fidelity 0.5/found|.0%}}" for one in ("gfpgan", "codeformer_large", "upscaled")),
        ),
        Row(
            "naturalness of the clean originals, NIQE",
            tuple(f"{{recipes/{one}/original/niqe|.1f}}" for one in ("gfpgan", "codeformer_large", "upscaled")),
        ),
        _before_and_after("naturalness, NIQE", "niqe", ".1f"),
        _before_and_after("sharpness in the middle of the face", "sharpness_inside", ".3f"),
        _before_and_after("landmark error, share of the eye distance", "landmark_error", ".1%"),
        _before_and_after("identity distance to the original", "identity_distance", ".3f"),
        _before_and_after("weave in hair (with the faces not found)", "weave", ".0f"),
    ),
)
FIND = Table(
    "find",
    "find-finder.json",
    ("heavily damaged (`codeformer_large`)", "old print (`old_photo`)"),
    tuple(
        Row(label, tuple(f"{{{place}/portraits/{one}/recall|.0%}}" for one in ("codeformer_large", "old_photo")))
        for label, place in [
            ("the face fills the picture", "aligned"),
            ("the same, lying or upside down", "turned"),
            ("24 to 96 px wide, in another picture", "pasted"),
        ]
    ),
)
EDIT = Table(
    "edit",
    "edit.json",
    ("moved, share of what was asked", "identity distance, mean and worst"),
    (
        _change("a smile", "smile +1"),
        _change("no smile", "smile -1"),
        _change("glasses on", "glasses +2"),
        _change("glasses off", "glasses -2"),
        _change("15 years older", "older"),
        _change("15 years younger", "younger"),
    ),
)
UPSAMPLE = Table(
    "upsample",
    "upsample.json",
    ("measured",),
    (
        Row("guesses that fit the small face", ("{found|.0%}",)),
        Row("identity distance between guesses for one face", ("{between_samples|.2f}",)),
        Row("identity distance to the original: all, the nearest", ("{to_original|.2f}, {nearest_to_original|.2f}",)),
        Row("seconds for {samples|d} guesses", ("{seconds|.1f}",)),
    ),
)
GENERATE = Table(
    "generate",
    "generate.json",
    ("identity distance",),
    (
        Row("reference to generated, prior alone", ("{prior/to_given/mean|.2f}",)),
        Row("reference to generated, corrected", ("{corrected/to_given/mean|.2f}",)),
        Row("another photo of the person to generated, corrected", ("{corrected/to_other/mean|.2f}",)),
        Row("the two photos of the person", ("{between_the_two_photos/mean|.2f}",)),
    ),
)
REENACT = Table(
    "reenact",
    "reenact.json",
    ("mean", "worst"),
    (
        Row("pose asked and got, degrees", ("{stills/pose_error/mean|.1f}", "{stills/pose_error/worst|.1f}")),
        Row(
            "identity distance to the photo",
            ("{stills/identity_distance/mean|.2f}", "{stills/identity_distance/worst|.2f}"),
        ),
        Row("share of the pixels outside the head that change", ("{stills/background_changed|.0%}", "")),
    ),
)
TABLES = (RESTORE, FIND, EDIT, UPSAMPLE, GENERATE, REENACT)


def filled(text: str, figures: dict[str, Any]) -> str:
    """A text with its figures put in.

    Raises:
        InputError: a place that the file does not have.
    """

    def figure(match: re.Match[str]) -> str:
        place, style = match.group(1).rsplit("|", 1)
        try:
            value = reduce(lambda part, key: part[key], place.split("/"), figures)
        except (KeyError, TypeError) as error:
            raise InputError(f"a row must name a figure that the file has, got {place!r}: see its JSON") from error
        return format(value, style).replace("%", " %")

    return re.sub(r"\{([^}]+)\}", figure, text)


def markdown(table: Table, figures: dict[str, Any]) -> str:
    """The table as Markdown, with a line that says which file its figures are from."""
    lines = [["", *table.columns], ["---"] * (len(table.columns) + 1)]
    lines += [[filled(text, figures) for text in (row.label, *row.cells)] for row in table.rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{body}\n\nFrom [figures/{table.file}](figures/{table.file})."


def written(page: str, figures: Path) -> str:
    """The page, with every table between <!-- name --> and <!-- /name --> made anew.

    Raises:
        InputError: a table has no such place in the page.
    """
    for table in TABLES:
        start, end = f"<!-- {table.name} -->", f"<!-- /{table.name} -->"
        if page.count(start) != 1 or page.count(end) != 1:
            raise InputError(f"the page must have {start} and {end} once each: put them where the table goes")
        head, rest = page.split(start)
        text = markdown(table, json.loads((figures / table.file).read_text(encoding="utf-8")))
        page = f"{head}{start}\n{text}\n{end}{rest.split(end)[1]}"
    return page


def write(docs: Path) -> None:
    """Make the tables of docs/results.md anew."""
    page = docs / "results.md"
    page.write_text(written(page.read_text(encoding="utf-8"), docs / "figures"), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
