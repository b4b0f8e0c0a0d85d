"""Where the head is in cached acting faces: skin and hair as the restorer reads them, labels for `DepthNet`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from studio import weights
from studio.device import quick
from studio.networks.generator import Generator
from studio.networks.head_parts import PARTS, HeadParts
from studio.networks.restorer import Restorer
from studio.training.turned import write

BATCH = 8


def head_path(shard: Path) -> Path:
    """Where the labels of a shard of acting faces lie."""
    return shard.with_name(shard.name.replace("acted-", "heads-"))


@torch.inference_mode()
def head_of(restorer: Restorer, parts: HeadParts, faces: Tensor) -> Tensor:
    """Probability of skin or hair (N,1,32,32) in aligned faces (N,3,256,256) RGB in [0,1]."""
    with quick(restorer.device, restorer.dtype):
        features = restorer(faces.contiguous(memory_format=torch.channels_last)).features
    return 1 - parts(features.float())[:, [PARTS.index("rest")]]


def make_heads(folder: Path, report: Callable[[str], None] = print) -> None:
    """Label the shards of a cache of acting faces that have no labels yet."""
    restorer = Restorer.from_pretrained(weights.path("restore")).to(memory_format=torch.channels_last)
    restorer.prepare(Generator.from_pretrained(weights.path("generator")))
    parts, start = HeadParts.from_pretrained(weights.path("parts")), time.monotonic()
    for path in sorted(folder.glob("acted-*.safetensors")):
        if head_path(path).exists():
            continue
        faces = load_file(path)["faces"]
        cells = [head_of(restorer, parts, some.float() / 255) for some in faces.flatten(0, 1).split(BATCH)]
        write(head_path(path), [{"head": torch.cat(cells).half().unflatten(0, faces.shape[:2])}])
        report(f"{path.name}: {time.monotonic() - start:.0f} s")


def load_heads(folder: Path) -> Tensor:
    """(P,V,1,32,32) float16, the labels of all shards."""
    return torch.cat([load_file(path)["head"][0] for path in sorted(folder.glob("heads-*.safetensors"))])
