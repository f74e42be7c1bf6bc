"""Redis on several servers, with a hand on them: a master that fails over, and a cluster that loses one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parts.ports import HOST
from parts.redis_cluster import RedisCluster
from parts.redis_sentinel import SentinelSet
from parts.waiting import block_until

if TYPE_CHECKING:
    from parts.redis_server import RedisServer


class FailingSentinels(SentinelSet):
    """All methods block for a moment."""

    @property
    def ports(self) -> set[int]:
        return {each.port for each in (*self.servers, *self.sentinels)}

    @property
    def masters(self) -> list[RedisServer]:
        return [self.master()]

    def fail_over(self) -> None:
        """Kill the master, wait until the replica has its place, and bring the other back as the new replica."""
        old = self.master()
        old.kill()
        self.wait_taken_over(old)

    def rejoin(self) -> None:
        """Bring back whoever was killed, as the replica of the new master."""
        for server in self.servers:
            if not server.running:
                server.start()
                with server.client() as client:
                    client.replicaof(HOST, str(self.master().port))  # the sentinels would take ten seconds
        block_until(self._ready, "a master and a replica in step", seconds=60)


class FailingCluster(RedisCluster):
    """All methods block for a moment."""

    @property
    def ports(self) -> set[int]:
        return {node.port for node in self.nodes}

    @property
    def masters(self) -> list[RedisServer]:
        return [node for node in self.nodes if node.running]

    def wait_agreed(self) -> None:
        """Wait until all run and agree on who holds what."""
        block_until(self._ready, "nodes that agree")
