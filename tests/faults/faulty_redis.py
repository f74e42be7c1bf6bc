"""A real Redis that can be made to refuse in each of its own ways."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

from parts.ports import HOST, free_port
from parts.redis_server import RedisServer
from parts.waiting import block_until

from faults.in_redis import claims

if TYPE_CHECKING:
    from collections.abc import Iterator


class FaultyRedis(RedisServer):
    """All methods block for a moment."""

    def load_slowly(self, key_delay: int) -> None:
        """Write all down, kill it, and start it so that it is LOADING for a while: `key_delay` microseconds a key."""
        with self.client() as client:
            client.save()
        self.kill()
        options = {"port": str(self.port), "bind": HOST, "dir": self._home.name, "logfile": str(self.log), "save": ""}
        options["key-load-delay"] = str(key_delay)
        options["loading-process-events-interval-bytes"] = "1024"
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        self._process = subprocess.Popen(["redis-server", *words], env={"PATH": os.environ["PATH"], "LC_ALL": "C"})

    def wait_loaded(self) -> None:
        block_until(self._answers, "an answer of redis-server", seconds=30)

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Make it the replica of a server that is not there."""
        with self.client() as client:
            client.replicaof(HOST, free_port())
            yield
            client.replicaof("NO", "ONE")

    @contextlib.contextmanager
    def out_of_memory(self) -> Iterator[None]:
        with self._set("maxmemory", "1", "0"):
            yield

    @contextlib.contextmanager
    def evicting(self, room: int) -> Iterator[None]:
        """Leave room for so many octets more, and throw any key away when it is full."""
        with self.client() as client:
            used = client.info("memory")["used_memory"]
        with (
            self._set("maxmemory-policy", "allkeys-random", "noeviction"),
            self._set("maxmemory", str(used + room), "0"),
        ):
            yield

    def evicted(self) -> int:
        """Count the keys that it has thrown away."""
        with self.client() as client:
            return int(client.info("stats")["evicted_keys"])

    @contextlib.contextmanager
    def with_password(self) -> Iterator[None]:
        """Ask for a password that nobody was told."""
        with self.client() as client:
            client.config_set("requirepass", "secret")
            client.client_kill_filter(_type="normal", skipme=True)
            yield
            client.config_set("requirepass", "")

    def spoil(self, share: float, chance: object) -> int:
        """Put a list in place of a share of what it holds."""
        count = 0
        with self.client() as client:
            for key in claims(client):
                if chance.random() < share:  # type: ignore[attr-defined]
                    with client.pipeline() as pipeline:
                        pipeline.delete(key)
                        pipeline.lpush(key, "not a claim")
                        pipeline.pexpire(key, 3_600_000)
                        pipeline.execute()
                    count += 1
        return count

    @contextlib.contextmanager
    def _set(self, name: str, value: str, usual: str) -> Iterator[None]:
        with self.client() as client:
            client.config_set(name, value)
            yield
            client.config_set(name, usual)
