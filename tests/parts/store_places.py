"""Places where claims are kept, with a hand on their time: what the tests of the store contract run on."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Protocol

from parts.redis_server import RedisServer
from relay.claims.memory import MemoryStore
from relay.claims.redis import RedisStore
from relay.claims.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from relay.core.claim import Store

NAMES = ("memory", "sqlite", "redis")


class Place(Protocol):
    """One file, one server, one dict."""

    def store(self) -> Store:
        """Give one more store at this place, as another process would have it."""

    def advance(self, seconds: float) -> None:
        """Let time pass for what is kept here."""

    def clear(self) -> None:
        """Forget all; for the next example."""


class _Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class _Memory:
    def __init__(self) -> None:
        self._clock = _Clock()
        self.clear()

    def store(self) -> Store:
        return self._store

    def advance(self, seconds: float) -> None:
        self._clock.now += seconds

    def clear(self) -> None:
        self._store = MemoryStore(self._clock)


class _Sqlite:
    def __init__(self, folder: Path) -> None:
        self._clock = _Clock()
        self._folder = folder
        self._numbers = itertools.count()
        self.clear()

    def store(self) -> Store:
        return SqliteStore(self._path, clock=self._clock)

    def advance(self, seconds: float) -> None:
        self._clock.now += seconds

    def clear(self) -> None:
        self._path = self._folder / f"claims-{next(self._numbers)}.db"


class _Redis:
    """Redis has its own clock; to let time pass is to shorten what the keys have left."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    def store(self) -> Store:
        return RedisStore(self._server.url)

    def advance(self, seconds: float) -> None:
        with self._server.client() as client:
            for key in client.scan_iter():
                client.pexpire(key, client.pttl(key) - int(seconds * 1000))

    def clear(self) -> None:
        self._server.flush()


@contextlib.contextmanager
def place(name: str, folder: Path) -> Iterator[Place]:
    """Give the place of this name."""
    match name:
        case "memory":
            yield _Memory()
        case "sqlite":
            yield _Sqlite(folder)
        case "redis":
            with RedisServer() as server:
                yield _Redis(server)
