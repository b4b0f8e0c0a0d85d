"""A plain training: a network, its running average, AdamW, a warm-up and a cosine; a step hangs on its number alone."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from studio.errors import InputError
from studio.networks.loading import StrictModel
from studio.training import checkpoints

LOG_STEPS, WARMUP = 50, 200
LEAST_RATE = 0.02  # of the learning rate, at the end


def shards(folder: Path, made_by: str) -> list[dict[str, Tensor]]:
    """All safetensors files of a folder, mapped into memory.

    Raises:
        InputError: there are none; `made_by` is the command that makes them.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise InputError(f"{folder} must hold what is learnt from, and holds nothing: run `{made_by}`")
    return [load_file(path) for path in paths]


class Loop:
    """The loop of a trainer that counts steps."""

    save_seconds: ClassVar[float] = 180
    step: int
    steps: int
    seconds: float
    folder: Path
    report: Callable[[str], None]

    def update(self) -> dict[str, float]:
        """One step; returns the losses."""
        raise NotImplementedError

    def save(self) -> None:
        """Checkpoint, and the averaged network."""
        raise NotImplementedError

    def told(self, means: dict[str, float]) -> str:
        """The line of the log for the last `LOG_STEPS` steps, with the means of their losses."""
        raise NotImplementedError

    def run(self, minutes: float | None = None) -> None:
        """Train until `steps` are done or the minutes are over; saves every few minutes and at the end."""
        start = saved = time.monotonic()
        before = self.seconds
        recent: dict[str, list[float]] = {}
        while self.step < self.steps:
            for name, value in self.update().items():
                recent.setdefault(name, []).append(value)
            now = time.monotonic()
            self.seconds = before + now - start
            if self.step % LOG_STEPS == 0:
                self.say(self.told({name: sum(values) / len(values) for name, values in recent.items()}))
                recent = {}
            if now - saved > self.save_seconds:
                self.save()
                saved = now
            if minutes is not None and now - start > minutes * 60:
                break
        self.save()

    def say(self, text: str) -> None:
        """A line to the reporter and to `log.txt`."""
        self.report(text)
        with (self.folder / "log.txt").open("a", encoding="utf-8") as log:
            log.write(text + "\n")


@dataclass
class StepTrainer(Loop):
    """Trains one network; a subclass says what a step sees and what it costs.

    Args:
        net: changed in place.
        folder: where checkpoint, log and the averaged network go.
        steps: of the whole training; the learning rate falls to `LEAST_RATE` of itself by then.
        batch: examples in one step.
        learning_rate: of AdamW.
        report: receives one line of text at a time.
    """

    name: ClassVar[str]  # of the averaged network's folder
    average_decay: ClassVar[float] = 0.9985
    weight_decay: ClassVar[float] = 0.01
    longest_gradient: ClassVar[float] = 1.0

    net: StrictModel
    folder: Path
    steps: int
    batch: int
    learning_rate: float
    report: Callable[[str], None] = print
    step: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.net.to(memory_format=torch.channels_last).train()
        self.average = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), self.learning_rate, betas=(0.9, 0.98), weight_decay=self.weight_decay
        )

    def examples(self, step: int) -> Any:
        """What step number `step` sees; drawn from that number alone."""
        raise NotImplementedError

    def losses(self, examples: Any) -> dict[str, Tensor]:
        """What it costs, by name; the sum is minimised."""
        raise NotImplementedError

    def rate(self) -> float:
        """The learning rate of the coming step."""
        fall = 0.5 * (1 + math.cos(math.pi * min(1, self.step / self.steps)))
        return self.learning_rate * min(1, (self.step + 1) / WARMUP) * (LEAST_RATE + (1 - LEAST_RATE) * fall)

    def update(self) -> dict[str, float]:
        """One step; returns the losses."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        found = self.losses(self.examples(self.step))
        self.optimizer.zero_grad(set_to_none=True)
        sum(found.values()).backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), self.longest_gradient)
        self.optimizer.step()
        share = min(self.average_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.net.parameters()), 1 - share)
        self.step += 1
        return {name: value.item() for name, value in found.items()}

    def told(self, means: dict[str, float]) -> str:
        """As `Loop.told`: losses, and examples a second."""
        losses = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
        return f"step {self.step} of {self.steps}  {losses}  {self.step * self.batch / self.seconds:.1f}/s"

    def save(self) -> None:
        """Checkpoint, and the averaged network as the folder `name`."""
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        tensors |= checkpoints.moments(self.optimizer)
        checkpoints.save(self.folder / "checkpoint", tensors, {"step": self.step, "seconds": self.seconds})
        self.average.save_pretrained(self.folder / self.name)

    def resume(self) -> None:
        """Continue from `folder/checkpoint`."""
        tensors, state = checkpoints.load(self.folder / "checkpoint")
        self.step, self.seconds = state["step"], state["seconds"]
        for prefix, net in (("net.", self.net), ("average.", self.average)):
            net.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        checkpoints.load_moments(self.optimizer, tensors)


def generator_of(step: int) -> torch.Generator:
    """The random numbers of one step."""
    return torch.Generator().manual_seed(step)


def channels_last(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Pictures or maps as float32, laid out as CPUs are quickest with."""
    return [tensor.float().contiguous(memory_format=torch.channels_last) for tensor in tensors]
