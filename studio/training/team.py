"""Several processes that train one network, by `accelerate`: who takes which batches, and one gradient for all.

A step of the optimizer sees so many batches of every process. Batches are numbered over the whole training, so that two
processes with one batch a step learn from the same ones as one process with two.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import nn

from studio.errors import InputError

MOST_BATCHES = 1024


class Team:
    """The processes of one training: this one alone, or those that `accelerate launch` started.

    Args:
        device: "cpu" or "cuda"; of several GPUs each process has its own as the current one.
        batches: of each process in a step.

    Raises:
        InputError: no such number of batches.
    """

    def __init__(self, device: str, batches: int = 1) -> None:
        if type(batches) is not int or not 1 <= batches <= MOST_BATCHES:
            raise InputError(f"batches of a step must be a whole number from 1 to {MOST_BATCHES}, got {batches!r}")
        self.accelerator = Accelerator(cpu=device == "cpu")
        self.batches = batches

    @property
    def leads(self) -> bool:
        """Whether this process writes files and lines."""
        return self.accelerator.is_main_process

    @property
    def together(self) -> int:
        """Batches of all processes in a step."""
        return self.accelerator.num_processes * self.batches

    def numbers(self, step: int) -> range:
        """The batches of this process in a step."""
        first = step * self.together + self.accelerator.process_index * self.batches
        return range(first, first + self.batches)

    @torch.no_grad()
    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Gradients to their means over all processes."""
        if self.accelerator.num_processes == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = self.accelerator.reduce(torch.cat([one.flatten() for one in gradients]), "mean")
        for one, mean in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
            one.copy_(mean.view_as(one))

    def agree(self, over: bool) -> bool:
        """What the leading process says: clocks differ, and nobody may go on alone."""
        if self.accelerator.num_processes == 1:
            return over
        said = torch.tensor(float(over and self.leads), device=self.accelerator.device)
        return bool(self.accelerator.reduce(said, "sum") > 0)

    def end(self) -> None:
        """Wait until everybody is here, and part."""
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
