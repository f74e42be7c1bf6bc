"""A fuzz target for the judge, and its driver `run.py`. docs/fuzzing.md explains both."""
