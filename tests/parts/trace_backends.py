"""The stores of traces that the contract tests run on. A test can move the time of each."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Protocol

from parts.redis_cluster import shared_cluster
from parts.redis_server import RedisServer, redis_servers
from relay.trace.memory import MemoryTraceStore
from relay.trace.redis import RedisTraceStore
from relay.trace.segments import Limits
from relay.trace.sqlite import SqliteTraceStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from relay.core.trace import TraceStore

NAMES = ("memory", "sqlite", "redis", "cluster")
LIMITS = Limits(keep_for=30 * 86400.0, size=100 << 20)
START = 1_700_000_000.0
_TIMEOUT = 60.0
"""Seconds. Nothing fails here: a slow answer means that the machine is busy."""


class TraceBackend(Protocol):
    """One server, file or list."""

    now: float
    """The wall clock of all stores on it."""

    def store(self, limits: Limits = LIMITS) -> TraceStore:
        """Returns another store on the same data, as another process would open it."""

    def clear(self) -> None:
        """Deletes all data."""


class _Memory:
    def __init__(self) -> None:
        self.clear()

    def store(self, limits: Limits = LIMITS) -> TraceStore:
        self._store.limits = limits
        return self._store

    def clear(self) -> None:
        self.now = START
        self._store = MemoryTraceStore(LIMITS, lambda: self.now)


class _Sqlite:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self.clear()

    def store(self, limits: Limits = LIMITS) -> TraceStore:
        return SqliteTraceStore(self.path, limits, now=lambda: self.now)

    def clear(self) -> None:
        self.now = START
        self.path = self._folder / f"trace-{next(self._numbers)}.db"


class _Redis:
    """Redis deletes by its own clock. What is too old is not found before that."""

    def __init__(self, url: str, servers: Sequence[RedisServer]) -> None:
        self._servers = redis_servers(url)
        self._processes = servers
        self.now = START

    def store(self, limits: Limits = LIMITS) -> TraceStore:
        return RedisTraceStore(self._servers, limits, timeout=_TIMEOUT, now=lambda: self.now)

    def clear(self) -> None:
        self.now = START
        for server in self._processes:
            server.flush()


@contextlib.contextmanager
def trace_backend(name: str, folder: Path) -> Iterator[TraceBackend]:
    """Yields the backend with this name, one of NAMES."""
    match name:
        case "memory":
            yield _Memory()
        case "sqlite":
            yield _Sqlite(folder)
        case "redis":
            with RedisServer() as server:
                yield _Redis(server.url, [server])
        case "cluster":
            cluster = shared_cluster()
            cluster.ready()
            with cluster.patient():
                yield _Redis(cluster.url, cluster.nodes)
