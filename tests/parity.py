"""Networks held against the outputs of their authors' own: random tensors by name, and where the outputs lie.

The folder is named by STUDIO_CHECKPOINTS; beside the checkout `shared/checkpoints` serves. Without it these tests are
skipped. Every network's `<name>.json` lists the tensors of the published file, `<name>.safetensors` what came out.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

FOLDER = Path(os.environ.get("STUDIO_CHECKPOINTS") or Path(__file__).resolve().parents[2] / "shared" / "checkpoints")
needs_references = pytest.mark.skipif(not FOLDER.is_dir(), reason="no outputs of others: set STUDIO_CHECKPOINTS")


def layout(name):
    """The published tensors: name -> shape."""
    tensors = json.loads((FOLDER / f"{name}.json").read_text())["tensors"]
    return {key: tuple(shape) for key, (shape, _) in tensors.items()}


def outputs(name):
    """What the authors' network gave."""
    return load_file(FOLDER / f"{name}.safetensors")


def filled(name, shape, dtype=torch.float32):
    """A tensor of random numbers that depend on its name alone."""
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)
    x = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        x = 1 + 0.1 * np.abs(x)
    elif len(shape) > 1:
        x = x / np.sqrt(np.prod(shape[1:]), dtype=np.float32)
    elif len(shape) == 1 and name.endswith("weight"):
        x = 1 + 0.1 * x
    else:
        x = 0.1 * x
    return torch.from_numpy(np.asarray(x, np.float32).reshape(shape))


def fill(net, prefix=""):
    """Random numbers into every tensor of a network, by their names."""
    for name, tensor in net.state_dict().items():
        tensor.copy_(filled(prefix + name, tuple(tensor.shape), tensor.dtype))
    return net.eval()


def share_of_spread(ours, theirs):
    """The largest difference as a share of the reference's standard deviation."""
    return float((ours - theirs).abs().max() / theirs.std())


def probes(picture):
    """What is kept of a restored face (1,3,512,512)."""
    one = picture[0]
    return {
        "grid": one[:, ::32, ::32],
        "centre": one[:, 240:272, 240:272],
        "mean_std": torch.stack([one.mean(), one.std()]),
    }


def check(name, found, wanted, limit=1e-3):
    """Print and hold the largest difference of all probes to the reference, as a share of the grid's spread."""
    spread = wanted["grid"].std()
    worst = max(float((found[key] - wanted[key]).abs().max() / spread) for key in found)
    print(f"{name}: largest difference {worst:.1e} of the reference's standard deviation")
    assert worst <= limit
