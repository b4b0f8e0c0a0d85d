"""One rule for all callbacks of steps: who is called with what, and what becomes of the answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from torch import Tensor

from studio import checks
from studio.errors import InputError

Function = Callable[[Any, int, Any, dict[str, Tensor]], dict[str, Tensor] | None]


class StepEnd:
    """The caller's `callback_on_step_end`, as diffusers calls it: `(pipe, step, timestep, tensors) -> dict`.

    Args:
        pipeline: that is running.
        function: the caller's; None is called never. One of diffusers' `PipelineCallback` names its own tensors.
        wanted: names of the tensors it is given; None gives all that there are.
        known: names of all that there are in this pipeline.

    Raises:
        InputError: no function, or a tensor that there is not.
    """

    def __init__(
        self, pipeline: Any, function: Function | None, wanted: Sequence[str] | None, known: Collection[str]
    ) -> None:
        if isinstance(function, PipelineCallback | MultiPipelineCallbacks):
            wanted = function.tensor_inputs
        checks.callback(function, wanted, known)
        self.pipeline, self.function, self.wanted = pipeline, function, known if wanted is None else wanted

    def __call__(self, step: int, timestep: Any, **tensors: Tensor) -> dict[str, Tensor]:
        """Calls it after a step.

        Args:
            step: from 0.
            timestep: the scheduler's; where there is no scheduler, `step` again.
            tensors: all that there are now.

        Returns:
            What it answers, as checked by `answered`; empty where there is no callback or no answer.
        """
        if self.function is None:
            return {}
        given = {name: tensors[name] for name in self.wanted if name in tensors}
        return answered(self.function(self.pipeline, step, timestep, dict(given)), given)


def answered(answer: Any, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a callback's answer, of the type and on the device of those it was given.

    Raises:
        InputError: neither None nor a dict, a name that was not given, or a tensor of another shape.
    """
    if answer is None:
        return {}
    if not isinstance(answer, Mapping):
        raise InputError(f"callback_on_step_end must return a dict or None, got {type(answer).__name__}: see its docs")
    for name, value in answer.items():
        if name not in given:
            raise InputError(
                f"callback_on_step_end must return tensors that it was given ({', '.join(given)}), got {name!r}: name"
                " it in callback_on_step_end_tensor_inputs"
            )
        shape = tuple(given[name].shape)
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"callback_on_step_end must return {name!r} as a tensor {shape}, got {found}: keep it so")
    return {name: value.detach().to(given[name]) for name, value in answer.items() if value is not given[name]}


def replaced(answer: Mapping[str, Tensor], name: str = "latents") -> Tensor | None:
    """A tensor of an answer, in no inference mode, so that a search can go on from it; None where it is not there."""
    if name not in answer:
        return None
    with torch.inference_mode(False):
        return answer[name].clone()
