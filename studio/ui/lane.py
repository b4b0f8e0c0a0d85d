"""How heavy work is followed, and how it ends when its visitor cancels or leaves."""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from gradio.context import LocalContext
from torch.nn.modules.module import register_module_forward_pre_hook

from studio.background import NETWORKS

CLOSING = threading.Event()
"""Set when the whole app is told to stop: nothing that runs is wanted any more."""


class Stopped(Exception):  # noqa: N818 - not an error: the visitor pressed Cancel, or left
    """Ends a pipeline call from inside."""


class Stop(threading.Event):
    """Is set when a visitor cancels, and of itself when they have left.

    Args:
        gone: whether they have.
    """

    def __init__(self, gone: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self._gone = gone

    def is_set(self) -> bool:
        """Whether the work is wanted no more."""
        if not super().is_set() and (CLOSING.is_set() or self._gone()):
            self.set()
        return super().is_set()


def departure() -> Callable[[], bool]:
    """Whether nobody waits any more for the event that this is called in: hung up, closed, or cancelled from a script.

    gradio says so on its queue's event, and by cancelling the task that runs it; the work itself it lets go on.
    """
    blocks, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    if blocks is None or event_id is None:
        return lambda: False
    queue = blocks._queue
    event = queue.event_ids_to_events.get(event_id)
    task = next((one for one in queue._asyncio_tasks.copy() if event_id in one.get_name()), None)
    return lambda: (event is not None and not event.alive) or (task is not None and task.cancelling() > 0)


@contextmanager
def stoppable(stop: threading.Event) -> Iterator[None]:
    """End what this thread does with `Stopped` when `stop` is set, before the next layer of whatever network it runs.

    A layer takes a fraction of a second where a whole network can take many.
    """
    thread = threading.get_ident()

    def before(layer: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if threading.get_ident() == thread and stop.is_set():
            raise Stopped

    hook = register_module_forward_pre_hook(before)
    try:
        yield
    finally:
        hook.remove()


def follow(
    stop: threading.Event,
    progress: Callable[..., Any],
    total: int | None,
    doing: Callable[[dict[str, Any]], str],
) -> Callable[..., Any] | None:
    """A pipeline's `callback_on_step_end` that says how far it is, and ends it with `Stopped` when `stop` is set.

    Args:
        stop: set when the visitor cancels.
        progress: gradio's.
        total: steps, if they are known.
        doing: what to call a step, from what the pipeline gives the callback.

    Returns:
        The callback; None where a call goes to another process, which it could not be sent to.
    """
    if zero_gpu():
        return None

    begun = time.monotonic()

    def on_step(pipeline: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        if stop.is_set():
            raise Stopped
        left = seconds_left(begun, step + 1, total)
        progress((step + 1, total), desc=f"{doing(given)}{left}")
        return given

    return on_step


def seconds_left(begun: float, done: int, total: int | None) -> str:
    """How long it takes yet, ", about 12 s left", from how long the steps took so far; "" where that cannot be said."""
    if not total or not 0 < done < total:
        return ""
    return f", about {(time.monotonic() - begun) / done * (total - done):.0f} s left"


@contextmanager
def counted(pipeline: Any, found: Callable[[int], None]) -> Iterator[None]:
    """Say how many faces a pipeline of this thread is about to restore, by its step `read`, if it has one."""
    read = getattr(pipeline, "read", None)
    if read is None:
        yield
        return

    def reading(crops: torch.Tensor, *rest: Any, **settings: Any) -> Any:
        found(len(crops))
        return read(crops, *rest, **settings)

    pipeline.read = reading
    try:
        yield
    finally:
        del pipeline.read


@contextmanager
def watched(
    pipeline: Any, stop: threading.Event, progress: Callable[..., Any], background: str = "lanczos"
) -> Iterator[None]:
    """Follow a pipeline call from its networks: say how far it is, and end it with `Stopped` when `stop` is set.

    Only the call of this thread: another visitor's photo may be looked through for faces at the same time.

    Args:
        pipeline: what is called.
        stop: see above.
        progress: gradio's.
        background: of the call; its network is fetched and loaded here, if it has one.
    """
    done, total, drawn, start, thread = 0, None, 0, time.monotonic(), threading.get_ident()

    def begin(count: int) -> None:
        nonlocal done, total, start
        done, total, start = 0, count, time.monotonic()

    def before(name: str, inputs: tuple[Any, ...]) -> None:
        nonlocal done, drawn
        if threading.get_ident() != thread:
            return
        if stop.is_set():
            raise Stopped
        if name == "restorer":
            left = seconds_left(start, done, total)
            done += len(inputs[0])
            of = f" of {total}" if total else ""
            progress((done - 1, total), desc=f"Restoring face {done}{of}{left}", unit="faces")
        if name == "background":
            drawn += 1
            progress((drawn, None), desc="Drawing the photo around the faces", unit="tiles")

    networks = [(name, part) for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)]
    if background in NETWORKS:
        progress(0, desc="Loading the network of the background")
        networks.append(("background", pipeline.upsampler(background).network))
    progress(0, desc="Looking for faces")
    hooks = [
        network.register_forward_pre_hook(lambda _, inputs, name=name: before(name, inputs))
        for name, network in networks
    ]
    try:
        with counted(pipeline, begin):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def on_gpu(function: Callable[..., Any], seconds: int = 60) -> Callable[..., Any]:
    """`function`, which on a ZeroGPU Space (where the package `spaces` is) runs while a GPU is lent; else itself.

    There it runs in a forked process: its arguments must be picklable, and a cancelled one is ended from outside.

    Args:
        function: everything that runs a network which may be on the GPU.
        seconds: for which the GPU is asked for; a call that takes longer is ended.
    """
    if importlib.util.find_spec("spaces") is None:
        return function
    import spaces  # ty: ignore[import-not-found] - there is one on Hugging Face's machines alone

    return spaces.GPU(function, duration=seconds)


def zero_gpu() -> bool:
    """Whether `on_gpu` really goes to another process, where progress and Cancel do not reach the networks."""
    return (
        os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")
        and importlib.util.find_spec("spaces") is not None
    )
