"""Where keys live: on one server, or (redis_cluster.py) spread over several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from relay.claims.redis.commands import PREFIX
from relay.claims.redis.connection import Moved
from relay.core.claim import Unknown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from relay.claims.redis.commands import Request
    from relay.claims.redis.connection import ServerConnection, Unreachable
    from relay.claims.redis.server_clock import ServerClock
    from relay.core.errors import StoreError

T = TypeVar("T")

_PAGE = 500
"""Keys that are looked at in one go."""

KeyOf: TypeAlias = "Callable[[T], str | bytes]"
Write: TypeAlias = "Callable[[Sequence[T], ServerClock], Sequence[Request]]"
"""Writes what is asked of one server, by its clock."""


class Servers(Protocol):
    """The servers of a store, one caller at a time. Raises `StoreError`."""

    ordered: bool
    """Whether a batch is carried out in the order in which it is asked."""

    async def open(self) -> None:
        """See that they answer."""

    @property
    def restarts(self) -> int:
        """Another number whenever one of them was restarted, or another has its place."""

    async def ask(self, items: Sequence[T], key: KeyOf[T], write: Write[T]) -> list[object]:
        """Have each server asked for what is its own: one reply an item, `Unknown` where it was refused."""

    async def ask_all(self, requests: Sequence[Request]) -> dict[str, list[object] | Unreachable]:
        """Ask each server the same, which is about no key; by its address."""

    def see_served(self, replies: Sequence[object]) -> None:
        """Raise `StoreError` when the servers, not a key, are why nothing could be answered."""

    def clock_of(self, key: str) -> ServerClock:
        """Give the clock of whoever holds this key."""

    def pages(self) -> AsyncIterator[list[bytes]]:
        """Give the names of all our keys, page by page; what moves meanwhile may come twice."""

    def error(self, reason: object) -> StoreError:
        """Name the servers in an error."""

    async def close(self) -> None:
        """Leave them."""


class SingleServer:
    """All keys on one server."""

    ordered = True

    def __init__(self, link: ServerConnection) -> None:
        self._link = link
        self.open = link.open
        self.close = link.close
        self.error = link.error

    @property
    def restarts(self) -> int:
        """As the link has found."""
        return self._link.restarts

    async def ask(self, items: Sequence[T], key: KeyOf[T], write: Write[T]) -> list[object]:  # noqa: ARG002 - all here
        """Ask all in one pipeline."""
        return await self._link.exchange(lambda: write(items, self._link.clock))

    async def ask_all(self, requests: Sequence[Request]) -> dict[str, list[object] | Unreachable]:
        """Ask the one."""
        told = await self._link.exchange(lambda: requests)
        return {self._link.at: told}

    def see_served(self, replies: Sequence[object]) -> None:
        """Raise `StoreError` where everything was refused, or the server is one of a cluster."""
        refusals = [reply for reply in replies if isinstance(reply, Unknown)]
        if any(isinstance(reply, Moved) for reply in refusals):
            raise self.error("it belongs to a cluster; write redis+cluster://HOST:PORT")
        if len(refusals) == len(replies):
            for refusal in refusals:
                if "WRONGTYPE" not in refusal.reason:  # that alone is the key's own fault
                    raise self.error(refusal.reason)

    def clock_of(self, key: str) -> ServerClock:  # noqa: ARG002 - there is one
        """Give the server's clock."""
        return self._link.clock

    def pages(self) -> AsyncIterator[list[bytes]]:
        """Give the keys as the server scans them."""
        return scan(lambda request: self._link.exchange(lambda: [request]), self.error)


async def scan(
    ask: Callable[[Request], Awaitable[list[object]]], error: Callable[[object], StoreError]
) -> AsyncIterator[list[bytes]]:
    """Give all our keys on one server, page by page."""
    cursor = b""
    while cursor != b"0":
        match await ask(("SCAN", cursor or 0, "MATCH", PREFIX + "*", "COUNT", _PAGE)):
            case [[bytes(cursor), list(keys)]]:
                yield keys
            case [told]:
                raise error(told.reason if isinstance(told, Unknown) else told)
