"""Where a number comes from: versions, weights, machine. No host names, user names or paths."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from studio import weights

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "diffusers", "numpy", "pillow")
FINDER = ("finder", "detector_full_range", "detector_back", "mesh")  # what finds faces


def provenance(names: Iterable[str] = (), folders: Mapping[str, Path] = MappingProxyType({})) -> dict[str, Any]:
    """What belongs beside every measured number.

    Args:
        names: the networks that took part, as `studio.weights` calls them.
        folders: those of them that were not the store's own -> the folder with the weights that were measured.

    Returns:
        `date` (UTC, ISO 8601), `commit` (None outside a checkout; "+" after it: with changes), `python`, `packages`,
        `machine` (system, cpu, cpus, threads, gpu) and `weights` (name -> sha256 of the safetensors).
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": cpu_model(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "weights": {
            name: weights.sha256_of(folders[name] / weights.TENSORS) if name in folders else weights.sha256(name)
            for name in names
        },
    }


def commit() -> str | None:
    """The commit of the checkout this runs from, None when there is none."""
    if not (ROOT / ".git").exists():
        return None
    head = git("rev-parse", "--short=12", "HEAD")
    return head and head + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def git(*arguments: str) -> str | None:
    """What git prints, None when it fails or is not installed."""
    try:
        return subprocess.check_output(
            ["git", "-C", str(ROOT), *arguments], text=True, stderr=subprocess.DEVNULL
        ).strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def cpu_model() -> str:
    """The processor's name as its maker prints it, where the system tells."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
