"""One file for each task that a user can name."""
