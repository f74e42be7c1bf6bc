"""The servers that hold the keys of a store: a single one, or (cluster.py) several that share the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from relay.claims.redis.connection import Moved, NotPermitted
from relay.core.claim import Unknown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from relay.claims.redis.commands import Request
    from relay.claims.redis.connection import ServerConnection, Unreachable
    from relay.claims.redis.server_clock import ServerClock
    from relay.core.errors import StoreError

T = TypeVar("T")

_PAGE = 500
"""Keys that one SCAN looks at."""

KeyOf: TypeAlias = "Callable[[T], str | bytes]"
Write: TypeAlias = "Callable[[Sequence[T], ServerClock], Sequence[Request]]"
"""Writes the requests to one server, with expiries by its clock."""


class Deployment(Protocol):
    """The servers of a store, for one caller at a time. The methods raise `StoreError`."""

    ordered: bool
    """Whether the commands of a batch are carried out in their order."""

    async def open(self) -> None:
        """Checks that the servers answer."""

    @property
    def restarts(self) -> int:
        """A number that changes when a server was found restarted or replaced."""

    async def ask(self, items: Sequence[T], key: KeyOf[T], write: Write[T]) -> list[object]:
        """Asks each server for its keys. Returns one reply for each item, `Unknown` where it was refused."""

    async def ask_all(self, requests: Sequence[Request]) -> dict[str, list[object] | Unreachable]:
        """Sends requests that concern no key to each server. Returns the replies by the server's address."""

    def raise_if_down(self, replies: Sequence[object]) -> None:
        """Raises `StoreError` if the servers, and not single keys, are the reason why no reply is of use."""

    def clock_of(self, key: str) -> ServerClock:
        """Returns the clock of the server that holds the key."""

    def pages(self, prefix: str) -> AsyncIterator[list[bytes]]:
        """Yields all keys with this prefix, page by page. A key that moves meanwhile may be yielded twice."""

    def error(self, cause: object) -> StoreError:
        """Returns an error that names the servers."""

    async def close(self) -> None:
        """Disconnects."""


class SingleServer:
    """All keys on one server."""

    ordered = True

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self.open = connection.open
        self.close = connection.close
        self.error = connection.error

    @property
    def restarts(self) -> int:
        """How often another server, or the same one restarted, was found."""
        return self._connection.restarts

    async def ask(self, items: Sequence[T], key: KeyOf[T], write: Write[T]) -> list[object]:  # noqa: ARG002 - one server
        """Sends one pipeline."""
        return await self._connection.exchange(lambda: write(items, self._connection.clock))

    async def ask_all(self, requests: Sequence[Request]) -> dict[str, list[object] | Unreachable]:
        """Asks the server."""
        replies = await self._connection.exchange(lambda: requests)
        return {self._connection.at: replies}

    def raise_if_down(self, replies: Sequence[object]) -> None:
        """Raises `StoreError` if everything was refused, or the server is a node of a Cluster."""
        refusals = [reply for reply in replies if isinstance(reply, Unknown)]
        if any(isinstance(reply, Moved) for reply in refusals):
            raise self.error("it belongs to a cluster; write redis+cluster://HOST:PORT")
        for refusal in refusals:
            if isinstance(refusal, NotPermitted):
                raise self.error(refusal.reason)
        if len(refusals) == len(replies):
            for refusal in refusals:
                if "WRONGTYPE" not in refusal.reason:  # the only refusal that is due to the key itself
                    raise self.error(refusal.reason)

    def clock_of(self, key: str) -> ServerClock:  # noqa: ARG002 - one server
        """Returns the server's clock."""
        return self._connection.clock

    def pages(self, prefix: str) -> AsyncIterator[list[bytes]]:
        """Yields the keys, page by page."""
        return scan(prefix, lambda request: self._connection.exchange(lambda: [request]), self.error)


async def scan(
    prefix: str,
    ask: Callable[[Request], Awaitable[list[object]]],
    error: Callable[[object], StoreError],
) -> AsyncIterator[list[bytes]]:
    """Yields all keys of one server with this prefix, page by page."""
    cursor = b""
    while cursor != b"0":
        match await ask(("SCAN", cursor or 0, "MATCH", prefix + "*", "COUNT", _PAGE)):
            case [[bytes(cursor), list(keys)]]:
                yield keys
            case [reply]:
                raise error(reply.reason if isinstance(reply, Unknown) else reply)
