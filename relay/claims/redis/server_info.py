"""What an operator should know of a Redis server: its eviction policy, its persistence and its clock."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.claims.redis.connection import INFO, TIME, seconds_of
from relay.core.claim import Unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.claims.redis.commands import Request

REQUESTS: Sequence[Request] = (
    TIME,
    INFO,
    ("CONFIG", "GET", "maxmemory-policy"),
    ("CONFIG", "GET", "save"),
    ("CONFIG", "GET", "appendonly"),
)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """One server. None: the server does not say, for example because the user may not ask."""

    name: str
    away: str = ""
    """Why the server does not answer; then nothing else is known."""
    ahead: float | None = None
    """Seconds by which the server's clock is at least ahead of this host's; negative if it is behind."""
    version: tuple[int, ...] | None = None
    eviction_policy: str | None = None
    """Its maxmemory-policy."""
    persists: bool | None = None
    clustered: bool = False
    """Whether the server is a node of a Cluster, and so holds only a part of the keys."""


def read(name: str, replies: Sequence[object] | Unknown, before: float, after: float) -> ServerInfo:
    """Reads the replies to `REQUESTS`, which were sent and answered between two moments by this host's clock."""
    if isinstance(replies, Unknown):
        return ServerInfo(name, away=replies.reason)
    time, info, policy, save, append = replies
    saves, appends = _value(save), _value(append)
    return ServerInfo(
        name,
        ahead=_ahead(seconds_of(time), before, after),
        version=_version(info),
        eviction_policy=_value(policy),
        persists=None if saves is None or appends is None else bool(saves) or appends == "yes",
        clustered=isinstance(info, bytes) and b"redis_mode:cluster" in info,
    )


def _ahead(now: float | None, before: float, after: float) -> float | None:
    return None if now is None else max(0.0, now - after) + min(0.0, now - before)


def _version(info: object) -> tuple[int, ...] | None:
    # Valkey reports the version of Redis that it is compatible with.
    found = re.search(rb"^redis_version:([0-9.]+)", info, re.MULTILINE) if isinstance(info, bytes) else None
    return tuple(int(number) for number in found[1].split(b".") if number) if found else None


def _value(reply: object) -> str | None:
    match reply:
        case [_, bytes(value)]:
            return value.decode("utf-8", "replace")
    return None
