"""A real Redis that can be made to refuse in each way that Redis has."""

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
    """A Redis server with faults. The methods block for a moment."""

    def load_slowly(self, key_delay: int) -> None:
        """Saves, kills and starts the server so that it is LOADING for `key_delay` microseconds a key."""
        with self.client() as client:
            client.save()
        self.kill()
        options = {"port": str(self.port), "bind": HOST, "dir": self._home.name, "logfile": str(self.log), "save": ""}
        options["key-load-delay"] = str(key_delay)
        options["loading-process-events-interval-bytes"] = "1024"
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        self._process = subprocess.Popen(["redis-server", *words], env={"PATH": os.environ["PATH"], "LC_ALL": "C"})

    def wait_loaded(self) -> None:
        block_until(self._answers, "an answer of redis-server", seconds=60)

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Makes it the replica of a server that does not exist."""
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
        """Leaves `room` bytes of memory; when it is full, Redis evicts any key."""
        with self.client() as client:
            used = client.info("memory")["used_memory"]
        with (
            self._set("maxmemory-policy", "allkeys-random", "noeviction"),
            self._set("maxmemory", str(used + room), "0"),
        ):
            yield

    def evicted(self) -> int:
        """Returns how many keys it has evicted."""
        with self.client() as client:
            return int(client.info("stats")["evicted_keys"])

    @contextlib.contextmanager
    def with_password(self) -> Iterator[None]:
        """Requires a password that the relays do not have."""
        with self.client() as client:
            client.config_set("requirepass", "secret")
            client.client_kill_filter(_type="normal", skipme=True)
            yield
            client.config_set("requirepass", "")

    def spoil(self, share: float, chance: object) -> int:
        """Replaces a share of the claims by lists."""
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
