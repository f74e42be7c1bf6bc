"""Breaks everything around the relay and within it, and counts the mail that arrives. See `docs/reliability.md`."""
