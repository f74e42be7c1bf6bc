"""What an operator should know of a Redis server: how it evicts, whether it persists, and what time it has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.core.claim import Unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.claims.redis.commands import Request

REQUESTS: Sequence[Request] = (
    ("TIME",),
    ("INFO", "server"),
    ("CONFIG", "GET", "maxmemory-policy"),
    ("CONFIG", "GET", "save"),
    ("CONFIG", "GET", "appendonly"),
)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """One server. None stands for what it does not tell."""

    name: str
    away: str = ""
    """Why it does not answer; then nothing else is known."""
    ahead: float | None = None
    """Seconds by which its clock is surely ahead of this host's; negative where it is behind."""
    version: tuple[int, ...] | None = None
    evicts: str | None = None
    """Its maxmemory-policy."""
    persists: bool | None = None
    clustered: bool = False
    """Whether it is a node of a Cluster, and holds a part of the keys only."""


def read(name: str, replies: Sequence[object] | Unknown, before: float, after: float) -> ServerInfo:
    """Read the replies to `REQUESTS`, asked and answered between these two moments by this host's clock."""
    match replies:
        case Unknown(reason):
            return ServerInfo(name, away=reason)
        case [time, info, policy, save, append]:
            saves, appends = _value(save), _value(append)
            known = saves is not None and appends is not None
            persists = bool(saves) or appends == "yes" if known else None
            clustered = isinstance(info, bytes) and b"redis_mode:cluster" in info
            return ServerInfo(
                name, "", _ahead(time, before, after), _version(info), _value(policy), persists, clustered
            )
    raise ValueError(f"{len(replies)} replies")


def _ahead(told: object, before: float, after: float) -> float | None:
    match told:
        case [bytes(seconds), bytes(microseconds)]:
            now = int(seconds) + int(microseconds) / 1e6
            return max(0.0, now - after) + min(0.0, now - before)
    return None


def _version(info: object) -> tuple[int, ...] | None:
    # Valkey gives the version of the Redis that it is compatible with.
    found = re.search(rb"^redis_version:([0-9.]+)", info, re.MULTILINE) if isinstance(info, bytes) else None
    return tuple(int(number) for number in found[1].split(b".") if number) if found else None


def _value(told: object) -> str | None:
    match told:
        case [_, bytes(value)]:
            return value.decode("utf-8", "replace")
    return None
