"""What came of each file, and the report over all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from studio.errors import InputError

RESTORED, NO_FACE, UNCHANGED, FAILED = "restored", "no face", "unchanged", "failed"


@dataclass
class FileReport:
    """One line of the report: what came of one file.

    Attributes:
        input, output: paths; the output is None when no file was written. One is written where a face was restored, or
            where a network drew the photo around the faces.
        status: "restored", "no face", "unchanged" (faces, but none restored) or "failed".
        reason: why there is no output, one line.
        scale: how many times as large as the input the output is; None without an output.
        seconds: wall time, of the run that did it.
        credentials: "written", or why the output has no Content Credentials; empty without an output.
        faces: `FaceReport.to_dict` of each face.
        doubtful: boxes x0, y0, x1, y1 of places that look a little like a face and were left alone.
        notes: what else should be known, one line each: pages that were left out, what a damaged file lacks.
        duplicate_of: the input with the same content whose output stands for this one, too; None for others.
        earlier: whether an earlier run did it, as the journal tells.
    """

    input: str
    output: str | None = None
    status: str = ""
    reason: str = ""
    scale: float | None = None
    seconds: float = 0.0
    credentials: str = ""
    faces: list[dict[str, Any]] = field(default_factory=list)
    doubtful: list[list[float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    duplicate_of: str | None = None
    earlier: bool = False

    @classmethod
    def from_dict(cls, entry: dict[str, Any]) -> FileReport:
        """What `asdict` made of one, by this version or another."""
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in entry.items() if name in known})


def write_report(path: Path, reports: Iterable[FileReport], about: dict[str, Any]) -> None:
    """The report as JSON: `about` (settings, versions, weights) and the files; replaced as a whole.

    Raises:
        InputError: it cannot be written there.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({**about, "files": [asdict(found) for found in reports]}, indent=1))
        part.replace(path)
    except OSError as error:
        raise InputError(f"the report must be writable, got {path} ({error.strerror}): choose another place") from error


def read_report(path: Path) -> dict[str, dict[str, Any]]:
    """Files of an earlier report by input path; empty when unreadable."""
    try:
        return {entry["input"]: entry for entry in json.loads(path.read_text())["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
