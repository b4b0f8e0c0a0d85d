"""Training: nothing in pipelines or the app imports it."""
