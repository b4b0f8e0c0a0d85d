"""Training state on disk: safetensors in parts under 15 MB and one JSON, swapped in as a whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from studio.errors import WeightsError

PART_BYTES = 15_000_000


def save(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write a checkpoint beside the last one, then put it in its place.

    Args:
        folder: the checkpoint folder; an older one in it is replaced only when the new one is complete.
        tensors: any number of named tensors, none above 15 MB.
        state: JSON-able numbers.
    """
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for number, part in enumerate(split(tensors)):
        save_file(part, fresh / f"part-{number:03d}.safetensors")
    (fresh / "state.json").write_text(json.dumps(state, indent=1))
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def split(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Group tensors in order into parts below `PART_BYTES`."""
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        nbytes = tensor.numel() * tensor.element_size()
        if parts[-1] and size + nbytes > PART_BYTES:
            parts.append({})
            size = 0
        parts[-1][name] = tensor.detach().cpu().contiguous().clone()
        size += nbytes
    return parts


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save` wrote.

    Raises:
        WeightsError: no complete checkpoint there.
    """
    if not (folder / "state.json").is_file():
        old = folder.with_name(folder.name + ".old")
        if not (old / "state.json").is_file():
            raise WeightsError(f"a checkpoint must hold state.json, {folder} does not: train without --resume first")
        folder = old
    tensors: dict[str, Tensor] = {}
    for part in sorted(folder.glob("part-*.safetensors")):
        tensors.update(load_file(part))
    return tensors, json.loads((folder / "state.json").read_text())


def moments(optimizer: torch.optim.Optimizer, prefix: str = "optimizer") -> dict[str, Tensor]:
    """An optimizer's state as tensors whose names begin with `prefix`, for `save`."""
    return {
        f"{prefix}.{number}.{name}": torch.as_tensor(value)
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def load_moments(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str = "optimizer") -> None:
    """Put what `moments` named back into an optimizer of the same parameters."""
    found: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(f"{prefix}."):
            _, number, key = name.split(".", 2)
            found.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": found, "param_groups": optimizer.state_dict()["param_groups"]})
    # The fused step pairs numbers by their place in memory: moments are laid out as their parameters are.
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)
