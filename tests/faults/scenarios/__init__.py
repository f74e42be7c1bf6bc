"""What is done to the relay, a file for each kind of harm. Importing this enters all scenarios."""

from faults.scenarios import redis_fails, relay_dies, soak, sqlite_fails, starved, storms, upstream_fails

__all__ = ["redis_fails", "relay_dies", "soak", "sqlite_fails", "starved", "storms", "upstream_fails"]
