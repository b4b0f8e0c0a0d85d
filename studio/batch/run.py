"""Many inputs of any task: a bad one is reported and the rest goes on; the journal sees that nothing is done twice."""

from __future__ import annotations

import errno
import hashlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from studio import images
from studio.batch import names
from studio.batch.journal import DONE, WRITING, Journal, Key, Row, hash_of, part_of, sha256_of
from studio.batch.reports import FAILED, FileReport
from studio.errors import InputError, StudioError

RESULT = "result"  # the kind of file that the others are about
MOST_WORKERS = 64
_FULL = (errno.ENOSPC, errno.EDQUOT)
Places = dict[str, Path]


@dataclass(frozen=True)
class Task:
    """What is done to every input.

    Attributes:
        make: called with the input, the places of its files and its report; fills in the report and returns the bytes
            of each file that shall be written, by kind.
        settings: those that matter to the result at a place; a result made with others is made again.
        weights: network -> SHA-256; likewise.
        kinds: kinds of files beside the result -> their suffix; they go to a sub-folder named like the kind.
        later: kind -> what makes it from the input, the places and the report of a result that is there already.
    """

    make: Callable[[Path, Places, FileReport], dict[str, bytes]]
    settings: Callable[[Path], dict[str, Any]] = lambda _: {}
    weights: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    later: dict[str, Callable[[Path, Places, FileReport], dict[str, bytes]]] = field(default_factory=dict)


def run(
    task: Task,
    inputs: Sequence[Path],
    folder: Path,
    *,
    suffix: str | None = None,
    root: Path | None = None,
    name: str = names.NAME,
    resume: bool = False,
    overwrite: bool = False,
    journal: bool = True,
    workers: int = 1,
    on_file: Callable[[FileReport], None] = lambda _: None,
) -> list[FileReport]:
    """Do a task for many files.

    Args:
        task: what is done.
        inputs: files.
        folder: of the results, made when missing.
        suffix: of the results; None keeps each input's own, where that can be written.
        root: the folder whose tree the results mirror, see `names.plan_outputs`.
        name: pattern of the results' names, with {stem} and {suffix}.
        resume: leave out what the journal says is done with these settings and weights; make what lacks or changed.
        overwrite: replace results that are there. With neither, such a file fails with a message.
        journal: keep one in the folder. Inputs of one content are then done once.
        workers: files that are made at a time, each in a thread; journal and results are written by one, in order.
        on_file: called after each file, in order.

    Returns:
        A report for each input, in order.

    Raises:
        InputError: names that cannot be, a folder that cannot be written or is at work, or a full disk.
    """
    if resume and not journal:
        raise InputError("resume goes by the journal, got journal=False: keep one")
    if not isinstance(workers, int) or not 1 <= workers <= MOST_WORKERS:
        raise InputError(f"workers must be a whole number from 1 to {MOST_WORKERS}, got {workers!r}: 1 is usual")
    if not journal:
        return _Run(task, inputs, folder, None, suffix, root, name, resume, overwrite).all(on_file, workers)
    names.plan_outputs(inputs, folder, suffix, root=root, name=name)  # refuses before the folder is made
    with Journal(folder) as opened:
        return _Run(task, inputs, folder, opened, suffix, root, name, resume, overwrite).all(on_file, workers)


@dataclass
class _Begun:
    """A file that is being made; `row` is what the journal will say of it."""

    source: Path
    target: Path
    places: Places
    found: FileReport
    row: Row | None
    made: Future[dict[str, bytes]]
    start: float
    content: str


class _Here(Executor):
    """Does what is submitted at once, in the thread that submits it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


class _Run:
    """One run over a folder of results."""

    def __init__(
        self,
        task: Task,
        inputs: Sequence[Path],
        folder: Path,
        journal: Journal | None,
        suffix: str | None,
        root: Path | None,
        name: str,
        resume: bool,
        overwrite: bool,
    ) -> None:
        one = {names.absolute_of(path): path for path in reversed(inputs)}  # a file is one input, however it is named
        one = dict(reversed(one.items()))
        self.task, self.inputs, self.folder, self.journal = task, list(one.values()), folder, journal
        self.resume, self.overwrite = resume, overwrite
        self.weights = hash_of(task.weights)
        self.made: set[str] = set()  # inputs that this run did
        known = journal.names() if journal else {}
        written = journal.written() if journal else {}
        present = set(map(str, one))
        # The result of an input that is gone may be that of a renamed one, which then takes its name over.
        taken = {one for one, path in written.items() if path not in present and Path(path).exists()}
        self.targets = names.plan_outputs(self.inputs, folder, suffix, root=root, name=name, known=known, taken=taken)
        self.tops = {kind: names.folder_for(kind, folder, self.targets) for kind in task.kinds}
        self.used = {target.relative_to(folder).as_posix() for target in self.targets} | set(written)

    def all(self, on_file: Callable[[FileReport], None], workers: int) -> list[FileReport]:
        """Everything, in order. Not more than twice as many files as workers are begun and not written."""
        reports: list[FileReport] = []
        waiting: deque[_Begun | FileReport] = deque()

        def settle(most: int) -> None:
            while len(waiting) > most:
                first = waiting.popleft()
                reports.append(self.ended(first) if isinstance(first, _Begun) else first)
                on_file(reports[-1])

        pool = ThreadPoolExecutor(workers) if workers > 1 else _Here()
        try:
            for source, target in zip(self.inputs, self.targets, strict=True):
                content = self.content(source) if waiting else ""
                if any(isinstance(one, _Begun) and one.content == content for one in waiting):
                    settle(0)  # a duplicate of one that is being made
                waiting.append(self.begun(pool, source, target))
                settle(2 * workers - 1 if workers > 1 else 0)
            settle(0)
        finally:
            pool.shutdown(cancel_futures=True)
        return reports

    def begun(self, pool: Executor, source: Path, target: Path) -> _Begun | FileReport:
        """Begin to make one file, or find that it is done."""
        start = time.perf_counter()
        try:
            if self.journal is None:
                self.refuse(target)
                row = None
            else:
                found = self.known(self.journal, source, target)
                if isinstance(found, FileReport):
                    return found
                row, target = found, self.folder / found.output
        except (StudioError, OSError) as error:
            return self.failed(source, target, error, start)
        found, places = FileReport(str(source)), self.places(target)
        made = pool.submit(self.task.make, source, places, found)
        return _Begun(source, target, places, found, row, made, start, row.key.content if row else "")

    def ended(self, begun: _Begun) -> FileReport:
        """Write what was made."""
        try:
            files = begun.made.result()
            if begun.row and self.journal:
                if RESULT not in files and begun.target.exists():
                    begun.found.notes.append(f"{begun.target.name} is there from earlier settings")
                return self.written(self.journal, begun.row, begun.places, files, begun.found, begun.start)
            for kind, data in files.items():
                images.write(data, begun.places[kind])
        except (StudioError, OSError) as error:
            return self.failed(begun.source, begun.target, error, begun.start)
        begun.found.seconds = took(begun.start)
        return begun.found

    def failed(self, source: Path, target: Path, error: Exception, start: float) -> FileReport:
        """The report of a file that nothing came of.

        Raises:
            InputError: the disk is full, which ends the run.
        """
        if any(getattr(each, "errno", None) in _FULL for each in (error, error.__cause__)):
            raise InputError(f"{self.folder} must have room, its disk is full: make some, and --resume") from error
        found = FileReport(str(source), status=FAILED, reason=" ".join(str(error).split()), seconds=took(start))
        if self.journal:
            self.note_failure(self.journal, source, target, found)
        return found

    def content(self, source: Path) -> str:
        """SHA-256 of an input, for what is being made at the same time; empty without a journal."""
        try:
            return sha256_of(source) if self.journal else ""
        except InputError:
            return ""

    def places(self, target: Path) -> Places:
        """Where the result and everything about it go."""
        beside = {
            kind: names.beside(target, self.folder, self.tops[kind], suffix) for kind, suffix in self.task.kinds.items()
        }
        return {RESULT: target, **beside}

    # ---- with a journal

    def known(self, journal: Journal, source: Path, target: Path) -> FileReport | Row:
        """The report of a file that was done before, is a duplicate, or was renamed; else the row of what to make."""
        path = names.absolute_of(source)
        key = Key(content_of(source), hash_of(self.task.settings(target)), self.weights)
        row = journal.row(path)
        if self.resume and row and row.key == key and self.is_whole(row):
            if row.state == WRITING:
                journal.finish(row)
            return self.completed(journal, source, row)
        own = row is not None and bool(row.files) and not row.report.get("duplicate_of")  # is made again in its place
        for other in journal.twins(key, path) if not own else ():
            if not self.is_whole(other):
                continue
            if not Path(other.input).exists():
                if self.resume:
                    return self.renamed(journal, source, target, key, other)
            elif sha256_of(Path(other.input)) == key.content and (not self.overwrite or other.input in self.made):
                return self.linked(journal, source, target, key, other)
        target = self.own_target(journal, target, path, key.content)
        self.refuse(target)
        return Row(str(path), key, WRITING, self.inside(target))

    def is_whole(self, row: Row) -> bool:
        """Whether all files of a row are there: as they were written, or altered since by somebody else.

        A duplicate has none of its own: what it stands for must still have its content and its files.
        """
        if row.state not in (WRITING, DONE):
            return False
        first = row.report.get("duplicate_of")
        if first:
            other = self.journal.row(Path(first)) if self.journal else None
            if other is None or other.key != row.key or sha256_of(Path(first)) != row.key.content:
                return False
            return self.is_whole(other)
        paths = [(self.folder / name, digest) for name, digest in row.files.values()]
        if row.state == WRITING:
            return all(sha256_of(path) == digest for path, digest in paths)
        return all(path.is_file() for path, _ in paths)

    def completed(self, journal: Journal, source: Path, row: Row) -> FileReport | Row:
        """The report of a row that is done; kinds of files that were not asked for before are made now."""
        found = self.told(source, row)
        result = row.files.get(RESULT)
        lacking = [kind for kind in self.task.kinds if result and kind not in row.files]
        if result is None or not lacking or found.duplicate_of:
            return found
        places, start = self.places(self.folder / result[0]), time.perf_counter()
        if not set(lacking) <= set(self.task.later):
            self.refuse(places[RESULT])
            return Row(row.input, row.key, WRITING, result[0])
        files = {kind: data for each in lacking for kind, data in self.task.later[each](source, places, found).items()}
        return self.written(journal, row, places, files, found, start) if files else found

    def told(self, source: Path, row: Row) -> FileReport:
        """A row's report, with the paths as they are now."""
        found = FileReport.from_dict(row.report)
        found.input, found.earlier = str(source), row.input not in self.made
        if RESULT in row.files:
            name, digest = row.files[RESULT]
            found.output = str(self.folder / name)
            if sha256_of(self.folder / name) != digest:
                found.notes.append("the result was altered since it was written, and kept")
        return found

    def linked(self, journal: Journal, source: Path, target: Path, key: Key, other: Row) -> FileReport:
        """The report of an input whose content was done under another name."""
        found = self.told(source, other)
        found.duplicate_of = other.input
        found.earlier = False
        row = Row(str(names.absolute_of(source)), key, DONE, self.inside(target), dict(other.files), asdict(found))
        journal.finish(row)
        return found

    def renamed(self, journal: Journal, source: Path, target: Path, key: Key, other: Row) -> FileReport:
        """The result of an input that has another name now takes that name, too."""
        path = names.absolute_of(source)
        target = self.own_target(journal, target, path, key.content)
        places, files = self.places(target), {}
        for kind, (name, digest) in other.files.items():
            place = places.get(kind, self.folder / name)
            files[kind] = (self.inside(place), digest)
            if place != self.folder / name and place.exists():
                self.refuse(place)
        row = Row(str(path), key, WRITING, self.inside(target), files, other.report)
        journal.begin(row)
        for kind, (name, _) in other.files.items():
            place = self.folder / files[kind][0]
            place.parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).replace(place)
        journal.finish(row, gone=other)
        return self.told(source, row)

    def written(
        self, journal: Journal, row: Row, places: Places, files: dict[str, bytes], found: FileReport, start: float
    ) -> FileReport:
        """Write files, so that the journal never says more than is on the disk."""
        for kind in files:
            self.refuse(places[kind])
        sums = {kind: (self.inside(places[kind]), hashlib.sha256(data).hexdigest()) for kind, data in files.items()}
        row.files = row.files | sums
        found.seconds = found.seconds or took(start)
        row.report = asdict(found)
        journal.begin(row)
        for kind, data in files.items():
            images.write(data, places[kind], part_of(places[kind]))
        journal.finish(row)
        self.made.add(row.input)
        return found

    def note_failure(self, journal: Journal, source: Path, target: Path, found: FileReport) -> None:
        """Keep the reason, unless an earlier result is known: that is not forgotten for it."""
        path = names.absolute_of(source)
        row = journal.row(path)
        if row is None or not row.files:
            journal.failed(Row(str(path), Key("", "", ""), FAILED, self.inside(target), {}, asdict(found)))

    def own_target(self, journal: Journal, target: Path, path: Path, content: str) -> Path:
        """The planned place, or the next free one where the result of another photo lies.

        Of another photo: that of an input with this content, which was renamed or moved, is not in the way.
        """
        owner = journal.owner(self.inside(target))
        if owner in (None, str(path)) or not target.exists():
            return target
        row = journal.row(Path(owner))
        if row is None or row.key.content == content:
            return target
        stem = self.inside(target).removesuffix(target.suffix)
        name = names.free(stem, target.suffix, self.used)
        self.used.add(name)
        return self.folder / name

    def refuse(self, target: Path) -> None:
        """Replace nothing without leave; --resume may replace what a run wrote.

        Raises:
            InputError: a file is there that must stay.
        """
        if self.overwrite or not target.exists():
            return
        if self.resume and self.journal and self.journal.owns(target):
            return
        if self.resume:
            raise InputError(
                f"{target} must be as an earlier run wrote it, got another file: pass --overwrite to replace it, or "
                "move it away"
            )
        raise InputError(f"{target} must not exist yet: pass --resume to skip it or --overwrite to replace it")

    def inside(self, path: Path) -> str:
        """A path's name inside the folder."""
        return path.relative_to(self.folder).as_posix()


def took(start: float) -> float:
    """Seconds since then."""
    return round(time.perf_counter() - start, 3)


def content_of(path: Path) -> str:
    """SHA-256 of an input.

    Raises:
        InputError: it cannot be read.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "a special file" if path.exists() else "nothing"
        raise InputError(f"the path must be an existing photo file, got {str(path)[:200]!r}, where there is {what}")
    return sha256_of(path)
