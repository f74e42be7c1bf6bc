"""Redis on several servers that the scenarios can make fail: Sentinel with a failover, a Cluster that loses a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parts.ports import HOST
from parts.redis_cluster import RedisCluster
from parts.redis_sentinel import SentinelSet
from parts.waiting import block_until

if TYPE_CHECKING:
    from parts.redis_server import RedisServer


class FailingSentinels(SentinelSet):
    """Sentinel, with a master that can fail over. The methods block for a moment."""

    @property
    def ports(self) -> set[int]:
        return {each.port for each in (*self.servers, *self.sentinels)}

    @property
    def masters(self) -> list[RedisServer]:
        return [self.master()]

    def fail_over(self) -> None:
        """Kills the master and waits until the replica has been promoted."""
        old = self.master()
        old.kill()
        self.wait_taken_over(old)

    def rejoin(self) -> None:
        """Starts the server that was killed again, as a replica of the new master."""
        for server in self.servers:
            if not server.running:
                server.start()
                with server.client() as client:
                    client.replicaof(HOST, str(self.master().port))  # the sentinels would need ten seconds
        block_until(self._ready, "a master and a replica in step", seconds=60)


class FailingCluster(RedisCluster):
    """A Cluster whose nodes can be killed. The methods block for a moment."""

    @property
    def ports(self) -> set[int]:
        return {node.port for node in self.nodes}

    @property
    def masters(self) -> list[RedisServer]:
        return [node for node in self.nodes if node.running]

    def wait_agreed(self) -> None:
        """Waits until all nodes run and agree on the slots."""
        block_until(self._ready, "nodes that agree", seconds=60)
