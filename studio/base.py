"""`StudioPipeline`: what all pipelines share, which is strict loading and a saved format that survives moved files.

Saved format (a test holds it): `model_index.json` records every network of this project as `["studio", "Restorer"]`,
never by the file it is defined in, so that a folder saved today loads after the code has moved.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import DiffusionPipeline

import studio
from studio.errors import InputError, MissingWeightsError, WeightsError

# Where a saved component may come from. Anything else would mean to import a module because a folder names it.
_LIBRARIES = ("studio", "diffusers", "transformers")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class StudioPipeline(DiffusionPipeline, ABC):
    """Base of all pipelines. Abstract; its subclasses are final.

    A subclass says under which names it is known, how such a name is assembled, and what it does:

        class RestorePipeline(StudioPipeline):
            known_names = ("restore",)

            def __init__(self, restorer: Restorer, generator: Generator) -> None:
                super().__init__()
                self.register_modules(restorer=restorer, generator=generator)

            @classmethod
            def _components(cls, name: str) -> dict[str, Any]:
                return {"restorer": Restorer.from_pretrained(weights.path(name)), ...}

            def __call__(self, image, ...) -> RestoreOutput: ...

    Everything registered is a public network of `studio` or a class of diffusers or transformers; helpers without
    weights (a face finder, an encoder that wraps a network) are built in `__init__` and not registered.

    Attributes:
        known_names: names that `from_pretrained` accepts beside a folder.
    """

    known_names: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if StudioPipeline not in cls.__bases__:
            raise TypeError(f"{cls.__name__} must inherit from StudioPipeline itself: pipelines are final")

    @classmethod
    @abstractmethod
    def _components(cls, name: str) -> dict[str, Any]:
        """Assembles a known name: the arguments of `__init__`, with the weights of this project's store.

        Args:
            name: one of `known_names`.
        """

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the pipeline; a subclass names its arguments."""

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
    ) -> Self:
        """Loads the pipeline, strictly: every tensor of every network must be there and fit.

        Args:
            name_or_folder: one of `known_names`, or a folder written by `save_pretrained`. A known name wins over a
                folder of that name (write "./restore" for the folder).
            dtype: a floating type for all networks; None is float32, whatever the files hold.
            device: where the networks go; None is the CPU.

        Raises:
            InputError: neither a known name nor a folder here, or a folder of another pipeline.
            MissingWeightsError: the folder holds no saved pipeline, or lacks a part.
            WeightsError: a part is damaged, or is not what this pipeline needs.
        """
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise InputError(f"dtype must be a floating torch.dtype, got {dtype!r}: pass torch.float16, say")
        dtype = dtype or torch.float32
        if name_or_folder in cls.known_names:
            pipeline = cls(**cls._components(str(name_or_folder)))
            for part in pipeline.components.values():
                if isinstance(part, torch.nn.Module):
                    # diffusers' own `to` warns of modules to be kept in float32 even where there are none.
                    torch.nn.Module.to(part, dtype=dtype)
        else:
            folder = cls._folder(name_or_folder)
            _check_index(cls, folder)
            pipeline = super().from_pretrained(str(folder), dtype=dtype, use_safetensors=True)
        return pipeline.to(device or "cpu")

    def save_pretrained(self, folder: str | Path, *, max_shard_size: int | str | None = None) -> None:
        """Writes every network (safetensors) and `model_index.json`; `from_pretrained(folder)` gives the same back.

        Args:
            folder: made if needed; files of a pipeline saved there before are overwritten.
            max_shard_size: largest weight file, in bytes or as "15MB"; None leaves it to diffusers.

        Raises:
            InputError: `folder` is a file, or a component is one that could not be loaded again.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"a pipeline is saved to a folder, but {folder} is a file: give another name")
        parts = {name: part for name, part in self.components.items() if part is not None}
        self.register_to_config(**{name: _public_class(name, part) for name, part in parts.items()})
        super().save_pretrained(str(folder), max_shard_size=max_shard_size)

    def to_json_string(self) -> str:
        """The text of `model_index.json`, without the place this pipeline was loaded from: that is a private path."""
        index = json.loads(super().to_json_string())
        index.pop("_name_or_path", None)
        return json.dumps(index, indent=2, sort_keys=True) + "\n"

    @classmethod
    def _folder(cls, name_or_folder: str | Path) -> Path:
        """The folder meant, or the reason why there is none."""
        known = ", ".join(cls.known_names) or "none"
        if not isinstance(name_or_folder, str | Path):
            raise InputError(
                f"{cls.__name__}.from_pretrained takes a known name ({known}) or a folder,"
                f" got {type(name_or_folder).__name__}: pass a string or a path"
            )
        folder = Path(name_or_folder)
        if name_or_folder and folder.is_dir():  # Path("") would be the current folder
            return folder
        hint = f"known names: {known}"
        if isinstance(name_or_folder, str) and _HUB_ID.fullmatch(name_or_folder):
            hint += "; Hub repositories cannot be loaded yet, so download it and give the folder"
        raise InputError(
            f"{cls.__name__}.from_pretrained takes a known name or a folder, got {str(name_or_folder)!r},"
            f" which is neither ({hint})"
        )


def _public_class(name: str, part: Any) -> tuple[str, str]:
    """What `model_index.json` says of a component: (library, class)."""
    kind = type(part)
    library = kind.__module__.split(".")[0]
    if library in ("diffusers", "transformers"):
        return library, kind.__name__
    if getattr(studio, kind.__name__, None) is not kind:
        raise InputError(
            f"a saved component must be a public class of studio, but {name!r} is {kind.__module__}.{kind.__name__}:"
            " add the class to studio/__init__.py"
        )
    return "studio", kind.__name__


def _check_index(cls: type[StudioPipeline], folder: Path) -> None:
    """Refuses a folder whose `model_index.json` does not describe `cls` to the letter."""
    file = folder / "model_index.json"
    if not file.is_file():
        raise MissingWeightsError(
            f"a saved pipeline has a model_index.json, and {folder} has none: give a folder that"
            f" {cls.__name__}.save_pretrained wrote"
        )
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{file} must be JSON, but cannot be read ({error}): save the pipeline again") from error
    if not isinstance(index, dict) or index.get("_class_name") != cls.__name__:
        found = index.get("_class_name") if isinstance(index, dict) else type(index).__name__
        raise InputError(f"{folder} must hold a {cls.__name__}, but holds {found!r}: load it with that class")

    parts, settings = cls._get_signature_keys(cls)
    entries = {key: value for key, value in index.items() if not key.startswith("_")}
    missing = [name for name in parts if name not in entries and name not in cls._optional_components]
    unknown = [key for key in entries if key not in parts and key not in settings]
    if missing or unknown:
        raise WeightsError(
            f"{file} must name exactly what {cls.__name__} is made of: missing {missing}, unknown {unknown};"
            " save the pipeline again with this version"
        )
    for name in parts:
        _check_part(folder, name, entries.get(name), optional=name in cls._optional_components)


def _check_part(folder: Path, name: str, entry: Any, *, optional: bool) -> None:
    """Refuses a component from a foreign library, or one whose folder is missing."""
    if optional and entry in (None, [None, None]):
        return
    if not (isinstance(entry, list) and len(entry) == 2 and entry[0] in _LIBRARIES):
        raise WeightsError(
            f"component {name!r} in {folder / 'model_index.json'} must be [library, class] with one of the libraries"
            f" {', '.join(_LIBRARIES)}, got {entry!r}: save the pipeline again with this version"
        )
    if not (folder / name).is_dir():
        raise MissingWeightsError(
            f"{folder} must have a folder {name!r} for the {entry[1]}, and has none: copy the whole saved pipeline"
        )
