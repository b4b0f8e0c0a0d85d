"""Results of earlier runs among the inputs: an output folder may lie inside the folder of the photos."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from studio import provenance
from studio.batch.journal import FILE, known_results
from studio.batch.names import absolute_of
from studio.folders import Gathered


def without_results(gathered: Gathered, output: Path) -> list[Path]:
    """Take the studio's own results out of what was gathered.

    Those are the files that the journal of a folder names, and files in the output folder whose credentials say that
    the studio wrote them.

    Args:
        gathered: what the user named; its `files` and `unread` are changed.
        output: the folder of the results.

    Returns:
        The results that were taken out.

    Raises:
        InputError: another run is at work in one of the folders, or its journal is damaged.
    """
    journals: dict[Path, frozenset[str]] = {}
    output = output.resolve()

    def own(path: Path) -> bool:
        path = absolute_of(path)
        for folder in _between(path, gathered.root, output):
            if folder not in journals:
                journals[folder] = known_results(folder)
            if path.relative_to(folder).as_posix() in journals[folder]:
                return True
        return path.is_relative_to(output) and provenance.is_own(path)

    found = [path for path in gathered.files if own(path)]
    gathered.files = [path for path in gathered.files if path not in set(found)]
    gathered.unread = [(path, reason) for path, reason in gathered.unread if path.name != FILE]
    return found


def _between(path: Path, root: Path | None, output: Path) -> Iterable[Path]:
    """Folders above a file that may hold a journal: those below the root, and the output folder."""
    above = [folder for folder in path.parents if root is not None and folder.is_relative_to(root)]
    return above + ([output] if path.is_relative_to(output) and output not in above else [])
