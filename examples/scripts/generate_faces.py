"""Draw people who do not exist: python generate_faces.py RESULTS.

Given photos of a person who agreed to it, and consent=True, the pipeline draws that person.
"""

import sys
from pathlib import Path
from typing import Any

import torch

from studio import GeneratePipeline, images
from studio.watermark import embed


def main(results: str, count: int = 4, seed: int = 1, **settings: Any) -> None:
    """`settings` are arguments of the pipeline, such as yaw=20 or smile=1."""
    pipe = GeneratePipeline.from_pretrained("generate")
    generator = torch.Generator().manual_seed(seed)
    output = pipe(num_images_per_prompt=count, generator=generator, output_type="pt", **settings)
    Path(results).mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(output.images):
        marked = embed(picture, "generate")  # an invisible mark: `studio verify` finds it
        images.save(marked, Path(results) / f"person-{index}.png")
    print(f"{count} people who do not exist, in {results}")


if __name__ == "__main__":
    main(sys.argv[1])
