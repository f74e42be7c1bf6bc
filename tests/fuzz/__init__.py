"""A fuzz target over parser, normaliser and rules. `run.py` drives it; docs/fuzzing.md says how."""
