"""Reads and ages what Redis holds for the relays, server by server. The functions block for a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis
    from parts.redis_server import RedisServer

CLAIMS = "smtp-dedup:v*"
"""Keys of fingerprints."""


def claims(client: redis.Redis) -> list[bytes]:
    """Returns the keys that hold a claim or an acceptance."""
    return list(client.scan_iter(match=CLAIMS, count=1000))


def held(servers: Iterable[RedisServer]) -> dict[str, int]:
    """Returns the keys that are held, with the milliseconds that their leases have left."""
    found: dict[str, int] = {}
    for server in servers:
        with server.client() as client:
            keys = [key for key, value in _values(client) if value.startswith(b"h")]
            found |= {key.decode(): client.pttl(key) for key in keys}
    return found


def sent(servers: Iterable[RedisServer]) -> int:
    """Returns the number of acceptances."""
    count = 0
    for server in servers:
        with server.client() as client:
            count += sum(value.startswith(b"s") for _, value in _values(client))
    return count


def age(servers: Iterable[RedisServer], seconds: float) -> None:
    """Simulates that time passes, by shortening the remaining time of all keys."""
    for server in servers:
        with server.client() as client:
            for key in client.scan_iter(count=1000):
                client.pexpire(key, max(1, client.pttl(key) - int(seconds * 1000)))


def keys(servers: Iterable[RedisServer]) -> dict[str, int]:
    """Returns all keys, with the milliseconds that each has left (-1: no expiry)."""
    return {key: left for server in servers for key, left in server.keys().items()}


def _values(client: redis.Redis) -> list[tuple[bytes, bytes]]:
    """Returns the keys with their values, without keys of another type than string."""
    found = claims(client)
    with client.pipeline(transaction=False) as pipeline:
        for key in found:
            pipeline.get(key)
        answers = pipeline.execute(raise_on_error=False)
    return [(key, value) for key, value in zip(found, answers, strict=True) if isinstance(value, bytes)]
