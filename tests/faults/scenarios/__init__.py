"""The scenarios, one file for each kind of fault. Importing this package registers all of them."""

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
