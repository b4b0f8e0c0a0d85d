"""Change one face, as often as you like after one search: python edit_face.py PHOTO RESULTS."""

import sys
from pathlib import Path

from studio import images
from studio.latents.photo_editor import PhotoEditor

CHANGES = {"smile": {"smile": 1.0}, "older": {"age": 70}, "glasses": {"glasses": 2.0}}


def main(photo: str, results: str, changes: dict[str, dict[str, float]] = CHANGES, steps: int = 40) -> None:
    """Units: docs/edit.md. The results are synthetic; `studio edit` also marks and signs them."""
    editor = PhotoEditor.from_pretrained()
    face = editor.find(images.load(photo), face=0, steps=steps)  # the slow part, once
    Path(results).mkdir(parents=True, exist_ok=True)
    for name, change in changes.items():
        edited, _, report = editor.edit(face, change)
        images.save(edited, Path(results) / f"{name}.png")
        print(f"{name}: asked {report.asked}, identity distance {report.identity_distance:.2f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
