"""A Redis Cluster, by redis-py's cluster client: one pipeline for each node, all at the same time.

If a node fails, the answers for its keys are `Unreachable` and all others are not affected. The client's own retries
are off. What a node did not answer, or no longer serves, is asked once more after the slot map has been read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisClusterException, RedisError, ResponseError, SlotNotCoveredError

from relay.claims.redis.connect import reason
from relay.claims.redis.connection import INFO, TIME, Moved, Unreachable, refusal, run_id, seconds_of
from relay.claims.redis.deployment import scan
from relay.claims.redis.server_clock import ServerClock
from relay.claims.redis.servers import Address
from relay.core.errors import StoreError
from relay.runtime.tasks import run_within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from relay.claims.redis.commands import Request
    from relay.claims.redis.deployment import KeyOf, T, Write
    from relay.claims.redis.servers import RedisServers

_STEP = 0.3
"""The part of the timeout that each step of a batch may take: a pipeline, the slot map, a second pipeline."""
_STEPS = 3
"""Steps in a batch that needs all of them."""
_CHECK_INTERVAL = 1.0
"""Seconds between two checks of nodes that do not answer."""
_DOWN = "cluster is down"
"""What every node replies while the Cluster does not serve."""
_FAILURES = (RedisError, RedisClusterException, OSError, RuntimeError)
"""What a request may raise. uvloop raises RuntimeError for a connection that was reset while idle."""

Replies: TypeAlias = list[object] | Unreachable


class Cluster:
    """The `Deployment` of `redis+cluster://`. `timeout` (s) is the limit of a batch."""

    ordered = False

    def __init__(self, servers: RedisServers, timeout: float, clock: Callable[[], float]) -> None:
        self._name = f"redis cluster at {servers}"
        self._limit = timeout * _STEP
        self._clock = clock
        self._client = _new_client(servers, timeout)
        self._clocks: dict[str, ServerClock] = defaultdict(lambda: ServerClock(clock))
        self._run_ids: dict[str, str] = {}
        self._epochs: dict[str, int] = defaultdict(int)
        self._away: dict[str, str] = {}
        """The nodes that did not serve at the last check, and why. They are not asked until the next check."""
        self._checked_at = 0.0
        self.restarts = 0
        """A number that changes when a primary was found restarted or replaced."""

    async def open(self) -> None:
        """Checks which primaries answer. Raises `StoreError` if none does."""
        await self._ensure_slot_map()
        serving = [node for node in self._client.get_primaries() if node.name not in self._away]
        await self._check(serving)
        if any(node.name in self._away for node in serving):
            await self._read_slot_map()
        self.raise_if_down([])

    async def ask(self, items: Sequence[T], key: KeyOf[T], write: Write[T]) -> list[object]:
        """Asks each node for its keys, and once more for those that have moved or were not answered."""
        due = self._clock() + self._limit * _STEPS
        await self._ensure_slot_map()
        replies: list[object] = [Unreachable(f"{self._name}: no node serves the slot of this key")] * len(items)
        if again := await self._exchange(dict(enumerate(items)), key, write, replies):
            await self._read_slot_map()
            moved = {number: items[number] for number in again}
            # Redirections are followed one by one, so they get all the time that is left.
            await self._exchange(moved, key, write, replies, redirect_for=max(self._limit, due - self._clock()))
        return replies

    async def ask_all(self, requests: Sequence[Request]) -> dict[str, Replies]:
        """Asks each primary."""
        await self.open()
        answered = await self._send(dict.fromkeys(self._primaries(), requests))
        return {str(_address(node)): replies for node, replies in answered.items()}

    def raise_if_down(self, replies: Sequence[object]) -> None:  # noqa: ARG002 - nodes fail, not the Cluster
        """Raises `StoreError` if no primary serves."""
        if all(node.name in self._away for node in self._client.get_primaries()):
            raise self.error("; ".join(dict.fromkeys(self._away.values())) or "no node has a slot")

    def clock_of(self, key: str) -> ServerClock:
        """Returns the clock of the key's node."""
        node = self._node_of(key)
        if node is None:
            raise self.error("no node serves the slot of this key")
        return self._clocks[node.name]

    async def pages(self, prefix: str) -> AsyncIterator[list[bytes]]:
        """Yields the keys of one node after the other, and all again if a slot has moved meanwhile."""
        await self.open()
        scanned: list[str] = []
        while scanned != (owners := self._owners()):
            scanned = owners
            for node in self._primaries():
                async for page in scan(prefix, partial(self._ask_node, node), self.error):
                    yield page
            await self._read_slot_map()

    async def close(self) -> None:
        """Disconnects from all nodes."""
        client, manager = self._client, self._client.nodes_manager
        with contextlib.suppress(*_FAILURES):
            await client.aclose()
        # The client itself does not disconnect while it waits to read the slot map again.
        for node in [*client.startup_nodes, *manager.startup_nodes.values(), *client.get_nodes()]:
            with contextlib.suppress(*_FAILURES):
                await node.disconnect()

    def error(self, cause: object) -> StoreError:
        """Returns an error that names the Cluster."""
        return StoreError(f"{self._name}: {cause}")

    # Requests

    async def _exchange(
        self,
        items: Mapping[int, T],
        key: KeyOf[T],
        write: Write[T],
        replies: list[object],
        *,
        redirect_for: float = 0,
    ) -> list[int]:
        """Asks for the items, by their numbers in `replies`. Returns the numbers that are worth a second try."""
        numbers_of: dict[ClusterNode, list[int]] = defaultdict(list)
        for number, item in items.items():
            if node := self._node_of(key(item)):
                numbers_of[node].append(number)
        # A redirection may have named a node that was unknown.
        await self._check(node for node in numbers_of if node.name not in self._run_ids | self._away)
        asked_at = self._clock()
        asked: dict[ClusterNode, list[Request]] = {}
        for node, numbers in numbers_of.items():
            # The clock of a node that is away may be unknown.
            written = [] if node.name in self._away else write([items[n] for n in numbers], self._clocks[node.name])
            asked[node] = [TIME, *written]
        answered = await self._send(asked, redirect_for=redirect_for)
        again: list[int] = []
        for node, answers in answered.items():
            time, *rest = [answers] * (1 + len(numbers_of[node])) if isinstance(answers, Unreachable) else answers
            now = seconds_of(time)
            clock_was_wrong = now is not None and self._clocks[node.name].learn(asked_at, now)
            for number, reply in zip(numbers_of[node], rest, strict=True):
                replies[number] = reply
                if clock_was_wrong or (isinstance(reply, Moved | Unreachable) and node.name not in self._away):
                    again.append(number)
        return again

    async def _ask_node(self, node: ClusterNode, request: Request) -> list[object]:
        replies = (await self._send({node: [request]}))[node]
        if isinstance(replies, Unreachable):
            raise self.error(replies.reason)
        return replies

    async def _send(
        self, asked: Mapping[ClusterNode, Sequence[Request]], *, redirect_for: float = 0
    ) -> dict[ClusterNode, Replies]:
        """Sends one pipeline to each node that serves. Follows MOVED and ASK if there are `redirect_for` seconds."""
        pipelines = {node: self._client.pipeline() for node in asked if node.name not in self._away}
        for node, pipeline in pipelines.items():
            for request in asked[node]:
                pipeline.execute_command(*request, target_nodes=node)
        results = await run_within(
            redirect_for or self._limit,
            {
                node: pipeline.execute(raise_on_error=False, allow_redirections=redirect_for > 0)
                for node, pipeline in pipelines.items()
            },
        )
        return {
            node: self._replies(node, results[node]) if node in results else Unreachable(self._away[node.name])
            for node in asked
        }

    def _replies(self, node: ClusterNode, result: list[object] | BaseException) -> Replies:
        if isinstance(result, BaseException):
            return Unreachable(self._why(node, result))
        return [self._reply(node, reply) for reply in result]

    def _reply(self, node: ClusterNode, reply: object) -> object:
        if isinstance(reply, ResponseError) and _DOWN not in str(reply):
            return refusal(reply)
        return Unreachable(self._why(node, reply)) if isinstance(reply, Exception) else reply

    def _why(self, node: ClusterNode, error: BaseException) -> str:
        """Returns why a node did not answer. Raises an error that is not about the connection."""
        if not isinstance(error, _FAILURES):
            raise error
        late = isinstance(error, TimeoutError) and not str(error)
        return f"redis at {_address(node)}: {f'no answer within {self._limit:g} s' if late else reason(error)}"

    # Nodes

    def _primaries(self) -> list[ClusterNode]:
        return sorted(self._client.get_primaries(), key=_address)

    def _node_of(self, key: str | bytes) -> ClusterNode | None:
        try:
            return self._client.get_node_from_key(key)  # type: ignore[arg-type]
        except SlotNotCoveredError:
            return None

    def _owners(self) -> list[str]:
        """Returns the name of each slot's node."""
        return [nodes[0].name for _, nodes in sorted(self._client.nodes_manager.slots_cache.items())]

    async def _ensure_slot_map(self) -> None:
        is_due = self._away and self._clock() - self._checked_at >= _CHECK_INTERVAL
        if is_due or not self._client.get_primaries():
            await self._read_slot_map()
            self.raise_if_down([])

    async def _read_slot_map(self) -> None:
        """Checks all known nodes, and asks one that answers which node serves which slot."""
        client, manager = self._client, self._client.nodes_manager
        before = {node.name for node in client.get_primaries()}
        known = {node.name: node for node in [*client.startup_nodes, *client.get_nodes()]}
        await self._check(known.values())
        self._checked_at = self._clock()
        answering = {name: node for name, node in known.items() if name not in self._away}
        if not answering:
            return
        # After a partition a node may not know the latest slot map yet.
        latest = max(self._epochs[name] for name in answering)
        manager.startup_nodes = {name: node for name, node in answering.items() if self._epochs[name] == latest}
        try:
            async with asyncio.timeout(self._limit):
                await manager.initialize()
                primaries = {node.name: node for node in client.get_primaries()}
                await self._check(node for name, node in primaries.items() if name not in self._run_ids | self._away)
                for name in self._away:
                    manager.move_node_to_end_of_cached_nodes(name)  # the client asks the first one for COMMAND
                await client.initialize()
        except _FAILURES as error:
            if not before:
                raise self.error(reason(error)) from error
            return
        # A replica that was promoted may know less.
        self.restarts += len(before - primaries.keys())
        self._run_ids = {name: each for name, each in self._run_ids.items() if name in primaries}
        self._away = {name: why for name, why in self._away.items() if name in primaries}

    async def _check(self, nodes: Iterable[ClusterNode]) -> None:
        """Reads the clock and the run id of each node, and notes which nodes do not answer."""
        for node, error in (await run_within(self._limit, {node: self._greet(node) for node in nodes})).items():
            if error is None:
                # If the user may not call INFO, a node that was away counts as restarted.
                self.restarts += self._away.pop(node.name, None) is not None and not self._run_ids[node.name]
            else:
                self._away[node.name] = self._why(node, error)

    async def _greet(self, node: ClusterNode) -> None:
        asked_at = self._clock()
        now = seconds_of(await node.execute_command(*TIME))
        if now is None:
            raise ResponseError("unexpected reply to TIME")
        self._clocks[node.name].learn(asked_at, now)
        info = b""
        with contextlib.suppress(NoPermissionError):  # without the permission for INFO, restarts are not noticed
            info = await node.execute_command(*INFO)
        if b"redis_mode:standalone" in info:
            raise ResponseError("it has cluster support disabled")
        found = run_id(info)
        self.restarts += self._run_ids.get(node.name, found) != found
        self._run_ids[node.name] = found
        with contextlib.suppress(NoPermissionError):
            state = await node.execute_command("CLUSTER", "INFO")
            epoch = re.search(rb"^cluster_current_epoch:(\d+)", state, re.MULTILINE)
            self._epochs[node.name] = int(epoch[1]) if epoch else 0
            if b"cluster_slots_assigned:0\r" in state:
                raise ResponseError("no node has a slot")
            if b"cluster_state:fail" in state:
                raise ResponseError(f"the {_DOWN}")


def _new_client(servers: RedisServers, timeout: float) -> RedisCluster:
    client = RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in servers.addresses],
        dynamic_startup_nodes=False,
        require_full_coverage=False,
        retry=Retry(NoBackoff(), 0),
        # redis-py sends ASKING and the command that follows on whatever connections are free; only one is safe.
        max_connections=1,
        username=servers.user or None,
        password=servers.password or None,
        socket_connect_timeout=timeout,
        socket_timeout=None,
        protocol=2,
    )
    # The store reads raw replies. The client itself needs one parser.
    parse_command = client.response_callbacks["COMMAND"]
    client.response_callbacks.clear()
    client.response_callbacks["COMMAND"] = parse_command
    return client


def _address(node: ClusterNode) -> Address:
    return Address(node.host, int(node.port))
