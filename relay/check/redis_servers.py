"""What `relay check` reports about Redis servers that answer but may forget or lose data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.check.finding import Caution, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from relay.claims.redis.server_info import ServerInfo

_KEY = "store.url"
_OLDEST = (6, 2)
_SKEW = 2.0
"""Seconds by which clocks may differ."""


def findings(servers: Sequence[ServerInfo], url: str = "redis:") -> Iterator[Finding]:
    """Yields the faults of each server, and those between the servers. `url` is the value of `store.url`."""
    for server in servers:
        if server.clustered and not url.startswith("redis+cluster:"):
            yield Finding(
                _KEY,
                f"{server.name} is a node of a Cluster and takes a part of the claims only",
                "write redis+cluster://HOST:PORT in store.url",
            )
        if server.away:
            yield Caution(_KEY, f"{server.away}: mail whose claims belong there is forwarded without them", "start it")
        else:
            yield from _findings_of(server)
    yield from _findings_between(servers)


def _findings_of(server: ServerInfo) -> Iterator[Finding]:
    policy = server.eviction_policy
    if server.version and server.version < _OLDEST:
        number = ".".join(map(str, server.version))
        yield Finding(_KEY, f"{server.name} is Redis {number}, which cannot keep claims", "use Redis 6.2 or newer")
    if policy is None or server.persists is None:
        yield Caution(
            _KEY,
            f"{server.name} does not let this user read its CONFIG; whether it evicts or persists is not known",
            'see that maxmemory-policy is "noeviction" and persistence is on, or allow CONFIG GET for the check',
        )
    if policy not in (None, "noeviction"):
        why = " (all keys of the relay have an expiry, so it evicts them too)" if policy.startswith("volatile") else ""
        yield Caution(
            _KEY,
            f'{server.name} has maxmemory-policy "{policy}": when memory is short it forgets what was sent, and '
            f"repeats go through{why}",
            'write "maxmemory-policy noeviction" in its redis.conf, or run CONFIG SET maxmemory-policy noeviction; '
            "a full Redis then refuses, and mail is forwarded",
        )
    if server.persists is False:
        yield Caution(
            _KEY,
            f"{server.name} persists nothing: after its restart it knows only what running relays write back",
            'write "appendonly yes" in its redis.conf, or run CONFIG SET appendonly yes and CONFIG REWRITE',
        )
    if server.ahead and abs(server.ahead) > _SKEW:
        direction = "ahead of" if server.ahead > 0 else "behind"
        yield Caution(
            _KEY,
            f"the clock of {server.name} is {abs(server.ahead):.1f} s {direction} this host's",
            "let both follow the same time servers (NTP)",
        )


def _findings_between(servers: Sequence[ServerInfo]) -> Iterator[Finding]:
    clocks = sorted((server.ahead, server.name) for server in servers if server.ahead is not None)
    if clocks and clocks[-1][0] - clocks[0][0] > _SKEW:
        yield Caution(
            _KEY,
            f"the clock of {clocks[-1][1]} is {clocks[-1][0] - clocks[0][0]:.1f} s ahead of that of {clocks[0][1]}: "
            "windows change their length when keys move or a server takes over",
            "let all follow the same time servers (NTP)",
        )
