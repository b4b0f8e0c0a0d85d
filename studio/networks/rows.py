"""Weights in a byte each: every row of a matrix or filter of a convolution is int8, with a scale of its own.

Half the size of half precision, at an error of about a hundredth of a weight's spread. A file that is written so says
`rows = int8` in its metadata and holds, beside each such tensor, its scales as `NAME.scale`; whoever loads it gets
floats (`studio.networks.loading`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

METADATA = {"format": "pt", "rows": "int8"}
SUFFIX, LARGEST, LEAST = ".scale", 127, 4096  # smaller tensors stay in half precision, and all that are no weights


def is_in_rows(path: Path) -> bool:
    """Whether a safetensors file was written by `save_rows`."""
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get("rows") == METADATA["rows"]


def save_rows(tensors: dict[str, Tensor], path: Path, keep: tuple[str, ...] = ()) -> None:
    """Write tensors: weights of `LEAST` numbers or more as int8 in rows, the others in half precision.

    Args:
        tensors: by name.
        path: of the file.
        keep: beginnings of names that stay in half precision, too.
    """
    written: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.endswith("weight") and value.ndim > 1 and value.numel() >= LEAST and not name.startswith(keep):
            rows = value.float().flatten(1)
            scale = (rows.abs().amax(1) / LARGEST).clamp(min=torch.finfo(torch.float16).tiny).half()
            whole = (rows / scale.float()[:, None]).round().clamp(-LARGEST, LARGEST).to(torch.int8)
            written |= {name: whole.view(value.shape), name + SUFFIX: scale}
        else:
            written[name] = value.half() if value.is_floating_point() else value
    save_file({name: value.contiguous() for name, value in written.items()}, path, METADATA)


def load_rows(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of `save_rows`, float32."""
    held = load_file(path)
    scales = {name.removesuffix(SUFFIX): held.pop(name) for name in list(held) if name.endswith(SUFFIX)}
    for name, scale in scales.items():
        value = held[name]
        held[name] = value.float() * scale.float().view(-1, *[1] * (value.ndim - 1))
    return {name: value.float() if value.is_floating_point() else value for name, value in held.items()}
