"""The masters of a Redis Cluster: which serves which slot, and which of them answer.

One that is away is not asked; it is called on beside the batches, until it serves again or another has its place.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from relay.claims.redis.connect import Address, ConnectionFactory, several
from relay.claims.redis.connection import DirectConnector, ServerConnection, Unreachable
from relay.core.claim import Unknown
from relay.core.errors import StoreError
from relay.runtime.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from relay.claims.redis.commands import Request

_T = TypeVar("_T")

PORT = 6379
_PART = 0.4
"""Of the limit of a batch: so long may one of its two rounds take."""
_LATE = 0.05
"""Seconds by which a timer may fire late without telling of a starved event loop."""
_CALL_EVERY = 1.0
"""Seconds between two calls on nodes that are away."""

_LOOK: Sequence[Request] = (("CLUSTER", "SLOTS"), ("CLUSTER", "INFO"))
_DOWN = "cluster is down"
"""What every node says while the cluster serves nobody."""

Replies: TypeAlias = list[object] | Unreachable


class Destination(NamedTuple):
    """Whom to ask; `asking`, where he is yet to take the slot over (ASK)."""

    address: Address
    asking: bool = False


class _Node:
    """One connection. `away` says why the node is not asked; empty while it is."""

    def __init__(self, link: ServerConnection) -> None:
        self.link = link
        self.away = ""
        self._turn = asyncio.Lock()

    async def exchange(self, requests: Callable[[], Sequence[Request]]) -> Replies:
        """Ask; batches and looks take turns."""
        async with self._turn:
            try:
                return await self.link.exchange(requests)
            except StoreError as error:
                return Unreachable(str(error))


@dataclass(frozen=True, slots=True)
class _View:
    """What a node sees of the cluster."""

    serves: bool
    epoch: int
    slots: list[Address | None]


class ClusterNodes:
    """The nodes of `redis+cluster://[USER:PASSWORD@]HOST[:PORT],…`, which name one another."""

    def __init__(self, url: str, timeout: float, clock: Callable[[], float]) -> None:
        found = several(url, PORT)
        self._seeds = found.addresses
        self._way = ConnectionFactory(found.url, timeout)
        self._clock = clock
        self._limit = timeout * _PART
        self._nodes: dict[Address, _Node] = {}
        self._looking = asyncio.Lock()
        self._tasks = Tasks()
        self._caller: asyncio.Task[None] | None = None
        self.slots: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self.masters: set[Address] = set()
        self._replaced = 0

    def __str__(self) -> str:
        return ",".join(map(str, self._seeds))

    def who_serves(self, key: str | bytes) -> Address | None:
        """Give the node that has this key; None where the cluster has given its slot to nobody."""
        return self.slots[key_slot(key.encode() if isinstance(key, str) else key)]

    def link(self, address: Address) -> ServerConnection:
        """Give the connection to a node."""
        return self._node(address).link

    @property
    def restarts(self) -> int:
        """Another number whenever one of them was restarted, or is a master no more: a replica may know less."""
        return self._replaced + sum(node.link.restarts for node in self._nodes.values())

    @property
    def serve(self) -> bool:
        """Whether any of them answers."""
        return any(not self._node(address).away for address in self.masters)

    @property
    def reason(self) -> str:
        """Say why those are away that are."""
        return "; ".join(dict.fromkeys(node.away for node in self._nodes.values() if node.away)) or "no node has a slot"

    async def exchange(
        self, asked: Mapping[Destination, Callable[[], Sequence[Request]]]
    ) -> dict[Destination, Replies]:
        """Ask at the same time all those that are not away. Who does not answer inside the limit is from now on."""
        away = {to: Unreachable(reason) for to in asked if (reason := self._node(to.address).away)}
        told = await self._call({to: requests for to, requests in asked.items() if to not in away})
        if any(self._node(to.address).away for to in told):
            self.call_on()
        return told | away

    async def look_around(self) -> None:
        """Ask all what they see of the cluster, believe the latest, and leave those that are no masters any more."""
        async with self._looking:
            known = set(self._nodes) if self.serve else {*self._nodes, *self._seeds}
            views = await self._look(known)
            if not views:
                return
            slots = max(views, key=lambda view: (view.serves, view.epoch)).slots
            masters = {address for address in slots if address}
            self._replaced += len(self.masters - masters)
            self.slots, self.masters = slots, masters
            for address in set(self._nodes) - masters:
                link = self._nodes.pop(address).link
                self._replaced += link.restarts
                await link.close()

    def call_on(self) -> None:
        """Look around until nobody is away, without anyone waiting for it."""
        if self._caller is None or self._caller.done():
            self._caller = self._tasks.start(self._look_until_all_serve(), "look for the nodes of the redis cluster")

    async def close(self) -> None:
        """Leave all."""
        await self._tasks.cancel()
        for node in self._nodes.values():
            await node.link.close()

    async def _look_until_all_serve(self) -> None:
        await self.look_around()
        while any(node.away for node in self._nodes.values()):
            await asyncio.sleep(_CALL_EVERY)
            await self.look_around()

    async def _look(self, addresses: Iterable[Address]) -> list[_View]:
        views: list[_View] = []
        for to, told in (await self._call({Destination(address): lambda: _LOOK for address in addresses})).items():
            view = _view(told, to.address)
            if isinstance(view, str):
                self._node(to.address).away = f"redis at {to.address}: {view}"
            elif view:
                views.append(view)
        return views

    async def _call(self, asked: Mapping[Destination, Callable[[], Sequence[Request]]]) -> dict[Destination, Replies]:
        """Ask also those that are away, and note who is from now on."""
        calls = {to: asyncio.create_task(self._node(to.address).exchange(asked[to])) for to in asked}
        await _finish(list(calls.values()), self._limit)
        told: dict[Destination, Replies] = {}
        for to, call in calls.items():
            late = Unreachable(f"redis at {to.address}: no answer within {self._limit:g} s")
            told[to] = late if call.cancelled() else call.result()
            self._node(to.address).away = _why_away(told[to])
        return told

    def _node(self, address: Address) -> _Node:
        if address not in self._nodes:
            connection = self._way.connection(address)
            self._nodes[address] = _Node(ServerConnection(DirectConnector(str(address), connection), self._clock))
        return self._nodes[address]


async def _finish(tasks: Sequence[asyncio.Task[_T]], limit: float) -> None:
    """Give them as long as they may take, and end those that need longer."""
    if not tasks:
        return
    now = asyncio.get_running_loop().time
    due = now() + limit
    try:
        _, late = await asyncio.wait(tasks, timeout=limit)
        if late and now() > due + _LATE:
            # Our own loop was held up, so the answer may lie in the socket, unread.
            await asyncio.wait(late, timeout=limit / 2)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _why_away(told: Replies) -> str:
    if isinstance(told, Unreachable):
        return told.reason
    return next((reply.reason for reply in told if isinstance(reply, Unknown) and _DOWN in reply.reason), "")


def _view(told: Replies, address: Address) -> _View | str | None:
    """Read what the node at this address sees; text says why it serves nobody, None that it was not heard."""
    match told:
        case [list(ranges), info]:
            # Of a node whose state we may not ask for we believe that it serves.
            lines = info.decode().split() if isinstance(info, bytes) else []
            state = dict(line.split(":", 1) for line in lines if ":" in line)
            slots: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
            for first, last, (host, port, *_), *_ in ranges:
                # Without a name of its own a node is where we have found the one that tells of it.
                serving = Address(host.decode() if host not in (None, b"", b"?") else address.host, port)
                slots[first : last + 1] = [serving] * (last + 1 - first)
            return _View(state.get("cluster_state") != "fail", int(state.get("cluster_current_epoch", 0)), slots)
        case [Unknown(reason), _]:
            return reason
    return None
