"""What `relay check` says of Redis servers that answer, and yet may forget or lose what they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.cli.finding import Caution, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from relay.claims.redis.server_info import ServerInfo

_KEY = "store.url"
_OLDEST = (6, 2)
_SKEW = 2.0
"""Seconds by which clocks may differ."""


def findings(servers: Sequence[ServerInfo], url: str = "redis:") -> Iterator[Finding]:
    """Give what is to be mended where `store.url` begins like this, server by server, and between them."""
    for server in servers:
        if server.clustered and not url.startswith("redis+cluster:"):
            yield Finding(
                _KEY,
                f"{server.name} is a node of a Cluster and takes a part of the claims only",
                "write redis+cluster://HOST:PORT in store.url",
            )
        if server.away:
            yield Caution(_KEY, f"{server.away}: who is asked about there is forwarded unasked", "start it")
        else:
            yield from _of_one(server)
    yield from _between(servers)


def _of_one(server: ServerInfo) -> Iterator[Finding]:
    if server.version and server.version < _OLDEST:
        number = ".".join(map(str, server.version))
        yield Finding(_KEY, f"{server.name} is Redis {number}, which cannot keep claims", "use Redis 6.2 or newer")
    if server.evicts is None or server.persists is None:
        yield Caution(
            _KEY,
            f"{server.name} does not let this user read its CONFIG; whether it evicts or persists is not known",
            'see that maxmemory-policy is "noeviction" and persistence is on, or allow CONFIG GET for the check',
        )
    if server.evicts not in (None, "noeviction"):
        why = "all our keys have an expiry, so it throws them away too" if server.evicts.startswith("volatile") else ""
        yield Caution(
            _KEY,
            f'{server.name} has maxmemory-policy "{server.evicts}": when memory is short it forgets what was sent, and '
            "repeats go through" + (f" ({why})" if why else ""),
            'write "maxmemory-policy noeviction" in its redis.conf, or say CONFIG SET maxmemory-policy noeviction; '
            "a full Redis then refuses, and mail is forwarded",
        )
    if server.persists is False:
        yield Caution(
            _KEY,
            f"{server.name} persists nothing: after its restart it knows only what running relays write back",
            'write "appendonly yes" in its redis.conf, or say CONFIG SET appendonly yes and CONFIG REWRITE',
        )
    if server.ahead and abs(server.ahead) > _SKEW:
        way = "ahead of" if server.ahead > 0 else "behind"
        yield Caution(
            _KEY,
            f"the clock of {server.name} is {abs(server.ahead):.1f} s {way} this host's",
            "let both follow the same time servers (NTP)",
        )


def _between(servers: Sequence[ServerInfo]) -> Iterator[Finding]:
    told = sorted((server.ahead, server.name) for server in servers if server.ahead is not None)
    if told and told[-1][0] - told[0][0] > _SKEW:
        yield Caution(
            _KEY,
            f"the clock of {told[-1][1]} is {told[-1][0] - told[0][0]:.1f} s ahead of that of {told[0][1]}: "
            "windows change their length when keys move or a server takes over",
            "let all follow the same time servers (NTP)",
        )
