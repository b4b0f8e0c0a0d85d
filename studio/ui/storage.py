"""Where uploads and results lie: a folder of this process alone, bounded, and gone when the process is.

However the app ends, nothing is left: it removes its folder when it is told to stop, and what a killed one left is
removed by the next that starts.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync
from filelock import FileLock, Timeout
from gradio.utils import get_upload_folder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.errors import InputError

GIGABYTE = 2**30
EACH, ALL = 2 * GIGABYTE, 8 * GIGABYTE  # of one visitor, by the address, and of everybody with their results
VISITORS = 10_000  # that are remembered
PREFIX = "run-"
STOPPING = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder of this process, in GRADIO_TEMP_DIR or the system's temporary one, for everything that it writes.

    gradio's files lie in its subfolder `files`, those of a run that is under way in `work`. Folders of processes that
    are no more are removed. Afterwards it is removed and both settings are as before.

    Raises:
        InputError: the place belongs to somebody else.
    """
    base = place()
    sweep(base)
    with FileLock(base / f"{PREFIX}{secrets.token_hex(8)}.lock") as lock:
        folder = Path(lock.lock_file).with_suffix("")
        for part in ("files", "work"):
            (folder / part).mkdir(parents=True, mode=0o700)
        before, scratch = os.environ.get("GRADIO_TEMP_DIR"), tempfile.tempdir
        os.environ["GRADIO_TEMP_DIR"], tempfile.tempdir = str(folder / "files"), str(folder / "work")
        try:
            yield folder
        finally:
            tempfile.tempdir = scratch
            os.environ.pop("GRADIO_TEMP_DIR")
            if before is not None:
                os.environ["GRADIO_TEMP_DIR"] = before
            with undisturbed():
                shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):  # Windows deletes no file that is open: the next one that starts does
                    Path(lock.lock_file).unlink(missing_ok=True)


def place() -> Path:
    """The folder in which every process has its own; others may read neither."""
    given = os.environ.get("GRADIO_TEMP_DIR")
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    base = Path(given) if given else Path(tempfile.gettempdir()) / f"face-studio{user}"
    base.mkdir(parents=True, exist_ok=True, mode=0o700)
    if hasattr(os, "getuid") and ((base.is_symlink() and not given) or base.stat().st_uid != os.getuid()):
        raise InputError(f"uploads must lie in a folder of one's own, {base} is somebody else's: set GRADIO_TEMP_DIR")
    return base


def sweep(base: Path) -> None:
    """Remove the folders of processes that are no more: nobody holds their locks."""
    for folder in {path.with_suffix("") for path in base.glob(f"{PREFIX}*")}:
        lock = FileLock(f"{folder}.lock")
        with suppress(Timeout, OSError), lock.acquire(timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
            Path(lock.lock_file).unlink(missing_ok=True)


@contextmanager
def told_to_stop() -> Iterator[None]:
    """Let SIGTERM, and a terminal that is closed, end the program as Ctrl-C does: `finally` blocks are run."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = {name: signal.signal(getattr(signal, name), stop) for name in STOPPING}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let no further signal to stop come between."""
    names = ["SIGINT", *STOPPING]
    before = {name: signal.signal(getattr(signal, name), signal.SIG_IGN) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


# ---- bounds


class Bounded:
    """Deletes the oldest uploads of a visitor, and the oldest files of all, where there are more than may be.

    Args:
        app: what takes the uploads.
        each: bytes of one visitor's uploads; visitors are told apart by their addresses.
        most: bytes of all files, results included.
    """

    def __init__(self, app: ASGIApp, each: int = EACH, most: int = ALL) -> None:
        self.app, self.each, self.most = app, each, most
        self.uploads: OrderedDict[str, OrderedDict[Path, int]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request."""
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].rstrip("/").endswith("/upload"):
            await self.app(scope, receive, send)
            return
        body: list[bytes] = []

        async def keeping(message: Message) -> None:
            body.append(message.get("body", b""))
            await send(message)

        await self.app(scope, receive, keeping)
        visitor = str((scope.get("client") or ("unknown",))[0])
        await run_sync(self.bound, visitor, paths(b"".join(body)), kept(scope["app"].get_blocks()))

    def bound(self, visitor: str, uploads: list[Path], spared: frozenset[Path]) -> None:
        """Delete what is too much after a visitor has uploaded some more."""
        own = self.uploads.pop(visitor, OrderedDict())
        self.uploads[visitor] = own  # to the end
        for path in uploads:
            own.pop(path, None)
            own[path] = size_of(path)
        while len(own) > 1 and sum(own.values()) > self.each:
            remove(own.popitem(last=False)[0])
        while len(self.uploads) > VISITORS:
            self.uploads.popitem(last=False)
        prune(Path(get_upload_folder()), self.most, spared)


def paths(answer: bytes) -> list[Path]:
    """The uploads that an answer of the upload route names."""
    with suppress(ValueError, TypeError):
        found = [Path(one).resolve() for one in json.loads(answer)]
        folder = Path(get_upload_folder()).resolve()
        return [one for one in found if one.is_relative_to(folder)]
    return []


def kept(blocks: Any) -> frozenset[Path]:
    """Files of the page itself, such as its examples."""
    return frozenset(Path(one).resolve() for block in blocks.blocks.values() for one in block.keep_in_cache)


def prune(folder: Path, most: int, spared: Iterable[Path] = ()) -> list[Path]:
    """Delete the oldest files in a folder until the rest is no more than so many bytes.

    Returns:
        What was deleted.
    """
    spared = frozenset(spared)
    found = []
    for inside, _, names in os.walk(folder):  # passes over folders that go meanwhile; `rglob` stops at them
        for path in (Path(inside, name) for name in names):
            with suppress(OSError):  # gone meanwhile
                if path.is_file() and path.resolve() not in spared:
                    state = path.stat()
                    found.append((state.st_mtime, state.st_size, path))
    total = sum(size for _, size, _ in found)
    deleted = []
    for _, size, path in sorted(found):
        if total <= most:
            break
        remove(path)
        total -= size
        deleted.append(path)
    return deleted


def remove(path: Path) -> None:
    """Delete a file, and its folder if nothing else is in it."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
        path.parent.rmdir()


def size_of(path: Path) -> int:
    """Bytes; 0 of a file that is no more."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
