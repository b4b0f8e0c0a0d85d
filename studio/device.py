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


def fast_bfloat16(device: str) -> bool:
    """Whether bfloat16 is worth it there: CUDA cards that have it, and CPUs with instructions for it.

    On other CPUs it is emulated, and slower than float32.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # newer versions of torch tell
    return device == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def quick(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Within it, float32 networks on a CPU that has bfloat16 in hardware use that: twice as fast, to three digits."""
    fits = dtype == torch.float32 and device.type == "cpu" and fast_bfloat16("cpu")
    return torch.autocast("cpu", torch.bfloat16, enabled=fits)
