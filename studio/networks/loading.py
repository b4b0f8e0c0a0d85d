"""The base class of every network here: diffusers' saving, and loading that refuses what does not fit.

`ModelMixin.from_pretrained` leaves a missing tensor uninitialised, skips an extra one, ignores a misspelt keyword
and falls back to pickles. Each of these is a picture that is quietly wrong, so `StrictModel` raises instead.

It also swaps functions of torch for the whole process while it builds a network (`nn.Module.register_parameter`,
`nn.init`, the default dtype). Two threads that load at once, two visitors of the app say, can put them back in the
wrong order, and from then on every new network of the process is on the meta device. So here one thread loads at a
time, with real tensors and in float32.
"""

from __future__ import annotations

import inspect
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin

from studio.errors import MissingWeightsError, WeightsError
from studio.networks.rows import is_in_rows, load_rows

CONFIG_NAME = "config.json"
WEIGHTS_STEM = "diffusion_pytorch_model"
LOADING = threading.RLock()  # held while diffusers has functions of torch swapped
SHOWN = 3  # names quoted in an error; a network of another shape would print hundreds


class StrictModel(ModelMixin, ConfigMixin):
    """A network with a config that is saved by `save_pretrained` and loaded only when every tensor fits."""

    if TYPE_CHECKING:
        config: Any  # a FrozenDict, which also gives its entries as attributes; diffusers declares a plain dict

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
        subfolder: str | None = None,
        variant: str | None = None,
        low_cpu_mem_usage: bool = False,
        device_map: Any = None,
        max_memory: dict[int | str, int | str] | None = None,
        offload_folder: str | Path | None = None,
        offload_state_dict: bool | None = None,
        use_safetensors: bool | None = None,
        use_flashpack: bool = False,
        disable_mmap: bool = False,
    ) -> Self:
        """Load from a folder that `save_pretrained` wrote.

        The keywords after `variant` are those that a diffusers pipeline passes to its components.

        Args:
            pretrained_model_name_or_path: folder with `config.json` and safetensors. Never a Hub id: a pipeline
                downloads first.
            dtype: floating point type to load as; float32 when not given, also for files stored in half precision.
            torch_dtype: older name of `dtype`, the one that pipelines use.
            subfolder: folder inside the folder.
            variant: "fp16" reads `diffusion_pytorch_model.fp16.safetensors`.
            low_cpu_mem_usage: without effect: a network is built with real tensors unless there is a `device_map`.
            device_map: as in diffusers.
            max_memory: as in diffusers.
            offload_folder: as in diffusers.
            offload_state_dict: as in diffusers.
            use_safetensors: True or None; nothing else is read.
            use_flashpack: False; nothing else is read.
            disable_mmap: read the file instead of mapping it.

        Returns:
            The network in eval mode.

        Raises:
            MissingWeightsError: the folder or a file in it is not there.
            WeightsError: damaged file, unknown config entry, or a tensor that is missing, extra or of another shape.
        """
        if use_safetensors is False or use_flashpack:
            raise WeightsError(f"{cls.__name__} reads safetensors only: leave use_safetensors and use_flashpack alone")
        folder = Path(pretrained_model_name_or_path) / (subfolder or "")
        check_files(cls, folder, variant)
        file = folder / f"{WEIGHTS_STEM}.safetensors"
        try:
            if variant is None and file.is_file() and is_in_rows(file):
                model = from_rows(cls, folder, file)
                return torch.nn.Module.to(model, dtype=dtype or torch_dtype or torch.float32)
            with LOADING:
                loaded: Any = super().from_pretrained(
                    folder,
                    dtype=torch.float32,
                    variant=variant,
                    low_cpu_mem_usage=device_map is not None,  # diffusers places parts on devices only so
                    device_map=device_map,
                    max_memory=max_memory,
                    offload_folder=offload_folder,
                    offload_state_dict=offload_state_dict,
                    disable_mmap=disable_mmap,
                    use_safetensors=True,
                    local_files_only=True,
                    ignore_mismatched_sizes=True,  # so that they are listed, and refused below with the others
                    output_loading_info=True,
                )
                model, info = loaded
        except WeightsError:
            raise
        except Exception as error:
            # diffusers and safetensors raise half a dozen types here, some with texts of many lines.
            reason = str(error).strip().split("\n")[0]
            raise WeightsError(f"{folder} could not be loaded as {cls.__name__} ({reason}): fetch it again") from error
        check_tensors(cls, folder, info)
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.clone()  # in a file they lie anywhere, and sums of unaligned ones round otherwise
        forget_path(model)
        # diffusers' own `to` warns of modules to be kept in float32 even where there are none.
        return torch.nn.Module.to(model, dtype=dtype or torch_dtype or torch.float32)


def from_rows(cls: type[StrictModel], folder: Path, file: Path) -> Any:
    """A network whose weights are stored as `studio.networks.rows` says, in eval mode and float32."""
    tensors = load_rows(file)
    with LOADING:
        model: Any = cls.from_config(json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8")))
    wanted = model.state_dict()
    other = [(name, tensors[name].shape, wanted[name].shape) for name in tensors.keys() & wanted.keys()]
    check_tensors(
        cls,
        folder,
        {
            "missing_keys": sorted(wanted.keys() - tensors.keys()),
            "unexpected_keys": sorted(tensors.keys() - wanted.keys()),
            "mismatched_keys": [one for one in other if one[1] != one[2]],
            "error_msgs": [],
        },
    )
    model.load_state_dict(tensors)
    return model.eval()


def strictly(cls: type[Any], folder: Path) -> Any:
    """A network of diffusers or transformers, float32, in eval mode: every tensor is there and fits, and none is extra.

    Args:
        cls: its class.
        folder: with its config and safetensors.

    Raises:
        MissingWeightsError: nothing is saved there.
        WeightsError: damaged, or a tensor that is missing, extra or of another shape.
    """
    if not (folder / CONFIG_NAME).is_file():
        raise MissingWeightsError(f"{folder} must hold {CONFIG_NAME} for {cls.__name__}: fetch it again")
    options = {"use_safetensors": True, "local_files_only": True, "ignore_mismatched_sizes": True}
    if issubclass(cls, ModelMixin):
        options["low_cpu_mem_usage"] = False  # of transformers, the name for it is no argument
    try:
        with LOADING:
            model, info = cls.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, **options)
    except Exception as error:  # as above: half a dozen types
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(f"{folder} could not be loaded as {cls.__name__} ({reason}): fetch it again") from error
    check_tensors(cls, folder, {"error_msgs": [], **info})
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()  # as above
    if isinstance(model, ConfigMixin):
        forget_path(model)
    return model.eval()


def forget_path(model: ConfigMixin) -> None:
    """Diffusers notes where a network came from; saved again, that would be a path of this machine."""
    kept = {key: value for key, value in model._internal_dict.items() if key != "_name_or_path"}
    model._internal_dict = type(model._internal_dict)(kept)


def check_files(cls: type[StrictModel], folder: Path, variant: str | None) -> None:
    """Raise unless `folder` holds a config that `cls` understands, and weights."""
    if not folder.is_dir():
        raise MissingWeightsError(f"{cls.__name__} loads from a folder, and {folder} is none: check the path")
    name = f"{WEIGHTS_STEM}.{variant}.safetensors" if variant else f"{WEIGHTS_STEM}.safetensors"
    index = f"{WEIGHTS_STEM}.safetensors.index{'.' + variant if variant else ''}.json"
    wanted = [CONFIG_NAME] if (folder / index).is_file() else [CONFIG_NAME, name]
    missing = [file for file in wanted if not (folder / file).is_file()]
    if missing:
        raise MissingWeightsError(
            f"{folder} must hold {' and '.join(missing)} for {cls.__name__}: save it there or fetch it again"
        )
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        entries = {key for key in config if not key.startswith("_")}
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{folder / CONFIG_NAME} must be a JSON object ({error}): fetch it again") from error
    unknown = sorted(entries - set(inspect.signature(cls.__init__).parameters))
    if unknown:
        raise WeightsError(
            f"{folder / CONFIG_NAME} holds entries that {cls.__name__} does not know ({', '.join(unknown)}): "
            "it belongs to another network or a newer version"
        )


def check_tensors(cls: type[Any], folder: Path, info: dict[str, Any]) -> None:
    """Raise when diffusers' loading info lists a tensor that is missing, extra or of another shape."""
    mismatched = [f"{name} is {tuple(found)}, not {tuple(wanted)}" for name, found, wanted in info["mismatched_keys"]]
    problems = {
        "missing": sorted(info["missing_keys"]),
        "unexpected": sorted(info["unexpected_keys"]),
        "of another shape": sorted(mismatched),
        "unreadable": [str(message).replace("\n", " ") for message in info["error_msgs"]],
    }
    found = [f"{len(names)} {kind} ({quote(names)})" for kind, names in problems.items() if names]
    if found:
        raise WeightsError(
            f"every tensor in {folder} must fit {cls.__name__}, but there are {', '.join(found)}: use its own weights"
        )


def quote(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
