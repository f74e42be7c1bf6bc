"""What is done to the relay, a file for each kind of harm. Importing this enters all scenarios."""

from faults.scenarios import (
    clocks,
    redis_at_scale,
    redis_fails,
    relay_dies,
    several_upstreams,
    soak,
    sqlite_fails,
    starved,
    storms,
    upstream_fails,
)

__all__ = [
    "clocks",
    "redis_at_scale",
    "redis_fails",
    "relay_dies",
    "several_upstreams",
    "soak",
    "sqlite_fails",
    "starved",
    "storms",
    "upstream_fails",
]
