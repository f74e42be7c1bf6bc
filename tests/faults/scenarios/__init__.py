"""The scenarios, one file for each kind of fault. Importing this package registers all of them."""

from faults.scenarios import (
    clocks,
    limited_upstreams,
    postfix_in_front,
    redis_at_scale,
    redis_fails,
    relay_dies,
    resources,
    several_upstreams,
    soak,
    sqlite_fails,
    starved,
    storms,
    tls_and_logins,
    traces_fail,
    upstream_fails,
)

__all__ = [
    "clocks",
    "limited_upstreams",
    "postfix_in_front",
    "redis_at_scale",
    "redis_fails",
    "relay_dies",
    "resources",
    "several_upstreams",
    "soak",
    "sqlite_fails",
    "starved",
    "storms",
    "tls_and_logins",
    "traces_fail",
    "upstream_fails",
]
