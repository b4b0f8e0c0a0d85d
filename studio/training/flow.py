"""Training the prior over latents given an identity (`LatentFlow`) from cached pairs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from studio.networks.latent_flow import TIMES, LatentFlow
from studio.networks.latent_space import LatentSpace
from studio.training import checkpoints
from studio.training.steps import Loop

UNKNOWN = 0.12  # share of steps without an identity, for guidance
NOISE = 0.15  # length of what is added to a descriptor at most; half the pairs of one person are 0.35 apart
AVERAGE = 0.999


@dataclass
class FlowTrainer(Loop):
    """A latent flow, its running average, and the loop that trains it.

    Args:
        latents: (N,D) w of generated faces.
        descriptors: (N,E) their identity vectors.
        held: (N,) bool, pairs that are kept for measuring.
        space: the Gaussian coordinates.
        folder: where checkpoint, log and the averaged network go.
        steps: of the whole training; the learning rate falls to zero by then.
        batch: pairs in one step.
        learning_rate: of AdamW, after 200 steps of warm-up.
        weight_decay: of AdamW.
        seed: step k draws from seed and k alone, so that resuming is exact.
        config: of `LatentFlow`, what differs from its defaults.
        report: receives one line of text at a time.
    """

    save_seconds: ClassVar[float] = 60
    latents: Tensor
    descriptors: Tensor
    held: Tensor
    space: LatentSpace
    folder: Path
    steps: int = 1500
    batch: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    seed: int = 0
    config: dict[str, int | float] = field(default_factory=dict)
    report: Callable[[str], None] = print
    step: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.kept = (~self.held).nonzero()[:, 0]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.flow = LatentFlow(dim=self.latents.shape[1], identity_dim=self.descriptors.shape[1], **self.config)
        with torch.no_grad():
            coordinates = self.space(self.latents)
        self.flow.fit(coordinates[self.kept], self.descriptors[self.kept])
        self.average = copy.deepcopy(self.flow).eval().requires_grad_(False)
        self.samples = self.flow.standardise(coordinates)
        self.optimizer = torch.optim.AdamW(
            self.flow.parameters(), lr=self.learning_rate, betas=(0.9, 0.99), weight_decay=self.weight_decay
        )

    def examples(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Step number `step`: latents (N,D), descriptors (N,E), which are known (N,), times (N,) in (0,1)."""
        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        chosen = self.kept[torch.randint(len(self.kept), (self.batch,), generator=rng)]
        known = torch.rand(self.batch, generator=rng) >= UNKNOWN
        times = torch.randn(self.batch, generator=rng).sigmoid()  # logit-normal (arXiv 2403.03206, section 3.1)
        return self.samples[chosen], blur(self.descriptors[chosen], rng), known, times

    def update(self) -> dict[str, float]:
        """As `Loop.update`."""
        warm = min(1.0, (self.step + 1) / 200)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1, self.step / self.steps)))
        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + 500_000_000 + self.step)
        samples, descriptors, known, times = self.examples(self.step)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + self.step)  # dropout
            loss = flow_loss(self.flow.train(), samples, descriptors, known, times, rng)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.flow.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        share = min(AVERAGE, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.flow.parameters(), strict=True):
                mean.lerp_(value, 1 - share)
        return {"loss": float(loss.detach())}

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Loss of the averaged network on the pairs that no step draws, with their identities and without."""
        samples, descriptors = self.samples[self.held], self.descriptors[self.held]
        rng = torch.Generator().manual_seed(self.seed)
        times = (torch.arange(len(samples)) + 0.5) / len(samples)
        times = torch.special.ndtri(times[torch.randperm(len(times), generator=rng)]).sigmoid()
        found = {}
        for name, known in (("known", True), ("anybody", False)):
            rng = torch.Generator().manual_seed(self.seed + 1)
            mask = torch.full((len(samples),), known)
            found[name] = float(flow_loss(self.average, samples, descriptors, mask, times, rng))
        return found

    def told(self, means: dict[str, float]) -> str:
        """As `Loop.told`: the loss, and that of the pairs that no step draws."""
        held = "  ".join(f"{name} {value:.4f}" for name, value in self.measure().items())
        return f"step {self.step}  loss {means['loss']:.4f}  held out: {held}  {self.seconds:.0f} s"

    # ---- files

    def save(self) -> None:
        """Checkpoint, and the averaged network as the folder `flow`."""
        tensors = {f"flow.{name}": value for name, value in self.flow.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        tensors |= checkpoints.moments(self.optimizer)
        state = {"step": self.step, "seconds": self.seconds, "pairs": len(self.latents)}
        checkpoints.save(self.folder / "checkpoint", tensors, state)
        self.average.save_pretrained(self.folder / "flow")

    def resume(self) -> None:
        """Continue from `folder/checkpoint`, with as many pairs as there are now."""
        tensors, state = checkpoints.load(self.folder / "checkpoint")
        self.step, self.seconds = state["step"], state["seconds"]
        for prefix, net in (("flow.", self.flow), ("average.", self.average)):
            net.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        with torch.no_grad():
            self.samples = self.flow.standardise(self.space(self.latents))
        checkpoints.load_moments(self.optimizer, tensors)


def blur(descriptors: Tensor, rng: torch.Generator) -> Tensor:
    """Add noise of a random length, up to `NOISE`, to descriptors (N,E), and keep their own length.

    Another photo of a person has another descriptor, and one of a real photo lies a little beside those of generated
    faces; a network that has seen none but exact ones would take every such difference for a feature of the face.
    """
    noise = torch.randn(descriptors.shape, generator=rng) / math.sqrt(descriptors.shape[1])
    moved = descriptors + NOISE * torch.rand(len(descriptors), 1, generator=rng) * noise
    return moved * (descriptors.norm(dim=1, keepdim=True) / moved.norm(dim=1, keepdim=True).clamp_min(1e-6))


def flow_loss(
    flow: LatentFlow, samples: Tensor, descriptors: Tensor, known: Tensor, times: Tensor, rng: torch.Generator
) -> Tensor:
    """Conditional flow matching on straight paths (arXiv 2210.02747, equation 23): squared error of the velocity."""
    noise = torch.randn(samples.shape, generator=rng)
    t = times[:, None]
    velocity = flow((1 - t) * samples + t * noise, TIMES * times, descriptors, known)
    return (velocity - (noise - samples)).square().mean()
