"""The stores that the contract tests run on. A test can move the time of each."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Protocol

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from parts.redis_cluster import shared_cluster
from parts.redis_sentinel import shared_sentinels
from parts.redis_server import RedisServer, redis_store
from relay.claims.memory import MemoryStore
from relay.claims.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from relay.core.store import Store

NAMES = ("memory", "sqlite", "redis", "sentinel", "cluster")
_TIMEOUT = 60.0
"""Seconds. Nothing fails here: a slow answer means that the machine is busy."""


class Backend(Protocol):
    """One server, file or dict."""

    def store(self) -> Store:
        """Returns another store on the same data, as another process would open it."""

    def advance(self, seconds: float) -> None:
        """Lets time pass for the data."""

    def clear(self) -> None:
        """Deletes all data, for the next example."""


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
    """Redis has its own clock. To let time pass, this shortens the keys' remaining time."""

    def __init__(self, url: str, servers: Sequence[RedisServer]) -> None:
        self._url = url
        self._servers = servers

    def store(self) -> Store:
        return redis_store(self._url, timeout=_TIMEOUT)

    def advance(self, seconds: float) -> None:
        for server in self._servers:
            self._advance(server, int(seconds * 1000))

    def _advance(self, server: RedisServer, ms: int) -> None:
        with server.client() as client:
            left = {key: client.pttl(key) - ms for key in client.scan_iter()}
            for key, rest in left.items():
                client.pexpire(key, rest)

    def clear(self) -> None:
        for server in self._servers:
            server.flush()


@contextlib.contextmanager
def backend(name: str, folder: Path) -> Iterator[Backend]:
    """Yields the backend with this name, one of NAMES."""
    match name:
        case "memory":
            yield _Memory()
        case "sqlite":
            yield _Sqlite(folder)
        case "redis":
            with RedisServer() as server:
                yield _Redis(server.url, [server])
        case "sentinel":
            sentinels = shared_sentinels()
            sentinels.ready()
            yield _Redis(sentinels.url, [sentinels.master()])
        case "cluster":
            cluster = shared_cluster()
            cluster.ready()
            with cluster.patient():
                yield _Redis(cluster.url, cluster.nodes)


def run_machine(machine: Callable[[Backend], RuleBasedStateMachine], name: str, folder: Path, examples: int) -> None:
    """Runs a state machine on a backend. Examples are shortened on memory only: on a server that takes minutes."""
    shortens = name == "memory"
    with backend(name, folder) as each:
        run_state_machine_as_test(
            lambda: machine(each),
            settings=settings(
                max_examples=examples,
                stateful_step_count=25,
                deadline=None,
                phases=[Phase.explicit, Phase.generate, Phase.shrink] if shortens else [Phase.generate],
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
