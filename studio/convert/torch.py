"""Checkpoints as PyTorch users publish them (`.pth`, `.pt`, `.ckpt`, `.bin`, `.safetensors`) to networks.

Pickles are read with `torch.load(weights_only=True)` alone, which makes tensors and plain containers and runs nothing.
What is published is a table of tensors, often inside another one ("params_ema") and with a prefix that data-parallel
training left ("module."). A family of networks is known by a tensor that no other one has; every tensor must then fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from studio.errors import WeightsError
from studio.networks import liveportrait
from studio.networks.codeformer import CodeFormer
from studio.networks.gfpgan import GFPGAN
from studio.networks.loading import StrictModel, quote
from studio.networks.restoreformer import RestoreFormer
from studio.networks.rrdb import RRDBNet

SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
NESTED = (
    "params_ema",
    "params",
    "state_dict",
    "model_state_dict",
    "model",
)  # the first that is there holds the tensors
PREFIX = "module."

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Family:
    """Networks of one architecture.

    Attributes:
        mark: name of a tensor that only they have.
        network: their class, or None where the table holds several networks.
        change: the published tensors to those of the class.
        options: arguments of the class.
    """

    mark: str
    network: type[StrictModel]
    change: Callable[[Tensors], Tensors] = dict
    options: Mapping[str, Any] = field(default_factory=dict)


def read(file: Path) -> dict[str, Any]:
    """The table of tensors in a file, out of the one around it and without prefix.

    Raises:
        WeightsError: not such a file, damaged, or one that holds more than tensors and plain containers.
    """
    try:
        if file.suffix == ".safetensors":
            table: Any = load_file(file)
        else:
            table = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, EOFError, ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        raise WeightsError(f"{file} must be a file of tensors ({reason(error)}): fetch it again") from error
    except Exception as error:  # pickle's own errors, which must not be imported here
        raise WeightsError(
            f"{file} must hold tensors and nothing that runs ({reason(error)}): use another file, or its safetensors"
        ) from error
    return unwrapped(table, file)


def reason(error: Exception) -> str:
    """The first line of an error that says anything, short."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = re.search(r"Unsupported (?:global|class|operand)[^.\n]*(?:\.[\w.]+)?", str(error))
    return (found.group() if found else lines[0] if lines else type(error).__name__)[:160]


def unwrapped(table: Any, file: Path) -> dict[str, Any]:
    """The innermost table that holds tensors, or several tables of them; names without `PREFIX`."""
    while isinstance(table, Mapping) and not any(isinstance(value, Tensor) for value in table.values()):
        inner = next((key for key in NESTED if isinstance(table.get(key), Mapping)), None)
        if inner is None:
            break
        table = table[inner]
    if not isinstance(table, Mapping) or not table:
        raise WeightsError(f"{file} must hold a table of tensors, it holds {type(table).__name__}: use another file")
    if all(isinstance(value, Mapping) for value in table.values()):  # several networks
        return {key: unwrapped(value, file) for key, value in table.items()}
    tensors = {str(key): value for key, value in table.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(
            f"{file} must hold a table of tensors, it holds {quote(sorted(map(str, table)))}: use another"
        )
    return {name.removeprefix(PREFIX): value for name, value in tensors.items()}


def divided(tensors: Tensors) -> Tensors:
    """Spectral normalization (arXiv 1802.05957) divided out: `weight_orig` over its largest singular value."""
    found = {}
    for name, value in tensors.items():
        if name.endswith(("weight_u", "weight_v")):
            continue
        if name.endswith("weight_orig"):
            stem = name.removesuffix("_orig")
            if not {f"{stem}_u", f"{stem}_v"} <= set(tensors):
                raise WeightsError(f"{name} must come with {stem}_u and {stem}_v, and does not: use the published file")
            name, value = stem, value / (tensors[f"{stem}_u"] @ (value.flatten(1) @ tensors[f"{stem}_v"]))
        found[name] = value
    return found


def part(key: str) -> Callable[[dict[str, Any]], Tensors]:
    """One of several tables."""
    return lambda tables: dict(tables[key])


RETARGETING = {"stitching": "retarget_shoulder", "lip": "retarget_mouth", "eye": "retarget_eye"}
FAMILIES = {
    "gfpgan": Family("stylegan_decoder.constant_input.weight", GFPGAN),
    "codeformer": Family("idx_pred_layer.1.weight", CodeFormer),
    "restoreformer": Family("encoder.down.0.block.0.norm1.weight", RestoreFormer),
    "realesrgan": Family("body.0.rdb1.conv1.weight", RRDBNet),
    "liveportrait-appearance": Family("resblocks_3d.3dr0.conv1.weight", liveportrait.LivePortraitAppearance),
    "liveportrait-motion": Family("detector.fc_exp.weight", liveportrait.LivePortraitMotion),
    "liveportrait-warping": Family("dense_motion_network.mask.weight", liveportrait.LivePortraitWarping),
    "liveportrait-generator": Family("G_middle_0.conv_0.bias", liveportrait.LivePortraitGenerator, divided),
    **{
        f"liveportrait-{name}": Family(
            key, liveportrait.LivePortraitRetargeting, part(key), liveportrait.RETARGETING[name]
        )
        for name, key in RETARGETING.items()
    },
}


def family_of(table: Mapping[str, Any], file: Path) -> str:
    """Which family a file is of; of several networks in one file, the first.

    Raises:
        WeightsError: none that is known here.
    """
    for name, family in FAMILIES.items():
        if family.mark in table:
            return name
    raise WeightsError(
        f"{file} must hold a network that is known here ({', '.join(FAMILIES)}), it begins with"
        f" {quote(sorted(table))}: use another file"
    )


def network(file: Path, family: str, **options: Any) -> StrictModel:
    """The network of a published file.

    Args:
        file: see `SUFFIXES`.
        family: a key of `FAMILIES`, see `family_of`.
        options: arguments of its class, in place of the published ones.

    Raises:
        WeightsError: see `read`; or a tensor is missing, extra or of another shape.
    """
    return filled(read(file), FAMILIES[family], file, **options)


def filled(table: Mapping[str, Any], family: Family, file: Path, **options: Any) -> StrictModel:
    """A network with the tensors of a table, all of which must fit."""
    if family.mark not in table:
        raise WeightsError(
            f"{file} must hold {family.mark} to be a {family.network.__name__}, and does not: use its own file"
        )
    tensors = family.change(dict(table))
    with torch.device("meta"):
        net = family.network(**{**family.options, **options})
    check_fit(tensors, net.state_dict(), family.network.__name__, file)
    floats = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    net.load_state_dict({name: value.clone() for name, value in floats.items()}, assign=True)
    return net.eval()


def check_fit(tensors: Tensors, wanted: Tensors, network: str, file: Path) -> None:
    """Refuse tensors of a file that are not exactly those that a network has."""
    other = [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    problems = {
        "missing": sorted(set(wanted) - set(tensors)),
        "unexpected": sorted(set(tensors) - set(wanted)),
        "of another shape": other,
    }
    if found := [f"{len(names)} {kind} ({quote(names)})" for kind, names in problems.items() if names]:
        raise WeightsError(
            f"every tensor in {file} must fit {network}, but there are {', '.join(found)}: use the published file"
        )
