"""The reference of the Python names as a site that needs no network: `python docs/reference.py build/docs`.

Made by pdoc out of the docstrings (extra `docs`). Left out are commands and tabs (`studio COMMAND --help`,
docs/app.md), trainings, benchmarks and the parts of file formats.
"""

from __future__ import annotations

import pkgutil
import sys
from pathlib import Path

import pdoc
import pdoc.render

import studio

LEFT_OUT = ("studio.cli", "studio.ui", "studio.training", "studio.benchmarks", "studio.codecs")


def modules() -> list[str]:
    """Dotted names of what the site describes; `studio` comes first and shows the public names.

    pdoc adds the modules of a package by itself; where the package names what is public (`__all__`), those alone.
    """
    found = ["studio", "pipelines"]
    for info in pkgutil.walk_packages(studio.__path__, "studio."):
        package, _, name = info.name.rpartition(".")
        if not info.name.startswith(LEFT_OUT) and name not in getattr(sys.modules[package], "__all__", [name]):
            found.append(info.name)
    return found


def build(folder: Path, *names: str) -> None:
    """Write the site: index.html, a page for each module, and an index to search in.

    Args:
        folder: new, or an earlier site; its pages are replaced.
        names: of modules; without any, all of `modules`.
    """
    for name in studio.__all__:
        getattr(studio, name)  # public names are resolved on first use, and pdoc looks at what is there
    pdoc.render.configure(docformat="google", show_source=False, footer_text=f"face-studio {studio.__version__}")
    pdoc.pdoc(*(names or modules()), output_directory=folder)


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else "build/docs"))
