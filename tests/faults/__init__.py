"""Break everything around the relay and within it, count at the receiving end. See `docs/reliability.md`."""
