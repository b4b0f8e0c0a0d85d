"""Change one face, as often as you like after one search: python edit_face.py PHOTO RESULTS."""

import sys
from pathlib import Path

from studio import EditPipeline

CHANGES = {"smile": {"smile": 1.0}, "older": {"age": 70}, "glasses": {"glasses": 2.0}}


def main(photo: str, results: str, changes: dict[str, dict[str, float]] = CHANGES, steps: int = 40) -> None:
    """Units: docs/edit.md. The results are synthetic; `studio edit` also marks and signs them."""
    pipe = EditPipeline.from_pretrained("edit")
    prepared = pipe.prepare(photo, face=0, num_inference_steps=steps)  # the slow part, once
    Path(results).mkdir(parents=True, exist_ok=True)
    for name, change in changes.items():
        output = pipe(prepared, **change)
        output.images[0].save(Path(results) / f"{name}.png")
        report = output.reports[0]
        print(f"{name}: asked {report.asked}, identity distance {report.identity_distance:.2f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
