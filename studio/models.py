"""What users choose by name: every model with its licence, size, source, speed and what it is best at.

One list (`weights/manifest.toml`, [models.*]) for the command line, docs/models.md and the pickers of the app.
"""

from __future__ import annotations

import importlib
import tomllib
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from studio import weights
from studio.weights import Entry

Task = Literal["restore", "background", "generate", "reenact"]
PER = {"restore": "face", "background": "megapixel", "generate": "picture", "reenact": "frame"}
HEAD = ("Model", "For", "Licence", "Commercial use", "Size", "How to get it", "Seconds", "Best at")


@dataclass(frozen=True)
class Model:
    """One choice; the manifest explains the fields."""

    name: str
    task: Task
    title: str
    networks: tuple[str, ...]
    best: str
    seconds: float = 0.0

    @property
    def entries(self) -> list[Entry]:
        """Of its networks."""
        return [weights.entry(name) for name in self.networks]

    @property
    def commercial(self) -> str:
        """Of the strictest of its networks."""
        found = {one.commercial for one in self.entries}
        return next(word for word in ("no", "check", "yes") if word in found)

    @property
    def licence(self) -> str:
        """Of the strictest of its networks."""
        return next(one.licence for one in self.entries if one.commercial == self.commercial)

    @property
    def megabytes(self) -> int:
        """What is downloaded, or lies in the repository."""
        return round(sum(bytes_of(one) for one in self.entries) / 1e6)

    @property
    def source(self) -> str:
        """How it is got."""
        ways = dict.fromkeys(source_of(one) for one in self.entries)
        return " and ".join(way for way in ways if way != "here already") or "here already"


@cache
def models() -> dict[str, Model]:
    """All of them by name, in the manifest's order."""
    tables = tomllib.loads(weights.MANIFEST.read_text(encoding="utf-8"))["models"]
    told: dict[str, dict[str, Any]] = {
        name: {**table, "networks": tuple(table["networks"])} for name, table in tables.items()
    }
    return {name: Model(name=name, **table) for name, table in told.items()}


def chosen(task: Task | None = None) -> list[Model]:
    """The models for a task, or all; without those that the licence filter leaves out."""
    found = [one for one in models().values() if task in (None, one.task)]
    return [one for one in found if one.commercial == "yes" or not weights.commercial_only()]


def bytes_of(entry: Entry) -> int:
    """Of the file that holds a network; where nobody has published its size, of its tensors in float32."""
    if entry.published and not entry.bytes:
        return entry.published.bytes or bytes_of_tensors(entry)
    return entry.bytes or sum(member.bytes for member in entry.members)


def bytes_of_tensors(entry: Entry) -> int:
    """Of a published network, in float32, without its weights."""
    import torch

    with torch.device("meta"):
        return 4 * sum(tensor.numel() for tensor in built(entry).state_dict().values())


def built(entry: Entry) -> Any:
    """A published network, of random weights."""
    kind, options = weights.network_class(entry), entry.options
    if "family" in options:
        options = importlib.import_module("studio.convert.torch").FAMILIES[options["family"]].options
    return kind(kind.config_class(**options)) if hasattr(kind, "config_class") else kind(**options)


def source_of(entry: Entry) -> str:
    """Where a network comes from, in a few words."""
    if entry.archive:
        return f"fetched from the package {entry.archive.requirement.split('==')[0]}"
    if entry.published is None:
        return "here already"
    if entry.published.hub:
        return f"fetched from {entry.published.hub} on the Hub"
    return f"{entry.published.file} from {entry.published.where}"


def row(model: Model) -> tuple[str, ...]:
    """One model as `HEAD`."""
    seconds = f"{model.seconds:g} a {PER[model.task]}" if model.seconds else "–"
    size = f"{model.megabytes} MB"
    return (model.name, model.task, model.licence, model.commercial, size, model.source, seconds, model.best)


def table(task: Task | None = None) -> str:
    """Markdown, for docs/models.md."""
    lines = [HEAD, ("---",) * len(HEAD), *((f"`{one[0]}`", *one[1:]) for one in map(row, chosen(task)))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
