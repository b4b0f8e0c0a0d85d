"""The web app as a whole: its tabs, its look, and how it is served."""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import gradio as gr
from gradio import processing_utils
from starlette.middleware import Middleware

from studio.errors import InputError, StudioError
from studio.memory import keep_freed_memory
from studio.provenance import own_certificate
from studio.ui import about, album, compare, edit, frontalize, generate, reenact, restore, upsample
from studio.ui.as_code import follow_links
from studio.ui.calls import Checked
from studio.ui.common import EXAMPLES, HOUR, LOOK
from studio.ui.front import ICON, NAME, Front
from studio.ui.guard import Guard, Names
from studio.ui.lane import CLOSING, zero_gpu
from studio.ui.onward import connect_ends
from studio.ui.storage import ALL, EACH, GIGABYTE, Bounded, own_folder, told_to_stop, undisturbed
from studio.ui.style import CSS, theme

# A tab is a module with TITLE, load() -> its model, and tab(model), which lays it out and gives its `Ends`, if any.
# One for each pipeline that is there, in the order of the page: a pipeline that is added puts its tab before `compare`.
TABS = (restore, upsample, frontalize, edit, generate, reenact, compare, album, about)

QUEUE = 20  # waiting visitors; the next one is told that the queue is full
MAX_UPLOAD = "40mb"

INTRODUCTION = f"""
# {NAME}

Restores the faces of old, small or damaged photographs. Photos stay on the machine that runs this page, and are
deleted from it one to two hours later; nobody else is asked, counted or told. Of one visitor {EACH // GIGABYTE} GB are
kept until then, of all together {ALL // GIGABYTE} GB; the oldest go first.
"""


class Lazy:
    """A pipeline that is loaded when first asked for, once, whatever thread asks. A failed load is tried again.

    Args:
        load: makes the pipeline.
    """

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._pipeline: Any = None

    def __call__(self) -> Any:
        """The pipeline."""
        with self._lock:
            if self._pipeline is None:
                self._pipeline = self._load()
            return self._pipeline


def build(models: Mapping[str, Any] | None = None) -> gr.Blocks:
    """The app, not yet launched.

    Args:
        models: what the tabs run, by their title: a pipeline, or a `Lazy` of one. What is not named is the committed
            one, loaded at the first use.
    """
    models = models or {}
    processing_utils.async_ssrf_protected_download = refused  # gradio has no setting for this
    with gr.Blocks(title=NAME, analytics_enabled=False, delete_cache=(HOUR, HOUR)) as app:
        gr.Markdown(INTRODUCTION)
        ends = {}
        with gr.Tabs() as tabs:
            for one in TABS:
                with gr.Tab(one.TITLE, id=one.TITLE.lower()):
                    ends[one.TITLE] = one.tab(as_lazy(models[one.TITLE]) if one.TITLE in models else Lazy(one.load))
        follow_links(app, tabs)
        connect_ends(tabs, {title: end for title, end in ends.items() if end is not None})
    app.queue(max_size=QUEUE, api_open=False)
    return app


async def refused(url: str, cache_dir: str) -> str:
    """In place of gradio's download: a script that names an address instead of a file is told to upload it."""
    raise gr.Error("a photo must be uploaded, got an address: this machine fetches nothing", print_exception=False)


def as_lazy(model: Any) -> Lazy:
    """A model that is there already, asked for as one that is not."""
    return model if isinstance(model, Lazy) else Lazy(lambda: model)


def options(environment: Mapping[str, str]) -> dict[str, Any]:
    """What `launch` is given.

    Args:
        environment: STUDIO_HOST and STUDIO_PORT (default: this machine only, the first free port from 7860 on),
            STUDIO_HOSTS (the names that are answered to beside those of the loopback), STUDIO_AUTH ("user:password",
            asked of every visitor) and STUDIO_MCP (1 offers the tabs as MCP tools) are read from it.

    Raises:
        InputError: a port that is none, an STUDIO_AUTH or STUDIO_MCP of another form, or MCP without its package. The
            password is not repeated.
    """
    port = environment.get("STUDIO_PORT") or None
    if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InputError(f"STUDIO_PORT must be a number from 1 to 65535, got {port!r}: 7860 is the usual one")
    user, colon, password = environment.get("STUDIO_AUTH", "").partition(":")
    if (user or colon) and not (user and password):
        raise InputError("STUDIO_AUTH must be user:password, got something else: set both, with a colon between them")
    return {
        "server_name": environment.get("STUDIO_HOST") or None,
        "server_port": port and int(port),
        "auth": (user, password) if user else None,
        "theme": theme(),
        "css": CSS,
        "allowed_paths": [str(EXAMPLES)],
        "max_file_size": MAX_UPLOAD,
        "enable_monitoring": False,
        "run_history": False,
        "footer_links": ["api", "settings"],
        "mcp_server": wants_mcp(environment),
        "ssr_mode": False,  # a server of pages in front of this one would answer without its rules
        "favicon_path": ICON,
        "app_kwargs": {
            "middleware": [
                Middleware(Guard, names=Names(environment)),
                Middleware(Bounded),
                Middleware(Checked),
                Middleware(Front),
            ]
        },
    }


def wants_mcp(environment: Mapping[str, str]) -> bool:
    """Whether STUDIO_MCP is 1, and the package for it is there.

    Raises:
        InputError: another value, no package, a login, which its clients could not give, or see `tools.install`.
    """
    wanted = environment.get("STUDIO_MCP") or "0"
    if wanted not in ("0", "1"):
        raise InputError(f"STUDIO_MCP must be 0 or 1, got {wanted!r}: 1 offers the tabs as MCP tools")
    if wanted == "1" and importlib.util.find_spec("mcp") is None:
        raise InputError("STUDIO_MCP=1 needs the extra `mcp`, which is not installed: pip install 'mcp>=1.21,<2'")
    if wanted == "1" and environment.get("STUDIO_AUTH"):
        raise InputError("STUDIO_MCP=1 must be without STUDIO_AUTH, got both: MCP clients have no login, leave one out")
    if wanted == "1":
        from studio.ui import tools  # needs that package

        tools.install(environment)
    return wanted == "1"


def serve(models: Mapping[str, Any] | None = None) -> None:
    """Launch the app, load the models while the page can be looked at already, and stay until stopped.

    On a ZeroGPU Space the models come first: what is on the GPU at the launch is what the lent ones are given.
    When it is stopped, by Ctrl-C or a signal, what runs ends, and all uploads and results are deleted.

    Args:
        models: as `build` takes them.

    Raises:
        InputError: see `options`.
        CredentialsError: a certificate is set that cannot be read.
    """
    keep_freed_memory()
    own_certificate()
    settings = options(os.environ)
    loaded = {one.TITLE: as_lazy(models[one.TITLE]) if one.TITLE in (models or {}) else Lazy(one.load) for one in TABS}
    with suppress(KeyboardInterrupt), told_to_stop(), own_folder():
        app = build(loaded)
        try:
            if zero_gpu():
                preload(loaded.values())
            app.launch(prevent_thread_lock=True, **settings)
            preload(loaded.values())
            while app.is_running:
                time.sleep(LOOK)
        finally:
            with undisturbed():
                CLOSING.set()
                app.close()
    CLOSING.clear()  # another one may be served


def preload(models: Iterable[Lazy]) -> None:
    """Load what is not loaded yet; what fails is said on the page at the first use, where somebody reads it."""
    for model in models:
        with suppress(StudioError):
            model()
