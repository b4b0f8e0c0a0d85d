"""Choosing where networks run."""

from __future__ import annotations

import torch

from studio.errors import InputError


def pick_device(device: str) -> str:
    """Resolve "auto" to "cuda" where there is one, else "cpu"; "mps" (Apple's) is taken only when asked for.

    Raises:
        InputError: none of "auto", "cpu", "cuda" and "mps", or one that is not here.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device):
        here = ", ".join(name for name, found in there.items() if found)
        raise InputError(
            f"device must be auto, cpu, cuda or mps and be there, got {device!r}, here is {here}: use auto"
        )
    return device


def share_threads(workers: int) -> None:
    """Give each of so many workers its part of the processor, so that their threads do not crowd each other."""
    if workers > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))


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
