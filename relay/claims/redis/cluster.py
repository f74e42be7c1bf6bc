"""A Redis Cluster: a batch is one pipeline a node, all at the same time, and what has moved is asked for once more.

Failure is judged node by node: while one is away its keys are `Unknown`, and the others are asked as before. Nothing of
redis-py's cluster client is used but its slots: its pipeline sends again by itself, and knows no clocks.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from relay.claims.redis.cluster_nodes import ClusterNodes, Destination
from relay.claims.redis.connect import Address
from relay.claims.redis.connection import Moved, Unreachable
from relay.claims.redis.servers import T, scan
from relay.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from relay.claims.redis.commands import Request
    from relay.claims.redis.server_clock import ServerClock
    from relay.claims.redis.servers import KeyOf, Write

_NOBODY = "no node serves the slot of this key"
_ASKING: Request = ("ASKING",)


class ClusterServers:
    """`Servers` of `redis+cluster://`. `timeout` (s) is the limit of a batch, of which a node may take a part."""

    ordered = False

    def __init__(self, url: str, timeout: float, clock: Callable[[], float]) -> None:
        self._nodes = ClusterNodes(url, timeout, clock)
        self.close = self._nodes.close

    @property
    def restarts(self) -> int:
        """As the nodes tell."""
        return self._nodes.restarts

    async def open(self) -> None:
        """See which masters answer; those that are away are looked for anyway. Raises `StoreError` when none serves."""
        if self._nodes.serve:
            await self._nodes.exchange({Destination(address): list for address in self._nodes.masters})
        else:
            await self._nodes.look_around()
        self.see_served([])

    async def ask(self, items: Sequence[T], key: KeyOf[T], write: Write[T]) -> list[object]:
        """Ask each node for its own, and those once more that have moved."""
        await self._begin()
        replies: list[object] = [Unreachable(f"{self._name}: {_NOBODY}")] * len(items)
        ways: dict[Destination, list[int]] = defaultdict(list)
        for number, item in enumerate(items):
            if address := self._nodes.who_serves(key(item)):
                ways[Destination(address)].append(number)
        await self._carry(ways, items, write, replies)
        if moved := _moved(replies):
            self._nodes.call_on()  # where one slot has moved others may have, too
            await self._carry(moved, items, write, replies)
        return replies

    async def ask_all(self, requests: Sequence[Request]) -> dict[str, list[object] | Unreachable]:
        """Ask each master."""
        await self._begin()
        told = await self._nodes.exchange(
            {Destination(address): lambda: requests for address in sorted(self._nodes.masters)}
        )
        return {str(to.address): replies for to, replies in told.items()}

    def see_served(self, replies: Sequence[object]) -> None:  # noqa: ARG002 - nodes are judged, not keys
        """Raise `StoreError` when no node is left that serves."""
        if not self._nodes.serve:
            raise self.error(self._nodes.reason)

    def clock_of(self, key: str) -> ServerClock:
        """Give the clock of the key's node."""
        address = self._nodes.who_serves(key)
        if address is None:
            raise self.error(_NOBODY)
        return self._nodes.link(address).clock

    async def pages(self) -> AsyncIterator[list[bytes]]:
        """Give the keys of one node after the other, and all again where a slot has moved meanwhile."""
        await self._begin()
        looked_at: list[Address | None] = []
        while looked_at != self._nodes.slots:
            looked_at = list(self._nodes.slots)
            for address in sorted(self._nodes.masters):
                async for page in scan(partial(self._ask_one, Destination(address)), self.error):
                    yield page
            await self._nodes.look_around()

    def error(self, reason: object) -> StoreError:
        """Name the cluster in an error."""
        return StoreError(f"{self._name}: {reason}")

    @property
    def _name(self) -> str:
        return f"redis cluster at {self._nodes}"

    async def _begin(self) -> None:
        """Know the masters."""
        if not self._nodes.serve:
            await self.open()

    async def _ask_one(self, to: Destination, request: Request) -> list[object]:
        told = (await self._nodes.exchange({to: lambda: [request]}))[to]
        if isinstance(told, Unreachable):
            raise self.error(told.reason)
        return told

    async def _carry(
        self, ways: Mapping[Destination, Sequence[int]], items: Sequence[T], write: Write[T], replies: list[object]
    ) -> None:
        """Ask all nodes at once for the items of these numbers, and put each reply into its place."""

        def requests(to: Destination) -> Callable[[], Sequence[Request]]:
            some, clock = [items[number] for number in ways[to]], self._nodes.link(to.address).clock
            if to.asking:
                return lambda: [part for request in write(some, clock) for part in (_ASKING, request)]
            return lambda: write(some, clock)

        for to, told in (await self._nodes.exchange({to: requests(to) for to in ways})).items():
            if isinstance(told, Unreachable):
                told = [told] * len(ways[to])  # noqa: PLW2901
            for number, reply in zip(ways[to], told[1::2] if to.asking else told, strict=True):
                replies[number] = _from(to, reply)


def _moved(replies: Sequence[object]) -> dict[Destination, list[int]]:
    """Give what is to be asked elsewhere."""
    moved: dict[Destination, list[int]] = defaultdict(list)
    for number, reply in enumerate(replies):
        if isinstance(reply, Moved):
            moved[Destination(reply.address, reply.once)].append(number)
    return moved


def _from(to: Destination, reply: object) -> object:
    """Complete the address of a reply: without a host of its own it means the one that said so."""
    if isinstance(reply, Moved) and reply.address.host in ("", "?"):
        return replace(reply, address=Address(to.address.host, reply.address.port))
    return reply
