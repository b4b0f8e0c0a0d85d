"""Choosing where networks run, and how many of the processor's cores they take.

Torch is imported where it is needed: `wait_quietly` has to come before it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from studio.errors import InputError

if TYPE_CHECKING:
    import torch


def wait_quietly() -> bool:
    """Let torch's threads sleep where they wait for each other, instead of spinning.

    A thread that spins takes its core from whatever else runs. The `studio` command and the app call it; a library
    should not, so a script that wants it does it itself, before it imports torch. Where OMP_WAIT_POLICY or
    GOMP_SPINCOUNT is set, it changes nothing.

    Returns:
        Whether it is in time: torch reads both when it is imported.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0")
    return "torch" not in sys.modules


def pick_device(device: str) -> str:
    """Resolve "auto" to "cuda" where there is one, else "cpu"; "mps" (Apple's) is taken only when asked for.

    Raises:
        InputError: none of "auto", "cpu", "cuda" and "mps", or one that is not here.
    """
    import torch

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
    import torch

    if workers > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))


def fast_bfloat16(device: str) -> bool:
    """Whether bfloat16 is worth it there: CUDA cards that have it, and CPUs with instructions for it.

    On other CPUs it is emulated, and slower than float32.
    """
    import torch

    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # newer versions of torch tell
    return device == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def quick(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Within it, float32 networks on a CPU that has bfloat16 in hardware use that: twice as fast, to three digits."""
    import torch

    fits = dtype == torch.float32 and device.type == "cpu" and fast_bfloat16("cpu")
    return torch.autocast("cpu", torch.bfloat16, enabled=fits)
