"""Checks of what a caller hands to a pipeline, said once for all of them.

They look at types and shapes alone, before any network runs, and refuse in one line.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studio.errors import InputError

Generators = torch.Generator | Sequence[torch.Generator] | None
FLOW_MATCHING = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")


def one_dtype(dtype: Any, torch_dtype: Any) -> torch.dtype | None:
    """The type that is meant by `dtype` and by its older name; None where neither is given.

    Raises:
        InputError: no floating type, or two different ones.
    """
    if dtype is not None and torch_dtype is not None and dtype != torch_dtype:
        raise InputError(f"dtype and torch_dtype must be the same, got {dtype!r} and {torch_dtype!r}: pass one of them")
    for name, value in (("dtype", dtype), ("torch_dtype", torch_dtype)):
        if value is not None and not (isinstance(value, torch.dtype) and value.is_floating_point):
            raise InputError(f"{name} must be a floating torch.dtype, got {value!r}: pass torch.float16, say")
    return dtype or torch_dtype


def runs(pipeline: Any) -> None:
    """Refuse float16 on a CPU, where networks are slow and some overflow.

    Raises:
        InputError: see above.
    """
    if pipeline._execution_device.type != "cpu":
        return
    half = [
        name
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module) and getattr(part, "dtype", None) == torch.float16
    ]
    if half:
        raise InputError(
            f"on a CPU networks must be float32 or bfloat16, got float16 ({', '.join(half)}): pass"
            " torch_dtype=torch.bfloat16, or move the pipeline to a GPU"
        )


def parts(cls: type[Any], given: Mapping[str, Any]) -> None:
    """Refuse components that a pipeline has not, or of another class than its `__init__` says.

    Raises:
        InputError: another class.
        TypeError: no such component.
    """
    if not given:
        return
    known = set(inspect.signature(cls.__init__).parameters) - {"self"}
    if unknown := [name for name in given if name not in known]:
        raise TypeError(
            f"{cls.__name__}.from_pretrained() got an unexpected keyword argument {unknown[0]!r}: its components are"
            f" {', '.join(sorted(known))}"
        )
    kinds = typing.get_type_hints(cls.__init__)
    for name, part in given.items():
        if not isinstance(part, kinds[name]):
            wanted = getattr(kinds[name], "__name__", None) or str(kinds[name])
            raise InputError(f"{name} must be a {wanted}, got {type(part).__name__}: pass a network of that class")


def generators(generator: Generators, count: int, of: str) -> list[torch.Generator | None]:
    """One generator for each of `count` things: the same one, or those of a list.

    Args:
        generator: None, one, or a list with one for each; of any device.
        count: how many are needed.
        of: what there is one for, for the message: "picture".

    Raises:
        InputError: neither, or another number of them.
    """
    if generator is None or isinstance(generator, torch.Generator):
        return [generator] * count
    if not (isinstance(generator, list | tuple) and all(isinstance(one, torch.Generator) for one in generator)):
        raise InputError(
            f"generator must be a torch.Generator or a list of them, got {_kind(generator)}: pass"
            " torch.Generator().manual_seed(1), say"
        )
    if len(generator) != count:
        raise InputError(
            f"a list of generators must have one for each {of}, got {len(generator)} for {count}: pass one generator,"
            f" or {count}"
        )
    return list(generator)


def noise(shape: Sequence[int], generators: Sequence[torch.Generator | None]) -> Tensor:
    """Standard normal noise on the CPU, drawn where the generators live.

    Args:
        shape: (K,...).
        generators: of `generators`: the same one for all K, or each its own share; None draws afresh.
    """
    if len(generators) == 1 or all(one is generators[0] for one in generators):
        return normal(shape, generators[0])
    share = shape[0] // len(generators), *shape[1:]
    return torch.cat([normal(share, one) for one in generators])


def normal(shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Standard normal noise on the CPU, drawn where the generator lives; None draws afresh."""
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    return torch.randn(*shape, generator=generator, device=generator.device).cpu()


def latents(given: Any, shape: Sequence[int]) -> Tensor | None:
    """Latents that a caller starts from, float32; None where there are none.

    Raises:
        InputError: no finite floating tensor of this shape.
    """
    if given is None:
        return None
    if not isinstance(given, Tensor) or not given.is_floating_point() or tuple(given.shape) != tuple(shape):
        found = f"{tuple(given.shape)} {given.dtype}" if isinstance(given, Tensor) else type(given).__name__
        raise InputError(f"latents must be a floating tensor {tuple(shape)}, got {found}: leave them out to draw some")
    if not bool(given.isfinite().all()):
        raise InputError("latents must be finite, got NaN or infinity: draw them anew")
    return given.detach().float()


def callback(function: Any, wanted: Sequence[str] | None, known: Collection[str]) -> None:
    """Refuse a callback that cannot be called, and tensors that it cannot be given.

    Raises:
        InputError: see above.
    """
    if function is not None and not isinstance(function, Callable):
        raise InputError(f"callback_on_step_end must be a function, got {_kind(function)}: leave it out for none")
    if wanted is None:
        return
    listed = isinstance(wanted, list | tuple | set)
    unknown = [name for name in wanted if name not in known] if listed else [wanted]
    if unknown:
        raise InputError(
            f"callback_on_step_end_tensor_inputs must be a list of {', '.join(sorted(known))}, got {unknown[0]!r}:"
            " name some of these"
        )


def flow_matching(scheduler: Any) -> None:
    """Refuse a scheduler that reads a velocity as something else: it would draw no faces.

    Raises:
        InputError: see above.
    """
    kind = type(scheduler).__name__
    if kind not in FLOW_MATCHING:
        raise InputError(
            f"the scheduler must be one of flow matching ({', '.join(FLOW_MATCHING)}), got {kind}: use one of these"
        )
    if scheduler.config.get("use_dynamic_shifting") or scheduler.config.get("invert_sigmas"):
        raise InputError(
            "the scheduler must go from noise to picture without dynamic shifting, got use_dynamic_shifting or"
            " invert_sigmas: leave both out"
        )


def predicts_noise(scheduler: Any) -> None:
    """Refuse a scheduler that does not take a prediction for noise: one of flow matching, or of another prediction.

    Raises:
        InputError: see above.
    """
    kind, config = type(scheduler).__name__, getattr(scheduler, "config", {})
    predicts = config.get("prediction_type", "epsilon")
    if kind.startswith("FlowMatch") or config.get("use_flow_sigmas") or predicts != "epsilon":
        raise InputError(
            f"the scheduler must be one of diffusion that predicts noise (epsilon), got {kind} ({predicts}): use"
            " DPMSolverMultistepScheduler, say"
        )


def numbers(**values: Any) -> None:
    """Refuse whatever is no number.

    Raises:
        InputError: see above.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise InputError(f"{name} must be a number, got {_kind(value)}: pass one")


def number_or_list(name: str, value: Any) -> None:
    """Refuse what is neither a number nor several.

    Raises:
        InputError: see above.
    """
    for one in value if isinstance(value, list | tuple | np.ndarray) else [value]:
        numbers(**{name: one})


def output_type(given: Any) -> None:
    """Refuse a kind of picture that `images.as_type` does not make.

    Raises:
        InputError: see above.
    """
    if given not in ("pil", "np", "pt"):
        raise InputError(f"output_type must be 'pil', 'np' or 'pt', got {given!r}: choose one of them")


def true_or_false(**values: Any) -> None:
    """Refuse whatever is not True or False.

    Raises:
        InputError: see above.
    """
    for name, value in values.items():
        if not isinstance(value, bool):
            raise InputError(f"{name} must be True or False, got {value!r}: pass one of them")


def _kind(value: Any) -> str:
    """What was given, for a message: a short value itself, of others the type."""
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of {', '.join(sorted({type(one).__name__ for one in value})) or 'nothing'}"
    return type(value).__name__
