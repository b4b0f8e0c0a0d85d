"""Training the latent encoder on cached generated faces, whose latents are known."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.device import fast_bfloat16
from studio.networks.latent_encoder import LatentEncoder
from studio.networks.latent_space import LatentSpace
from studio.training import checkpoints
from studio.training.augment import recolour
from studio.training.data import SyntheticFaces

HELD_OUT = 256  # faces, the last ones
SAVE_SECONDS = 120
LOG_STEPS = 50
SMALLEST = 12  # px that a damaged face is shrunk to at the least
NOISE = 0.06


@dataclass
class EncoderTrainer:
    """The network and the loop that trains it.

    The loss is the mean squared error of the latents w, over the variance of w: 1 is what the mean latent gives.

    Args:
        faces: cached faces; the last 256 are kept for measuring.
        space: the Gaussian coordinates.
        folder: where checkpoint and network go.
        net: what is trained.
        images: faces over the whole training; the learning rate falls to zero by then.
        batch: faces in one step.
        learning_rate: of AdamW, after 100 steps of warm-up.
        seed: step k draws its faces and their damage from seed and k alone, so that resuming is exact.
        device: "cpu" or "cuda".
        report: receives one line of text at a time.
    """

    faces: SyntheticFaces
    space: LatentSpace
    folder: Path
    net: LatentEncoder
    images: int = 80_000
    batch: int = 32
    learning_rate: float = 1.5e-3
    seed: int = 0
    device: str = "cpu"
    report: Callable[[str], None] = print
    step: int = 0
    seconds: float = 0.0
    small: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        size = self.net.config.size
        parts = [F.interpolate(shard.float(), (size, size), mode="area").round().byte() for shard in self.faces.images]
        self.small = torch.cat(parts)  # (K,3,size,size), 28 kB a face
        self.net.to(self.device, memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=self.learning_rate, weight_decay=0.02)
        pairs = self.faces.latents.float()
        self.variance = float((pairs - pairs.mean(0)).square().mean())

    def examples(self, step: int) -> tuple[Tensor, Tensor]:
        """Step number `step`: faces (N,3,size,size) in [0,1], two thirds damaged or recoloured, and latents (N,2,D)."""
        rng = torch.Generator().manual_seed(9_000_000 + self.seed * 1_000_003 + step)
        rows = torch.randint(len(self.small) - HELD_OUT, (self.batch,), generator=rng)
        faces = self.small[rows].float() / 255
        third = self.batch // 3
        if third:
            faces[:third] = damage(recolour(faces[:third], rng), rng)
            faces[third : 2 * third] = recolour(faces[third : 2 * third], rng)
        return faces.to(self.device), self.faces.latents[rows].float().to(self.device)

    def error(self, faces: Tensor, latents: Tensor) -> Tensor:
        """Mean squared error of w over its variance."""
        with torch.autocast(self.device, torch.bfloat16, enabled=fast_bfloat16(self.device)):
            v = self.net(faces.contiguous(memory_format=torch.channels_last))
        return F.mse_loss(self.space.latents(v), latents) / self.variance

    def update(self) -> float:
        """One step; returns its loss."""
        faces, latents = self.examples(self.step)
        done = min(1.0, self.step * self.batch / self.images)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * min(1, (self.step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * done))
        loss = self.error(faces, latents)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

    @torch.no_grad()
    def measure(self) -> float:
        """The loss on the held-out faces, undamaged."""
        faces = self.small[-HELD_OUT:].float().to(self.device) / 255
        return float(self.error(faces, self.faces.latents[-HELD_OUT:].float().to(self.device)))

    def run(self, minutes: float | None = None) -> None:
        """Train until `images` are seen or the minutes are over; saves every two minutes and at the end."""
        start = saved = time.monotonic()
        before, recent = self.seconds, 0.0
        while self.step * self.batch < self.images:
            recent += self.update() / LOG_STEPS
            now = time.monotonic()
            self.seconds = before + now - start
            if self.step % LOG_STEPS == 0:
                seen = self.step * self.batch
                speed, held_out = seen / self.seconds, self.measure()
                self.report(f"{seen} images  loss {recent:.3f}  held out {held_out:.3f}  {speed:.0f}/s")
                recent = 0.0
            if now - saved > SAVE_SECONDS:
                self.save()
                saved = now
            if minutes is not None and now - start > minutes * 60:
                break
        self.save()
        self.report(f"held out: {self.measure():.3f} of the variance of w")

    def save(self) -> None:
        """Checkpoint, and the network as the folder `latent-encoder`."""
        tensors = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        tensors |= checkpoints.moments(self.optimizer)
        checkpoints.save(self.folder / "checkpoint", tensors, {"step": self.step, "seconds": self.seconds})
        self.net.save_pretrained(self.folder / "latent-encoder")

    def resume(self) -> None:
        """Continue from `folder/checkpoint`."""
        tensors, state = checkpoints.load(self.folder / "checkpoint")
        self.step, self.seconds = state["step"], state["seconds"]
        self.net.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
        checkpoints.load_moments(self.optimizer, tensors)


def damage(faces: Tensor, rng: torch.Generator) -> Tensor:
    """Shrink and enlarge faces (N,3,S,S), some to grey, and add noise; all by one draw for the batch but the noise."""
    side = faces.shape[2]
    small = int(torch.randint(SMALLEST, side + 1, (), generator=rng))
    faces = F.interpolate(F.interpolate(faces, (small, small), mode="area"), (side, side), mode="bilinear")
    grey = torch.rand(len(faces), 1, 1, 1, generator=rng) < 0.5
    faces = torch.where(grey, faces.mean(1, keepdim=True), faces)
    amount = NOISE * torch.rand(len(faces), 1, 1, 1, generator=rng)
    return (faces + amount * torch.randn(faces.shape, generator=rng)).clamp(0, 1)
