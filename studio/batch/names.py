"""Names of results: the tree of the inputs is mirrored, no two are alike, and a name once given stays."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from types import MappingProxyType

from studio.errors import InputError

NAME = "{stem}{suffix}"
PASSED_ON = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".avif"}
_JPEG_TOO = {".jpe": ".jpg", ".jfif": ".jpg"}


def check_name(name: str) -> None:
    """Refuse a pattern of names that cannot be one.

    Raises:
        InputError: it lacks {stem}, does not end in {suffix}, or has other fields or a folder.
    """
    try:
        named = [part for _, part, _, _ in string.Formatter().parse(name) if part is not None]
        fits = set(named) == {"stem", "suffix"} and name.endswith("{suffix}") and named.count("suffix") == 1
        fits = fits and not set("/\\\0") & set(name.format(stem="x", suffix=".png"))
    except (ValueError, KeyError, IndexError, AttributeError):
        fits = False
    if not fits:
        raise InputError(
            "name must hold {stem} and end in {suffix}, without folders, got "
            f'{name!r}: "{{stem}}-restored{{suffix}}" is one'
        )


def suffix_for(path: Path, suffix: str | None) -> str:
    """The suffix of a result: the given one, the input's own, or PNG where that cannot be written."""
    own = _JPEG_TOO.get(path.suffix.lower(), path.suffix.lower())
    return suffix or (own if own in PASSED_ON else ".png")


def plan_outputs(
    inputs: Sequence[Path],
    folder: Path,
    suffix: str | None = None,
    *,
    root: Path | None = None,
    name: str = NAME,
    known: Mapping[str, str] = MappingProxyType({}),
    taken: Set[str] = frozenset(),
) -> list[Path]:
    """One output path for each input, inside `folder`, no two alike.

    Inputs keep their sub-folders below `root`. A format that cannot be written becomes PNG.

    Args:
        inputs: files.
        folder: where the outputs go.
        suffix: ".png", ".jpg" … for all; None keeps each input's own.
        root: the folder that is mirrored; None, or where an input lies elsewhere, the one common to all inputs.
        name: pattern of the names, with {stem} and {suffix}.
        known: absolute input -> name inside `folder` that it had before and keeps.
        taken: names inside `folder` that belong to something else.

    Raises:
        InputError: an unknown suffix or pattern, or an output that is an input.
    """
    if suffix is not None and suffix not in PASSED_ON:
        raise InputError(f"format must be one of {', '.join(sorted(PASSED_ON))}, got {suffix}: choose one of them")
    check_name(name)
    absolute = [absolute_of(path) for path in inputs]  # ".." would lead out of the folder
    root = root and root.resolve()
    if absolute and (root is None or not all(path.is_relative_to(root) for path in absolute)):
        root = Path(os.path.commonpath([path.parent for path in absolute]))
    wanted = [_wanted(path, root or Path(), suffix, name) for path in absolute]
    before = [known.get(str(path)) for path in absolute]
    kept = [name if _is(name, one) else None for name, one in zip(before, wanted, strict=True)]
    used = set(taken) | {one for one in kept if one}
    outputs = []
    for had, (stem, ending) in zip(kept, wanted, strict=True):
        outputs.append(folder / (had or free(stem, ending, used)))
        used.add(outputs[-1].relative_to(folder).as_posix())
    originals = {path.resolve() for path in absolute}
    for target in outputs:
        if target.resolve() in originals:
            raise InputError(
                f"outputs must not replace inputs, {target} is both: give another output folder, or other names: "
                '--name "{stem}-restored{suffix}"'
            )
    return outputs


def absolute_of(path: Path) -> Path:
    """Where a file lies, links in its folder followed; a link in its own place is not."""
    return path.parent.resolve() / path.name


def _wanted(path: Path, root: Path, suffix: str | None, name: str) -> tuple[str, str]:
    """The name inside the folder without its suffix, and the suffix."""
    ending = suffix_for(path, suffix)
    last = name.format(stem=path.stem, suffix=ending).removesuffix(ending)
    return (path.parent.relative_to(root) / last).as_posix(), ending


def _is(before: str | None, wanted: tuple[str, str]) -> bool:
    """Whether a name is the wanted one, or that with a number."""
    stem, ending = (re.escape(part) for part in wanted)
    return before is not None and re.fullmatch(rf"{stem}(-\d+)?{ending}", before) is not None


def free(stem: str, ending: str, used: Set[str]) -> str:
    """A name that is not in use: with a number behind it where it must be."""
    found, number = stem + ending, 2
    while found in used:
        found, number = f"{stem}-{number}{ending}", number + 1
    return found


def beside(target: Path, folder: Path, kind: str, suffix: str) -> Path:
    """Where something about a result goes, a sheet say: `folder/kind`, under the result's whole name.

    So what belongs to `a.png` is told from what belongs to `a.webp`.
    """
    name = target.name if target.suffix.lower() == suffix else target.name + suffix
    return folder / kind / target.relative_to(folder).parent / name


def folder_for(kind: str, folder: Path, targets: Sequence[Path]) -> str:
    """`kind`, or with a number where results already go into a sub-folder of that name."""
    tops = {target.relative_to(folder).parts[0] for target in targets}
    return free(kind, "", tops)
