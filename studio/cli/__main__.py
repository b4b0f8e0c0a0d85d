"""`python -m studio.cli`: the same as `studio`."""

from studio.cli import main

if __name__ == "__main__":
    main()
