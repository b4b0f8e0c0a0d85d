"""Face geometry: pure functions and one dataclass; no networks and no files."""
