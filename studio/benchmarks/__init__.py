"""Measurements that others can repeat: each `run` returns plain data with its provenance, ready for JSON."""
