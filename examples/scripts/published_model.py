"""Restore by a checkpoint that others published: python published_model.py PHOTO RESULT.png [MODEL].

MODEL is a known name (`studio weights list --models`), a .pth file that you have, or owner/name on the Hub. Its licence
is its authors': CodeFormer's, for one, is for non-commercial use.
"""

import sys

from studio import RestorePipeline
from studio.images import save


def main(photo: str, result: str, model: str = "gfpgan-1.4") -> None:
    """The same steps as with our own restorer: finding, guard, tone, paste-back, report."""
    pipe = RestorePipeline.from_pretrained(model)
    output = pipe(photo, fidelity=0.5)
    save(output.photos[0], result)
    for face in output.reports[0]:
        print(f"face {face.index}: restored {face.restored}, identity distance {face.identity_distance}, {face.reason}")


if __name__ == "__main__":
    main(*sys.argv[1:])
