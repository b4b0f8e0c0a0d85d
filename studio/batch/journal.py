"""The journal of a folder of results: one row a file, kept in the folder itself, so that any run can go on.

A SQLite database in write-ahead mode. What a row says was on the disk before the row said so:

1. the row becomes `writing`, with the SHA-256 of every file that is about to be written;
2. each file is written under another name, forced to the disk, and renamed;
3. the row becomes `done`.

Whoever is killed in between finds at the next run which of the files are whole. Names are those inside the folder, so
folder and journal can be moved together. One run at a time may write.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from studio.errors import InputError

FILE = ".studio-journal.sqlite"
WRITING, DONE, FAILED = "writing", "done", "failed"
_VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS files (
    input BLOB PRIMARY KEY, content TEXT, settings TEXT, weights TEXT, state TEXT, output BLOB, files TEXT, report TEXT
);
CREATE INDEX IF NOT EXISTS by_content ON files (content);
CREATE TABLE IF NOT EXISTS outputs (name BLOB PRIMARY KEY, sha256 TEXT, before TEXT, input BLOB);
"""


@dataclass(frozen=True)
class Key:
    """What a result depends on: SHA-256 of the input's content, of the settings that matter to it, of the weights."""

    content: str
    settings: str
    weights: str


@dataclass
class Row:
    """What the journal says of one input.

    Attributes:
        input: absolute path.
        key: of the result; the content alone of one that failed.
        state: "writing", "done" or "failed".
        output: the name that its result has, or would have, inside the folder.
        files: kind -> name inside the folder, and SHA-256.
        report: a `FileReport` as a dict.
    """

    input: str
    key: Key
    state: str
    output: str
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)


class Journal:
    """The journal of one folder, open for writing. Use it as a context manager.

    Args:
        folder: of the results; made when missing.

    Raises:
        InputError: the folder cannot be written, another run has it, or the journal is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the output must be a folder that can be written, got {folder} ({error.strerror}): choose another"
            ) from error
        with _said(folder):
            self._base = sqlite3.connect(folder / FILE, isolation_level=None, timeout=1)
        try:
            self._open()
        except BaseException:
            self._base.close()  # an open one would keep the lock
            raise

    def _open(self) -> None:
        """Take the lock, make the tables, and clear away what a killed run had not completed."""
        with _said(self.folder):
            self._base.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=FULL")
            version = self._base.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise InputError(f"the journal of {self.folder} must be of version {_VERSION}, got {version}: update")
            with self._together():  # takes the lock, which is then kept
                for statement in _TABLES.split(";"):
                    self._base.execute(statement)
                self._base.execute(f"PRAGMA user_version={_VERSION}")
        for row in self._rows("WHERE state = ?", WRITING):
            for name, _ in row.files.values():
                part_of(self.folder / name).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    def row(self, path: Path) -> Row | None:
        """What is known of an input (absolute)."""
        return next(iter(self._rows("WHERE input = ?", os.fsencode(path))), None)

    def twins(self, key: Key, path: Path) -> list[Row]:
        """Other inputs whose result is done and is what this key asks for, without those that only point to one."""
        where = "WHERE content = ? AND settings = ? AND weights = ? AND state = ? AND input != ?"
        where += " AND json_extract(report, '$.duplicate_of') IS NULL ORDER BY rowid"
        return self._rows(where, key.content, key.settings, key.weights, DONE, os.fsencode(path))

    def names(self) -> dict[str, str]:
        """Input -> the name of its result inside the folder, for every row."""
        with _said(self.folder):
            found = self._base.execute("SELECT input, output FROM files").fetchall()
        return {os.fsdecode(path): os.fsdecode(name) for path, name in found}

    def written(self) -> dict[str, str]:
        """Name inside the folder -> input, for everything that was ever written."""
        with _said(self.folder):
            found = self._base.execute("SELECT name, input FROM outputs").fetchall()
        return {os.fsdecode(name): os.fsdecode(path) for name, path in found}

    def owner(self, name: str) -> str | None:
        """The input that a file inside the folder was written for."""
        with _said(self.folder):
            found = self._base.execute("SELECT input FROM outputs WHERE name = ?", (os.fsencode(name),)).fetchone()
        return os.fsdecode(found[0]) if found else None

    def owns(self, path: Path) -> bool:
        """Whether a file in the folder is as a run wrote it, or as it was when one began to replace it."""
        name = os.fsencode(path.relative_to(self.folder).as_posix())
        with _said(self.folder):
            found = self._base.execute("SELECT sha256, before FROM outputs WHERE name = ?", (name,)).fetchone()
        return found is not None and sha256_of(path) in found

    def begin(self, row: Row) -> None:
        """Say what is about to be written for a row."""
        row.state = WRITING
        with self._together():
            for name, digest in row.files.values():
                before = sha256_of(self.folder / name) or None
                values = os.fsencode(name), digest, before, os.fsencode(row.input)
                self._base.execute("INSERT OR REPLACE INTO outputs VALUES (?, ?, ?, ?)", values)
            self._put(row)

    def finish(self, row: Row, gone: Row | None = None) -> None:
        """Say that all of a row is on the disk; `gone` is the row of an input that was renamed to this one."""
        row.state = DONE
        with self._together():
            self._put(row)
            if gone is not None:
                self._base.execute("DELETE FROM files WHERE input = ?", (os.fsencode(gone.input),))
                for name in {name for name, _ in gone.files.values()} - {name for name, _ in row.files.values()}:
                    self._base.execute("DELETE FROM outputs WHERE name = ?", (os.fsencode(name),))

    def failed(self, row: Row) -> None:
        """Say that nothing came of an input; it is tried again by the next run."""
        row.state = FAILED
        with self._together():
            self._put(row)

    def _put(self, row: Row) -> None:
        values = os.fsencode(row.input), *vars(row.key).values(), row.state, os.fsencode(row.output)
        texts = json.dumps(row.files), json.dumps(row.report)
        self._base.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*values, *texts))

    def _rows(self, where: str, *values: str | bytes) -> list[Row]:
        with _said(self.folder):
            found = self._base.execute(f"SELECT * FROM files {where}", values).fetchall()
        return [
            Row(
                os.fsdecode(path),
                Key(content, settings, weights),
                state,
                os.fsdecode(output),
                {kind: (name, digest) for kind, (name, digest) in json.loads(files).items()},
                json.loads(report),
            )
            for path, content, settings, weights, state, output, files, report in found
        ]

    @contextmanager
    def _together(self) -> Iterator[None]:
        """All of the statements within, or none."""
        with _said(self.folder):
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._base.execute("ROLLBACK")
                raise
            self._base.execute("COMMIT")


@contextmanager
def _said(folder: Path) -> Iterator[None]:
    """Errors of the database in one line."""
    try:
        yield
    except sqlite3.Error as error:
        told = {"SQLITE_BUSY": "another run is at work there: wait for it, or choose another folder"}
        told |= dict.fromkeys(("SQLITE_NOTADB", "SQLITE_CORRUPT"), f"it is damaged: delete {FILE} in it")
        told |= {"SQLITE_FULL": "the disk is full: make room, then go on with --resume"}
        told |= dict.fromkeys(("SQLITE_CANTOPEN", "SQLITE_READONLY"), "it cannot be written: choose another folder")
        name = getattr(error, "sqlite_errorname", "")
        what = next((text for code, text in told.items() if name.startswith(code)), f"{error}: try another folder")
        raise InputError(f"the journal of {folder} must be writable, {what}") from error


def known_results(folder: Path) -> frozenset[str]:
    """Names inside a folder of everything that runs wrote there; empty where there is no journal.

    Raises:
        InputError: another run is at work there, or the journal is damaged.
    """
    if not (folder / FILE).is_file():
        return frozenset()
    if not os.access(folder, os.W_OK):  # an archive that was made read-only: nobody is at work there
        address = f"{(folder / FILE).absolute().as_uri()}?immutable=1"
        with _said(folder), closing(sqlite3.connect(address, uri=True)) as base:
            return frozenset(os.fsdecode(name) for (name,) in base.execute("SELECT name FROM outputs"))
    with Journal(folder) as journal:
        return frozenset(journal.written())


def part_of(path: Path) -> Path:
    """What a file is called until it is complete; always the same, so that a later run finds it."""
    return path.parent / f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.part"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex; empty where there is none.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise InputError(f"{path} must be readable, got {error.strerror}: check it") from error


def hash_of(data: Mapping[str, Any]) -> str:
    """SHA-256 of settings, whatever their order; arrays and tensors count by their values."""

    def plain(value: Any) -> Any:
        return value.tolist() if hasattr(value, "tolist") else str(value)

    return hashlib.sha256(json.dumps(data, sort_keys=True, default=plain).encode()).hexdigest()
