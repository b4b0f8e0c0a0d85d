"""Distilling image heads from the generator: both sizes at once, from the same generated faces."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from studio.networks.generator import Generator
from studio.networks.image_head import ImageHead, target
from studio.training import checkpoints
from studio.training.data import draw_latents, expand_latents

STARTS = (5, 6)  # blocks before the head: 256 and 512 px
SAVE_SECONDS = 120
LOG_STEPS = 50
HELD_OUT_SEED = 77


@dataclass
class HeadTrainer:
    """The heads of one generator, and the loop that trains them.

    Args:
        generator: frozen; run in bfloat16.
        folder: where checkpoint, heads, log and sheet go.
        images: faces of the whole training; the learning rate falls to zero by then.
        batch: faces in one step.
        learning_rate: of Adam, after 50 steps of warm-up.
        seed: step k draws its latents from seed and k alone, so that resuming is exact.
        device: "cpu" or "cuda".
        report: receives one line of text at a time.
    """

    generator: Generator
    folder: Path
    images: int = 6000
    batch: int = 4
    learning_rate: float = 4e-3
    seed: int = 0
    device: str = "cpu"
    report: Callable[[str], None] = print
    step: int = 0
    seconds: float = 0.0
    heads: dict[int, ImageHead] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.generator.to(self.device, torch.bfloat16, memory_format=torch.channels_last).requires_grad_(False)
        torch.manual_seed(self.seed)
        channels = self.generator.config.channels
        dim = self.generator.config.style_dim
        maps, _ = self.examples(draw_latents(self.generator, self.batch, self.seed_of(-1)))
        for start in STARTS:
            head = ImageHead(
                start=start,
                channels_in=channels[start],
                size=4 * 2**start,
                width=min(64, channels[start]),
                style_dim=dim,
            )
            head.to(self.device, memory_format=torch.channels_last)
            head.initialise(maps[start])
            self.heads[start] = head
        parameters = [parameter for head in self.heads.values() for parameter in head.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=self.learning_rate, betas=(0.9, 0.98))

    def seed_of(self, step: int) -> int:
        """Seed of a step's latents, apart from those of the cached faces."""
        return 5_000_000 + self.seed * 1_000_003 + step

    @torch.no_grad()
    def examples(self, pairs: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """Maps by start, float32, and the generator's pictures (N,3,S,S) for pairs of `draw_latents`."""
        maps: dict[int, list[Tensor]] = {start: [] for start in STARTS}
        pictures = []
        for w in self.wide(pairs).bfloat16().split(1):  # one face at a time is faster, see `Generator.decode`
            x, before = self.generator.features(w, 0), 0
            for start in STARTS:
                x = self.generator.run_blocks(x, w, before, start)
                maps[start].append(x.float())
                before = start
            pictures.append(self.generator.decode(x, w, before).float())
        return {start: torch.cat(parts) for start, parts in maps.items()}, torch.cat(pictures)

    def wide(self, pairs: Tensor) -> Tensor:
        """Pairs of latents as the generator's W+."""
        return expand_latents(pairs)[:, -self.generator.num_slots :].to(self.device)

    def update(self) -> dict[str, float]:
        """One step; returns each head's PSNR on its batch."""
        pairs = draw_latents(self.generator, self.batch, self.seed_of(self.step))
        maps, pictures = self.examples(pairs)
        w = self.wide(pairs)
        done = min(1.0, self.step * self.batch / self.images)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * min(1, (self.step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * done))
        loss, found = torch.zeros((), device=self.device), {}
        for start, head in self.heads.items():
            given = head(maps[start], w)
            wanted = target(pictures, given.shape[2])
            loss = loss + F.l1_loss(given, wanted) + 5 * F.mse_loss(given, wanted)
            found[f"{given.shape[2]} px"] = psnr(given.detach(), wanted)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return found

    def run(self, minutes: float | None = None) -> None:
        """Train until `images` are seen or the minutes are over; saves every two minutes and at the end."""
        start = saved = time.monotonic()
        before = self.seconds
        while self.step * self.batch < self.images:
            found = self.update()
            now = time.monotonic()
            self.seconds = before + now - start
            if self.step % LOG_STEPS == 0:
                values = "  ".join(f"{name} {value:.2f} dB" for name, value in found.items())
                self.report(f"{self.step * self.batch} images  {values}  {self.step * self.batch / self.seconds:.1f}/s")
            if now - saved > SAVE_SECONDS:
                self.save()
                saved = now
            if minutes is not None and now - start > minutes * 60:
                break
        self.save()
        self.report("held out: " + "  ".join(f"{name} {value:.2f} dB" for name, value in self.measure().items()))

    @torch.no_grad()
    def measure(self, count: int = 64) -> dict[str, float]:
        """Mean PSNR of each head, in dB, on faces that no step draws."""
        sums: dict[str, float] = {}
        for part in draw_latents(self.generator, count, HELD_OUT_SEED).split(4):
            maps, pictures = self.examples(part)
            for start, head in self.heads.items():
                given = head(maps[start], self.wide(part))
                name = f"{given.shape[2]} px"
                sums[name] = sums.get(name, 0.0) + psnr(given, target(pictures, given.shape[2])) * len(part) / count
        return sums

    # ---- files

    def save(self) -> None:
        """Checkpoint, the heads as folders `head-256` and so on, and a sheet of head (left) and truth (right)."""
        tensors = {f"head.{start}.{k}": v for start, head in self.heads.items() for k, v in head.state_dict().items()}
        tensors |= checkpoints.moments(self.optimizer)
        checkpoints.save(self.folder / "checkpoint", tensors, {"step": self.step, "seconds": self.seconds})
        rows = []
        with torch.no_grad():
            pairs = draw_latents(self.generator, 3, HELD_OUT_SEED)
            maps, pictures = self.examples(pairs)
        for start, head in self.heads.items():
            head.save_pretrained(self.folder / f"head-{8 * 2**start}")
            with torch.no_grad():
                given = head(maps[start], self.wide(pairs))
            both = torch.cat([given, target(pictures, given.shape[2])], 3)
            rows.append(F.interpolate(both, size=(256, 512), mode="area"))
        grid = torch.cat(list(torch.cat(rows, 3)), 1) / 2 + 0.5
        pixels = (grid.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        Image.fromarray(pixels).save(self.folder / "sheet.png")

    def resume(self) -> None:
        """Continue from `folder/checkpoint`."""
        tensors, state = checkpoints.load(self.folder / "checkpoint")
        self.step, self.seconds = state["step"], state["seconds"]
        for start, head in self.heads.items():
            prefix = f"head.{start}."
            head.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        checkpoints.load_moments(self.optimizer, tensors)


def psnr(given: Tensor, wanted: Tensor) -> float:
    """Mean over pictures, in dB, of pictures in [-1,1]."""
    errors = (given.clamp(-1, 1) - wanted.clamp(-1, 1)).square().mean((1, 2, 3))
    return float((-10 * torch.log10(errors / 4)).mean())
