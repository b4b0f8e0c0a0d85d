"""Opens the web app: `python app.py`, or `make app`. What it consists of is in `studio/ui/`."""

from __future__ import annotations

import sys

from studio.errors import StudioError
from studio.ui.app import serve

if __name__ == "__main__":
    try:
        serve()
    except StudioError as error:
        sys.exit(f"error: {error}")
