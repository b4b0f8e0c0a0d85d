"""Make a photograph move by a motion that is made up: python reenact_photo.py PHOTO VIDEO.mp4 (extra `video`).

The person of the photo must have agreed to it. `studio reenact` also marks and signs the video.
"""

import sys

from studio import ReenactPipeline
from studio.motion.synthesis import synthesise


def main(photo: str, video: str, seconds: float = 4, fps: float = 25) -> None:
    """Look around, smile, and say hello."""
    motion = synthesise(seconds=seconds, fps=fps, yaw=(0, 25, -25, 0), smile=(0, 1), talk="hello there", seed=1)
    pipe = ReenactPipeline.from_pretrained("reenact")
    output = pipe(photo, motion, consent=True, face=0, output=video, overwrite=True)
    print(output.path, output.report.summary())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
