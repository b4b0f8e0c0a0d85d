"""Distilling image heads from the generator: both sizes at once, one further, or the small one from cached faces."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from studio.networks.generator import Generator
from studio.networks.image_head import ImageHead, target
from studio.training import checkpoints
from studio.training.data import SIZE, SyntheticFaces, draw_latents, expand_latents

STARTS = (5, 6)  # blocks before the head: 256 and 512 px
CACHED = (5,)  # those whose pictures a cache of faces holds
SAVE_SECONDS = 120
LOG_STEPS = 50
HELD_OUT, HELD_OUT_SEED = 64, 77


@dataclass
class HeadTrainer:
    """The heads of one generator, and the loop that trains them.

    Args:
        generator: frozen; run in bfloat16.
        folder: where checkpoint, heads, log and sheet go.
        faces: cached faces; the generator then need not draw them, and only the 256 px head is trained. The last 64
            are kept for measuring. None draws new faces for both heads.
        known: a head to train further, alone; None starts afresh.
        images: faces of the whole training; the learning rate falls to zero by then.
        batch: faces in one step.
        learning_rate: of Adam, after 50 steps of warm-up.
        seed: step k draws its latents from seed and k alone, so that resuming is exact.
        device: "cpu" or "cuda".
        report: receives one line of text at a time.
    """

    generator: Generator
    folder: Path
    faces: SyntheticFaces | None = None
    known: ImageHead | None = None
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
        maps, _ = self.maps_and_pictures(draw_latents(self.generator, self.batch, self.seed_of(-1)))
        fresh = CACHED if self.faces else STARTS
        for start in (self.known.config.start,) if self.known else fresh:
            head = self.known or ImageHead(
                start=start,
                channels_in=channels[start],
                size=4 * 2**start,
                width=min(64, channels[start]),
                style_dim=dim,
            )
            head.to(self.device, memory_format=torch.channels_last)
            if self.known is None:
                head.initialise(maps[start])
            self.heads[start] = head
        parameters = [parameter for head in self.heads.values() for parameter in head.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=self.learning_rate, betas=(0.9, 0.98))

    def seed_of(self, step: int) -> int:
        """Seed of a step's latents, apart from those of the cached faces."""
        return 5_000_000 + self.seed * 1_000_003 + step

    def examples(self, step: int) -> tuple[dict[int, Tensor], Tensor, Tensor]:
        """Step number `step`: maps by start, pictures (N,3,S,S) in [-1,1], W+ latents."""
        if self.faces is None:
            pairs = draw_latents(self.generator, self.batch, self.seed_of(step))
            return *self.maps_and_pictures(pairs), self.wide(pairs)
        rng = torch.Generator().manual_seed(self.seed_of(step))
        return self.cached(torch.randint(len(self.faces) - HELD_OUT, (self.batch,), generator=rng))

    def held_out(self) -> Iterator[tuple[dict[int, Tensor], Tensor, Tensor]]:
        """64 faces that no step draws, four at a time; as `examples`."""
        if self.faces is None:
            for pairs in draw_latents(self.generator, HELD_OUT, HELD_OUT_SEED).split(4):
                yield *self.maps_and_pictures(pairs), self.wide(pairs)
        else:
            for indices in torch.arange(len(self.faces) - HELD_OUT, len(self.faces)).split(4):
                yield self.cached(indices)

    def cached(self, indices: Tensor) -> tuple[dict[int, Tensor], Tensor, Tensor]:
        """Maps, pictures and W+ of cached faces."""
        pictures, pairs = self.faces.batch(indices)
        return self.maps_and_pictures(pairs, drawn=False)[0], (pictures * 2 - 1).to(self.device), self.wide(pairs)

    @torch.no_grad()
    def maps_and_pictures(self, pairs: Tensor, drawn: bool = True) -> tuple[dict[int, Tensor], Tensor]:
        """Maps by start, float32, and unless told not to the generator's pictures, for pairs of `draw_latents`."""
        starts = STARTS if drawn else CACHED
        maps: dict[int, list[Tensor]] = {start: [] for start in starts}
        pictures = []
        for w in self.wide(pairs).bfloat16().split(1):  # one face at a time is faster, see `Generator.decode`
            x, before = self.generator.features(w, 0), 0
            for start in starts:
                x = self.generator.run_blocks(x, w, before, start)
                maps[start].append(x.float())
                before = start
            if drawn:
                pictures.append(self.generator.decode(x, w, before).float())
        joined = {start: torch.cat(parts) for start, parts in maps.items()}
        return joined, torch.cat(pictures) if drawn else torch.empty(0)

    def wide(self, pairs: Tensor) -> Tensor:
        """Pairs of latents as the generator's W+."""
        return expand_latents(pairs)[:, -self.generator.num_slots :].to(self.device)

    def update(self) -> dict[str, float]:
        """One step; returns each head's PSNR on its batch."""
        maps, pictures, w = self.examples(self.step)
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
    def measure(self) -> dict[str, float]:
        """Mean PSNR of each head, in dB, on the held-out faces."""
        found: dict[str, list[float]] = {}
        for maps, pictures, w in self.held_out():
            for start, head in self.heads.items():
                given = head(maps[start], w)
                found.setdefault(f"{given.shape[2]} px", []).append(psnr(given, target(pictures, given.shape[2])))
        return {name: sum(values) / len(values) for name, values in found.items()}

    # ---- files

    def save(self) -> None:
        """Checkpoint, the heads as folders `head-256` and so on, and a sheet of head (left) and truth (right)."""
        tensors = {f"head.{start}.{k}": v for start, head in self.heads.items() for k, v in head.state_dict().items()}
        tensors |= checkpoints.moments(self.optimizer)
        checkpoints.save(self.folder / "checkpoint", tensors, {"step": self.step, "seconds": self.seconds})
        rows = []
        maps, pictures, w = next(self.held_out())
        for start, head in self.heads.items():
            head.save_pretrained(self.folder / f"head-{8 * 2**start}")
            with torch.no_grad():
                given = head(maps[start], w)
            both = torch.cat([given, target(pictures, given.shape[2])], 3)
            rows.append(F.interpolate(both, size=(SIZE, 2 * SIZE), mode="area"))
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
