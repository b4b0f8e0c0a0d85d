"""Training the network that reads an identity from a latent (`LatentReader`) from cached pairs."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from studio.networks.latent_reader import LatentReader

AVERAGE = 0.995
WARM_UP = 100
LOG_STEPS = 250


def train_reader(
    latents: Tensor,
    descriptors: Tensor,
    held: Tensor,
    folder: Path,
    steps: int = 3000,
    batch: int = 256,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.05,
    seed: int = 0,
    config: dict[str, int | float] | None = None,
    report: Callable[[str], None] = print,
) -> LatentReader:
    """Squared error of the identity vector; minutes, so that there are no checkpoints.

    Args:
        latents: (N,D) w of generated faces.
        descriptors: (N,E) their identity vectors.
        held: (N,) bool, pairs that are kept for measuring.
        folder: where log and averaged network go, the latter into `reader`.
        steps: of the whole training; the learning rate falls to zero by then.
        batch: pairs in one step.
        learning_rate: of AdamW, after a warm-up.
        weight_decay: of AdamW.
        seed: of weights, order and dropout.
        config: of `LatentReader`, what differs from its defaults.
        report: receives one line of text at a time.

    Returns:
        The network with the running average of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept, start = (~held).nonzero()[:, 0], time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = LatentReader(dim=latents.shape[1], identity_dim=descriptors.shape[1], **(config or {}))
        net.fit(latents[kept], descriptors[kept])
        average = copy.deepcopy(net).eval().requires_grad_(False)
        optimizer = torch.optim.AdamW(net.parameters(), learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay)
        for step in range(steps + 1):
            if step % LOG_STEPS == 0 or step == steps:
                seen = kept[: int(held.sum())]
                line = f"step {step}  distance held out {apart(average, latents[held], descriptors[held]):.4f}  "
                line += f"trained on {apart(average, latents[seen], descriptors[seen]):.4f}  "
                line += f"{time.monotonic() - start:.0f} s"
                report(line)
                with (folder / "log.txt").open("a", encoding="utf-8") as log:
                    log.write(line + "\n")
            if step == steps:
                break
            warm = min(1.0, (step + 1) / WARM_UP)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
            chosen = kept[torch.randint(len(kept), (batch,))]
            loss = (net(latents[chosen]) - descriptors[chosen]).square().sum(1).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            share = min(AVERAGE, (step + 1) / (step + 10))
            with torch.no_grad():
                for mean, value in zip(average.parameters(), net.parameters(), strict=True):
                    mean.lerp_(value, 1 - share)
    average.save_pretrained(folder / "reader")
    return average


@torch.no_grad()
def apart(net: LatentReader, latents: Tensor, descriptors: Tensor) -> float:
    """Mean distance of what is read to what is there."""
    return float((net(latents) - descriptors).norm(dim=1).mean())
