"""The web app as a whole: its tabs, its look, and how it is served."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.device import pick_device
from studio.errors import InputError, StudioError
from studio.ui import restore, upsample

if TYPE_CHECKING:
    from pipelines.restore import RestorePipeline
    from pipelines.upsample import UpsamplePipeline

HOUR = 3600
QUEUE = 20  # waiting visitors; the next one is told that the queue is full
MAX_UPLOAD = "40mb"

INTRODUCTION = """
# Face Studio

Restores the faces of old, small or damaged photographs. Photos stay on the machine that runs this page, and are
deleted from it one to two hours later.
"""

CSS = """
.gradio-container { width: 100%; max-width: 1280px !important; margin: 0 auto !important; }
.gradio-container { --color-accent: var(--primary-700); }
.gradio-container .main { width: 100%; }
.dark .gradio-container, .gradio-container.dark { --color-accent: var(--primary-400); }
.message { font-size: var(--text-lg); }
/* Two crops side by side: wide cells, one below the other on phones, captions in full. */
.pairs .thumbnail-lg { aspect-ratio: 2 / 1.3 !important; }
.pairs .caption-label { max-width: 100% !important; white-space: normal !important; }
.faces { overflow-x: auto; contain: inline-size; }  /* scrolls by itself: the page stays as wide as the screen */
.faces table { width: 100%; border-collapse: collapse; }
.faces caption { text-align: left; font-weight: 600; padding: 4px 8px; }
.faces th, .faces td { text-align: left; padding: 6px 8px; border: 0 solid var(--border-color-primary); }
.faces td { border-top-width: 1px !important; }
@media (max-width: 640px) {
  .pairs .grid-container { grid-template-columns: 1fr !important; }
  .faces table { font-size: var(--text-sm); }
}
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


def load_restore() -> RestorePipeline:
    """The committed restore pipeline, on the GPU where there is one."""
    from studio import RestorePipeline  # seconds of imports, which the page need not wait for

    return RestorePipeline.from_pretrained("restore", device=pick_device("auto"))


def load_upsample() -> UpsamplePipeline:
    """The upsample pipeline, on the GPU where there is one."""
    from studio import UpsamplePipeline

    return UpsamplePipeline.from_pretrained("upsample", device=pick_device("auto"))


def build(pipeline: RestorePipeline | Lazy | None = None) -> gr.Blocks:
    """The app, not yet launched.

    Args:
        pipeline: what the Restore tab runs; None loads the committed one at the first use.
    """
    if not isinstance(pipeline, Lazy):
        given = pipeline
        pipeline = Lazy(load_restore if given is None else lambda: given)
    with gr.Blocks(title="Face Studio", analytics_enabled=False, delete_cache=(HOUR, HOUR)) as app:
        gr.Markdown(INTRODUCTION)
        with gr.Tabs():
            with gr.Tab("Restore"):
                restore.tab(pipeline)
            with gr.Tab("Upsample"):
                upsample.tab(Lazy(load_upsample))
    app.queue(max_size=QUEUE, api_open=False)
    return app


def options(environment: Mapping[str, str]) -> dict[str, Any]:
    """What `launch` is given.

    Args:
        environment: STUDIO_HOST and STUDIO_PORT (default: this machine only, the first free port from 7860 on) and
            STUDIO_AUTH ("user:password", asked of every visitor) are read from it.

    Raises:
        InputError: a port that is none, or an STUDIO_AUTH of another form. The password is not repeated.
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
        "allowed_paths": [str(restore.EXAMPLES)],
        "max_file_size": MAX_UPLOAD,
        "enable_monitoring": False,
        "run_history": False,
        "footer_links": ["api", "settings"],
    }


def theme() -> gr.themes.Base:
    """Light and dark as the visitor's system says; system fonts, so that the page asks no other server for any."""
    return gr.themes.Soft(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="stone",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(  # darker than the theme's own, for a contrast of 4.5 to 1
        background_fill_primary="*neutral_50",  # gradio's `set` forgets this one
        block_label_text_color="*primary_800",
        block_title_text_color="*primary_800",
        block_label_background_fill_dark="*primary_800",
        block_title_background_fill_dark="*primary_800",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        button_secondary_background_fill_hover_dark="*primary_700",
        checkbox_label_background_fill_selected="*primary_700",
        checkbox_label_background_fill_selected_dark="*primary_700",
        link_text_color="*primary_800",
        link_text_color_dark="*primary_300",
    )


def serve() -> None:
    """Launch the app, load the pipeline while the page can be looked at already, and stay until stopped.

    Raises:
        InputError: see `options`.
    """
    pipeline = Lazy(load_restore)
    app = build(pipeline)
    app.launch(prevent_thread_lock=True, **options(os.environ))
    with suppress(StudioError):  # said on the page at the first use, where somebody reads it
        pipeline()
    app.block_thread()
