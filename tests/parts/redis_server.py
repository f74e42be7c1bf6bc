"""A real Redis server for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from parts.ports import HOST, free_port
from parts.waiting import LONGEST, block_until
from relay.claims.redis.store import RedisStore
from relay.settings.urls import RedisUrl, parse_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.claims.redis.servers import RedisServers


def redis_store(url: str, **options: Any) -> RedisStore:
    """Returns the store that a URL names."""
    return RedisStore(redis_servers(url), **options)


def redis_servers(url: str) -> RedisServers:
    """Returns the servers that a URL names."""
    parsed = parse_store(url)
    assert isinstance(parsed, RedisUrl)
    return parsed.servers


class RedisServer:
    """A server that keeps its port or socket, however often it is killed and started.

    The methods block for a moment. If other work of the event loop must go on, use `asyncio.to_thread`.
    """

    def __init__(self, *, unix: bool = False, persist: bool = False, options: Mapping[str, str] | None = None) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="relay-redis-")
        self._persist = persist
        self._options = dict(options or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0 if unix else free_port()
        self.socket = Path(self._home.name, "redis.sock")
        self.url = f"unix://{self.socket}" if unix else f"redis://{HOST}:{self.port}/0"
        self.log = Path(self._home.name, "redis.log")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the server and waits until it answers. Its data are there again if it persists."""
        options = {
            "port": str(self.port),
            "bind": HOST,
            "unixsocket": str(self.socket),
            "dir": self._home.name,
            "logfile": str(self.log),
            "save": "",
            "appendonly": "yes" if self._persist else "no",
            "appendfsync": "always",
        } | self._options
        arguments = [word for key, value in options.items() for word in (f"--{key}", value)]
        self._process = subprocess.Popen(["redis-server", *arguments], env={"PATH": os.environ["PATH"], "LC_ALL": "C"})
        block_until(self._answers, "an answer of redis-server", seconds=60)

    def stop(self) -> None:
        """Ends it by SIGTERM."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it by SIGKILL."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kills it and starts it again on the same port or socket."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Stops the process: the kernel still accepts connections, but nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continues the process, with all requests that arrived meanwhile."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Ends it and deletes its data."""
        self.kill()
        self._home.cleanup()

    def flush(self) -> None:
        """Deletes all keys."""
        with self.client() as client:
            client.flushall()

    def keys(self) -> dict[str, int]:
        """Returns its keys with the milliseconds that each has left (-1: no expiry)."""
        with self.client() as client:
            return {key.decode(): client.pttl(key) for key in client.scan_iter()}

    def client(self) -> redis.Redis:
        """Returns a connection that does not retry."""
        return redis.Redis.from_url(self.url, retry=Retry(NoBackoff(), 0), socket_timeout=LONGEST)

    def _answers(self) -> bool:
        if not self.running:
            raise RuntimeError(f"redis-server ended at its start:\n{self.log.read_text()}")
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None or not self.running:
            raise RuntimeError("redis-server does not run")
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self.running:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
        self._process.wait(timeout=LONGEST)
        self._process = None
