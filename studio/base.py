"""`StudioPipeline`: what all pipelines share, which is strict loading and a saved format that survives moved files.

Loading takes a known name, a folder, a repository on the Hub, or a single published file; saving writes a folder with a
model card, and puts it onto the Hub if asked.

Saved format (a test holds it): `model_index.json` records every network of this project as `["studio", "Restorer"]`,
never by the file it is defined in, so that a folder saved today loads after the code has moved.
"""

from __future__ import annotations

import importlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

import studio
from studio import card, checks, hub, weights
from studio.errors import InputError, MissingWeightsError, WeightsError
from studio.networks.loading import strictly

# Where a saved component may come from. Anything else would mean to import a module because a folder names it.
_LIBRARIES = ("studio", "diffusers", "transformers")
INDEX = "model_index.json"
WEIGHTS = ("diffusion_pytorch_model", "model")  # stems of what diffusers and transformers write


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
    # Networks of which more than `forward` is called: hooks would not see that, so they stay where they are used.
    _exclude_from_cpu_offload: ClassVar[list[str]] = ["detector", "full_range", "back", "mesh", "identity"]

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

    @classmethod
    def _around(cls, network: torch.nn.Module) -> dict[str, Any]:
        """Assembles a pipeline around one network that was published on its own, as `_components` does.

        Raises:
            InputError: this pipeline takes none, or not this one.
        """
        raise InputError(
            f"{cls.__name__} must be given a known name or a saved pipeline, got a single {type(network).__name__}:"
            " only RestorePipeline takes single networks"
        )

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the pipeline; a subclass names its arguments."""

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        licence: str = "",
        **components: Any,
    ) -> Self:
        """Loads the pipeline, strictly: every tensor of every network must be there and fit.

        Args:
            name_or_path: one of `known_names`; a folder written by `save_pretrained`; `owner/name` of such a folder on
                the Hub; or a single published file (.pth, .pt, .ckpt, .bin, .safetensors), here, in a folder, or on the
                Hub as `owner/name/file.pth`. A known name wins over a folder of that name (write "./restore" for the
                folder).
            dtype: a floating type for all networks; None is float32, whatever the files hold.
            torch_dtype: the older name of `dtype`.
            device: where the networks go; None is the CPU.
            revision: branch, tag or commit on the Hub.
            token: of the Hub; None takes the one that is stored.
            cache_dir: for what comes from the Hub, instead of its own cache.
            local_files_only: fetch nothing from the Hub.
            licence: "commercial" refuses weights that are not known to allow commercial use, "any" takes all; "" does
                as the variable STUDIO_LICENCE says.
            components: of `__init__`, by name, in place of the loaded ones, which are then not read: `identity=mine`.
                They are moved to `device`, and keep their type.

        Raises:
            InputError: none of these, a folder of another pipeline, a component of another class, or a licence that the
                filter leaves out.
            TypeError: a keyword that is neither an argument nor a component.
            MissingWeightsError: nothing is saved there, a part is missing, or it could not be fetched.
            WeightsError: a part is damaged, or is not what this pipeline needs.
        """
        dtype = checks.one_dtype(dtype, torch_dtype) or torch.float32
        checks.parts(cls, components)
        with weights.only(licence), weights.without(components):
            if name_or_path in cls.known_names:
                return cls._assembled(cls._components(str(name_or_path)), components, dtype).to(device or "cpu")
            options = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
            path = cls._local(name_or_path, revision=revision, **options)
            if not (path / INDEX).is_file():
                parts = cls._around(weights.network_in(path))
                return cls._assembled(parts, components, dtype).to(device or "cpu")
            _check_index(cls, path, components)
            weights.check_unknown(path)
            foreign = _foreign_networks(path, components)
            for part in foreign.values():
                # diffusers' own `to` warns of modules to be kept in float32 even where there are none.
                torch.nn.Module.to(part, dtype=dtype)
            given = {**foreign, **components}
            return super().from_pretrained(str(path), dtype=dtype, use_safetensors=True, **given).to(device or "cpu")

    @classmethod
    def _assembled(cls, parts: dict[str, Any], given: dict[str, Any], dtype: torch.dtype) -> Self:
        """A pipeline of networks that are loaded already, in one type, and of those that the caller gave."""
        for part in (part for name, part in parts.items() if name not in given and isinstance(part, torch.nn.Module)):
            # diffusers' own `to` warns of modules to be kept in float32 even where there are none.
            torch.nn.Module.to(part, dtype=dtype)
        return cls(**{**parts, **given})

    @classmethod
    def from_pipe(
        cls,
        pipeline: DiffusionPipeline,
        *,
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
        **components: Any,
    ) -> Self:
        """A pipeline of the components of another one, which are shared, not copied.

        Args:
            pipeline: of any kind that has them.
            dtype: a floating type for all of them, in both pipelines; None leaves them as they are.
            torch_dtype: the older name of `dtype`.
            components: by name, in place of the other pipeline's.

        Raises:
            InputError: a component is not there, or of another class.
            TypeError: a keyword that is neither an argument nor a component.
        """
        dtype = checks.one_dtype(dtype, torch_dtype)
        wanted = [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
        shared = {name: part for name, part in pipeline.components.items() if name in wanted}
        checks.parts(cls, {**shared, **components})
        if missing := [name for name in wanted if name not in {*shared, *components}]:
            raise InputError(
                f"{cls.__name__} must be given {', '.join(missing)}, a {type(pipeline).__name__} has none: pass"
                f" {missing[0]}=..."
            )
        new = cls(**{**shared, **components})
        return new if dtype is None else new.to(dtype)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Moves and casts all networks as diffusers does: `to(device)`, `to(dtype)`, `to(device, dtype)`, or keywords.

        diffusers' own warns of modules to be kept in float32, of which there are none, and of float16 on a CPU, where
        it runs, or a call is refused.
        """
        given = [one for one in (*args, kwargs.pop("dtype", None)) if isinstance(one, torch.dtype)]
        for part in self.components.values() if given else ():
            if isinstance(part, torch.nn.Module):
                torch.nn.Module.to(part, dtype=given[-1])
        places = [one for one in args if not isinstance(one, torch.dtype)]
        return super().to(*places, **{**kwargs, "silence_dtype_warnings": True})

    def save_pretrained(self, folder: str | Path, *, max_shard_size: int | str | None = None) -> None:
        """Writes every network (safetensors) and `model_index.json`; `from_pretrained(folder)` gives the same back.

        Args:
            folder: made if needed; files of a pipeline saved there before are overwritten, and what is left of its
                weights is taken away.
            max_shard_size: largest weight file, in bytes or as "15MB"; None leaves it to diffusers.

        Raises:
            InputError: `folder` is a file, or a component is one that could not be loaded again.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"a pipeline is saved to a folder, but {folder} is a file: give another name")
        parts = {name: part for name, part in self.components.items() if part is not None}
        self.register_to_config(**{name: _public_class(name, part) for name, part in parts.items()})
        for name in parts:
            _clear(folder / name)
        super().save_pretrained(str(folder), max_shard_size=max_shard_size)
        (folder / "README.md").write_text(card.text(self), encoding="utf-8")

    def push_to_hub(
        self, repository: str, *, token: str | None = None, private: bool = False, message: str = "Upload pipeline"
    ) -> str:
        """Puts the saved pipeline, its model card included, onto the Hub; `from_pretrained(repository)` gives it back.

        Args:
            repository: owner/name; made if needed.
            token: None takes the one that is stored.
            private: of a repository that is made.
            message: of the commit.

        Returns:
            The address of the commit.

        Raises:
            InputError: no such name.
            MissingWeightsError: no permission, or no connection.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return hub.push(Path(folder), repository, token=token, private=private, message=message)

    def to_json_string(self) -> str:
        """The text of `model_index.json`, without the place this pipeline was loaded from: that is a private path."""
        index = json.loads(super().to_json_string())
        index.pop("_name_or_path", None)
        return json.dumps(index, indent=2, sort_keys=True) + "\n"

    @classmethod
    def _local(cls, name_or_path: str | Path, **options: Any) -> Path:
        """The folder or file meant, fetched from the Hub if it lies there; or the reason why there is none."""
        known = ", ".join(cls.known_names) or "none"
        if not isinstance(name_or_path, str | Path):
            raise InputError(
                f"{cls.__name__}.from_pretrained takes a known name ({known}), a path or owner/name on the Hub,"
                f" got {type(name_or_path).__name__}: pass a string or a path"
            )
        try:
            return weights.find(name_or_path, **options)
        except InputError as error:
            raise InputError(f"{error} (known names of {cls.__name__}: {known})") from error


def saved_class(name_or_path: str | Path) -> str:
    """The class of the pipeline that a folder, here or on the Hub, was saved from; empty where it is none."""
    here = Path(name_or_path).is_dir()
    if not here and not hub.ID.fullmatch(str(name_or_path)):
        return ""
    file = weights.find(name_or_path) / INDEX
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""  # from_pretrained says what is wrong with it
    return str(index.get("_class_name", "")) if isinstance(index, dict) else ""


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


def _clear(folder: Path) -> None:
    """Take the weights of an earlier save away: in one file or several, they would win over the new ones."""
    for stem in WEIGHTS:
        for file in (*folder.glob(f"{stem}*.safetensors"), *folder.glob(f"{stem}*.safetensors.index.json")):
            file.unlink()


def _check_index(cls: type[StudioPipeline], folder: Path, given: Mapping[str, Any]) -> None:
    """Refuses a folder whose `model_index.json` does not describe `cls` to the letter."""
    file = folder / INDEX
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
    for name in (part for part in parts if part not in given):
        _check_part(folder, name, entries.get(name), optional=name in cls._optional_components)


def _foreign_networks(folder: Path, given: Mapping[str, Any]) -> dict[str, torch.nn.Module]:
    """The networks of diffusers and transformers in a checked folder, which these libraries would load leniently."""
    found = {}
    for name, entry in json.loads((folder / INDEX).read_text(encoding="utf-8")).items():
        if name in given or not (isinstance(entry, list) and entry[0] in _LIBRARIES[1:]):
            continue
        kind = getattr(importlib.import_module(entry[0]), entry[1], None)
        if not isinstance(kind, type):
            raise WeightsError(
                f"component {name!r} in {folder / INDEX} must be a class of {entry[0]}, got {entry[1]!r}: install the"
                " version that it was saved with"
            )
        if issubclass(kind, torch.nn.Module):
            found[name] = strictly(kind, folder / name)
    return found


def _check_part(folder: Path, name: str, entry: Any, *, optional: bool) -> None:
    """Refuses a component from a foreign library, or one whose folder is missing."""
    if optional and entry in (None, [None, None]):
        return
    if not (isinstance(entry, list) and len(entry) == 2 and entry[0] in _LIBRARIES):
        raise WeightsError(
            f"component {name!r} in {folder / INDEX} must be [library, class] with one of the libraries"
            f" {', '.join(_LIBRARIES)}, got {entry!r}: save the pipeline again with this version"
        )
    if not (folder / name).is_dir():
        raise MissingWeightsError(
            f"{folder} must have a folder {name!r} for the {entry[1]}, and has none: copy the whole saved pipeline"
        )
