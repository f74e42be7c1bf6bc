"""A master, a replica, and three sentinels that promote the replica."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Self

import redis

from parts.ports import HOST, answers, free_port
from parts.redis_server import RedisServer
from parts.waiting import LONGEST, block_until

SERVICE = "claims"
_DOWN_AFTER_MS = 500
_NEVER_DOWN_MS = 600_000
_CONFIG = f"""
bind {HOST}
port {{port}}
dir {{home}}
logfile {{home}}/sentinel.log
sentinel monitor {SERVICE} {HOST} {{master}} 2
sentinel down-after-milliseconds {SERVICE} {_NEVER_DOWN_MS}
sentinel failover-timeout {SERVICE} 3000
"""


class _Sentinel:
    """One sentinel, which watches the server at the port `master`."""

    def __init__(self, master: int) -> None:
        self.port = free_port()
        self._home = tempfile.TemporaryDirectory(prefix="relay-sentinel-")
        config = Path(self._home.name, "sentinel.conf")
        config.write_text(_CONFIG.format(port=self.port, home=self._home.name, master=master))
        self.process = subprocess.Popen(
            ["redis-server", str(config), "--sentinel"], env={"PATH": os.environ["PATH"], "LC_ALL": "C"}
        )
        block_until(lambda: answers(self.port), "a sentinel that listens")

    def client(self) -> redis.Redis:
        """Returns a connection to the sentinel."""
        return redis.Redis(HOST, self.port, socket_timeout=LONGEST)

    def close(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        self._home.cleanup()


class SentinelSet:
    """The five processes. The methods block for a moment."""

    def __init__(self) -> None:
        self.servers = [RedisServer(), RedisServer()]
        self.sentinels: list[_Sentinel] = []
        self.url = ""

    def __enter__(self) -> Self:
        for server in self.servers:
            server.start()
        first, second = self.servers
        with second.client() as client:
            client.replicaof(HOST, str(first.port))
        self.sentinels = [_Sentinel(first.port) for _ in range(3)]
        self.url = f"redis+sentinel://{','.join(f'{HOST}:{each.port}' for each in self.sentinels)}/{SERVICE}"
        block_until(self._ready, "sentinels that know each other and the replica", seconds=60)
        return self

    def __exit__(self, *_: object) -> None:
        for sentinel in self.sentinels:
            sentinel.close()
        for server in self.servers:
            server.close()

    def ready(self) -> None:
        """Waits until both servers run empty, one as the master that all sentinels name, the other as its replica."""
        for server in self.servers:
            if server.running:
                server.resume()
            else:
                server.start()
        master = self.master()
        for server in self.servers:
            if server is not master:
                with server.client() as client:
                    client.replicaof(HOST, str(master.port))  # the sentinels would need ten seconds
        block_until(self._ready, "a master and a replica in step", seconds=60)
        self.master().flush()

    def _set_down_after(self, milliseconds: int) -> None:
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                client.sentinel_set(SERVICE, "down-after-milliseconds", milliseconds)

    def master(self) -> RedisServer:
        """Returns the server that most sentinels name."""
        ports = sorted(self._named())
        [server] = [server for server in self.servers if server.port == ports[len(ports) // 2]]
        return server

    def wait_taken_over(self, old: RedisServer) -> None:
        """Lets the sentinels notice that `old` is down; waits until all name another master, and it confirms that.

        At all other times the sentinels are patient, so that a slow server on a busy machine does not count as down.
        """
        self._set_down_after(_DOWN_AFTER_MS)
        block_until(
            lambda: (
                set(self._named()) == {s.port for s in self.servers if s is not old}
                and _role(self.master()) == b"master"
            ),
            "the replica in the master's place",
            seconds=60,
        )
        self._set_down_after(_NEVER_DOWN_MS)

    def _named(self) -> list[int]:
        ports = []
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                ports.append(int(client.sentinel_get_master_addr_by_name(SERVICE)[1]))
        return ports

    def _ready(self) -> bool:
        named = set(self._named())
        if len(named) != 1:
            return False
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                state = client.sentinel_master(SERVICE)
                replicas = client.sentinel_slaves(SERVICE)
            if state["num-other-sentinels"] != 2 or state["flags"] != "master":
                return False
            if [replica["flags"] for replica in replicas] != ["slave"]:
                return False
        with self.master().client() as client:
            followers = client.info("replication")
        return bool(followers["role"] == "master" and followers.get("slave0", {}).get("state") == "online")


@cache
def shared_sentinels() -> SentinelSet:
    """Returns a set that runs as long as the tests do. Call `ready` before each use."""
    shared = SentinelSet().__enter__()
    atexit.register(shared.__exit__)
    return shared


def _role(server: RedisServer) -> bytes:
    with server.client() as client:
        role = client.execute_command("ROLE")
    return bytes(role[0])
