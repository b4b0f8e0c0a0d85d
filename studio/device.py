"""Choosing where networks run."""

from __future__ import annotations

import torch

from studio.errors import InputError


def pick_device(device: str) -> str:
    """Resolve "auto" to "cuda" where there is one, else "cpu".

    Raises:
        InputError: neither "auto", "cpu" nor "cuda", or no CUDA device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"device must be auto, cpu or cuda (and be there), got {device!r}: use auto")
    return device
