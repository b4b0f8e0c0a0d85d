"""The engines of `studio generate`: which pipeline a model is of, what it takes, and its defaults."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from studio.errors import InputError

OPTIONS = {  # of the pipelines -> of the command, where they differ
    "guidance_scale": "guidance",
    "num_inference_steps": "steps",
    "correction_steps": "correction",
}


@dataclass(frozen=True)
class Engine:
    """One way to generate.

    Attributes:
        name: for reports.
        pipeline: its class.
        check: refuses arguments that the pipeline would.
        solvers: schedulers by name, the default first.
        defaults: settings that are always passed.
        takes: further settings, passed where they are given.
    """

    name: str
    pipeline: type[Any]
    check: Callable[..., None]
    solvers: Mapping[str, type[Any]]
    defaults: Mapping[str, Any]
    takes: tuple[str, ...] = ()

    def settings(self, solver: str | None, samples: int, **given: Any) -> tuple[str, dict[str, Any]]:
        """The solver, and all settings: those that were given, else the defaults.

        Raises:
            InputError: one that this engine does not have.
        """
        given = {name: value for name, value in given.items() if value is not None}
        for name in given:
            if name not in self.defaults and name not in self.takes:
                option = OPTIONS.get(name, name)
                raise InputError(f"--{option} must be left out with {self.name}, which has no such setting: drop it")
        solver = solver or next(iter(self.solvers))
        if solver not in self.solvers:
            raise InputError(f"--solver must be one of {', '.join(self.solvers)}, got {solver!r}: choose one of them")
        quick = {"num_inference_steps": 4, "guidance_scale": 1.0} if solver == "lcm" else {}
        return solver, {"num_images_per_prompt": samples, **self.defaults, **quick, **given}

    def refuse(self, settings: Mapping[str, Any], face: int | None, consent: bool) -> None:
        """Raise what the pipeline would, before the weights are loaded."""
        always = {name: settings[name] for name in ("num_images_per_prompt", *self.defaults)}
        self.check(**always, face=face, consent=consent, output_type="pt")


def engine_of(model: str) -> Engine:
    """The engine of a known name, a saved folder or a repository on the Hub; ours unless it says otherwise."""
    from pipelines.arc2face import Arc2FacePipeline
    from studio.base import saved_class

    known = model in Arc2FacePipeline.known_names
    return arc2face() if known or saved_class(model) == Arc2FacePipeline.__name__ else ours()


def ours() -> Engine:
    """The studio's own prior."""
    from pipelines.generate import SOLVERS, GeneratePipeline, check_arguments

    defaults = {"guidance_scale": 1.0, "num_inference_steps": 12, "correction_steps": 40, "candidates": 8}
    moves = ("yaw", "pitch", "smile", "mouth", "eyes", "brow", "light", "glasses", "age")
    return Engine("generate", GeneratePipeline, check_arguments, SOLVERS, defaults, moves)


def arc2face() -> Engine:
    """Stable Diffusion."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, LCMScheduler

    from pipelines.arc2face import Arc2FacePipeline, check_arguments

    solvers = {
        "dpm": DPMSolverMultistepScheduler,
        "euler": EulerDiscreteScheduler,
        "ddim": DDIMScheduler,
        "lcm": LCMScheduler,
    }
    defaults = {"guidance_scale": 3.0, "num_inference_steps": 25}
    return Engine("arc2face", Arc2FacePipeline, check_arguments, solvers, defaults)


def check_lora(engine: Engine, lora: str | None) -> None:
    """Refuse adapters where there is nothing to adapt, or nothing to do it with."""
    if lora and engine.name != "arc2face":
        raise InputError(f"--lora must be left out with {engine.name}, which takes no adapters: drop it")
    if lora and importlib.util.find_spec("peft") is None:
        raise InputError("--lora needs the extra `lora`, which is not installed: pip install 'peft>=0.17'")
