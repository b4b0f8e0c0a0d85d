"""Restore every photograph of a folder: python restore_folder.py PHOTOS RESULTS."""

import sys
from pathlib import Path
from typing import Any

from studio import RestorePipeline
from studio.folders import find_images
from studio.images import save
from studio.memory import keep_freed_memory


def main(photos: str, results: str, **settings: Any) -> None:
    """One line for each photo; `settings` are arguments of the pipeline, such as fidelity=0.7."""
    keep_freed_memory()  # a third less time on a CPU
    pipe = RestorePipeline.from_pretrained("restore")
    folder = Path(results)
    folder.mkdir(parents=True, exist_ok=True)
    for path in find_images([photos]):
        output = pipe(path, **settings)
        save(output.photos[0], folder / path.name)
        for face in output.reports[0]:
            print(f"{path.name}, face {face.index}: {face.reason or f'identity distance {face.identity_distance:.2f}'}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
