"""Tell whether two photographs show the same person, and how often that is wrong: python compare_photos.py A B."""

import sys

from studio import compare_faces


def main(first: str, second: str) -> None:
    """No evidence of who somebody is: the sentence says how often such a distance was wrong."""
    comparison = compare_faces(first, second)
    print(comparison.sentence)
    print(f"distance {comparison.distance:.2f}; below 0.6 counts as the same person")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
