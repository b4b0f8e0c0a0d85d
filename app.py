"""Opens the web app: `python app.py`, or `make app`. What it consists of is in `studio/ui/`."""

from __future__ import annotations

import sys

from studio.device import wait_quietly
from studio.errors import StudioError

if __name__ == "__main__":
    wait_quietly()  # before anything imports torch
    from studio.ui.app import serve

    try:
        serve()
    except StudioError as error:
        sys.exit(f"error: {error}")
