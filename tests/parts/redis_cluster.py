"""A Redis Cluster of three masters without replicas."""

from __future__ import annotations

import atexit
import contextlib
from functools import cache
from typing import TYPE_CHECKING, Self

from redis.crc import key_slot

from parts.ports import HOST, free_port
from parts.redis_server import RedisServer
from parts.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOTS = 16384
_NODE_TIMEOUT_MS = 1000
_NEVER_FAILED_MS = 600_000


class RedisCluster:
    """The masters. While one is away, the others serve their slots. The methods block for a moment."""

    def __init__(self) -> None:
        options = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": str(_NODE_TIMEOUT_MS),
            "cluster-require-full-coverage": "no",
        }
        self._buses = [free_port() for _ in range(3)]
        self.nodes = [RedisServer(options=options | {"cluster-port": str(bus)}) for bus in self._buses]
        self.url = f"redis+cluster://{','.join(f'{HOST}:{node.port}' for node in self.nodes)}"

    def __enter__(self) -> Self:
        for node in self.nodes:
            node.start()
        for number, node in enumerate(self.nodes):
            first, last = (SLOTS * part // len(self.nodes) for part in (number, number + 1))
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        with self.nodes[0].client() as client:
            for node, bus in list(zip(self.nodes, self._buses, strict=True))[1:]:
                client.execute_command("CLUSTER", "MEET", HOST, node.port, bus)
        block_until(self._ready, "nodes that agree", seconds=60)
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.close()

    def ready(self) -> None:
        """Waits until all nodes run, agree and are empty."""
        for node in self.nodes:
            if node.running:
                node.resume()
            else:
                node.start()
        block_until(self._ready, "nodes that agree", seconds=60)
        for node in self.nodes:
            node.flush()

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """Keeps nodes from counting one that is only slow, on a busy machine, as failed."""
        self._set_node_timeout(_NEVER_FAILED_MS)
        try:
            yield
        finally:
            self._set_node_timeout(_NODE_TIMEOUT_MS)

    def _set_node_timeout(self, milliseconds: int) -> None:
        for node in self.nodes:
            with node.client() as client:
                client.config_set("cluster-node-timeout", milliseconds)

    def node_of(self, key: str) -> RedisServer:
        """Returns the node that serves the key now."""
        slot = key_slot(key.encode())
        with next(node for node in self.nodes if node.running).client() as client:
            for first, last, (_, port, *_), *_ in client.execute_command("CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    return next(node for node in self.nodes if node.port == port)
        raise LookupError(f"no node serves slot {slot}")

    def begin_moving(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Opens a slot on both nodes: for keys that the source does not have it names the target (ASK)."""
        _cluster(target, "SETSLOT", slot, "IMPORTING", _name(source))
        _cluster(source, "SETSLOT", slot, "MIGRATING", _name(target))

    def move_keys(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Moves the keys of the slot."""
        with source.client() as client:
            while keys := client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                client.execute_command("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)

    def end_moving(self, slot: int, target: RedisServer) -> None:
        """Assigns the slot to its new node, which the old one then names (MOVED)."""
        for node in [target, *(node for node in self.nodes if node is not target)]:
            _cluster(node, "SETSLOT", slot, "NODE", _name(target))

    def _ready(self) -> bool:
        return all(
            "cluster_state:ok" in told and f"cluster_slots_ok:{SLOTS}" in told and "cluster_known_nodes:3" in told
            for told in (_text(_cluster(node, "INFO")) for node in self.nodes)
        )


@cache
def shared_cluster() -> RedisCluster:
    """Returns a cluster that runs as long as the tests do. Call `ready` before each use."""
    shared = RedisCluster().__enter__()
    atexit.register(shared.__exit__)
    return shared


def _cluster(node: RedisServer, *words: object) -> object:
    with node.client() as client:
        return client.execute_command("CLUSTER", *words)


def _name(node: RedisServer) -> str:
    return _text(_cluster(node, "MYID"))


def _text(told: object) -> str:
    return told.decode() if isinstance(told, bytes) else str(told)
