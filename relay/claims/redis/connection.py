"""One connection to a Redis server: requests in a pipeline, the server's clock, and detection of its restarts."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import hiredis
from redis.exceptions import AskError, NoPermissionError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from relay.claims.redis.connect import new_connection, reason
from relay.claims.redis.server_clock import ServerClock
from relay.core.claim import Unknown
from relay.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio.connection import AbstractConnection

    from relay.claims.redis.commands import Request
    from relay.claims.redis.servers import RedisServers

TIME: Request = ("TIME",)
INFO: Request = ("INFO", "server")

_IN_SCRIPT = re.compile("NOPERM|can't run this command|ACL failure in script")
"""What an error says if a script called what its user may not."""


@dataclass(frozen=True, slots=True)
class Moved(Unknown):
    """Another node of the Cluster serves the key (MOVED or ASK)."""


@dataclass(frozen=True, slots=True)
class ReadOnly(Unknown):
    """The server is a replica."""


@dataclass(frozen=True, slots=True)
class Unreachable(Unknown):
    """The node of the Cluster that serves the key does not answer."""


@dataclass(frozen=True, slots=True)
class NotPermitted(Unknown):
    """The user may not call the command, or not on this key."""


class Connector(Protocol):
    """Finds a server and connects to it."""

    name: str
    """The name of the server or service, for error messages."""
    at: str
    """The address of the server that was found last."""

    async def __call__(self) -> AbstractConnection:
        """Returns an open connection. Raises `RedisError` or `OSError`."""


class DirectConnector:
    """Connects to the only server of a store, always with the same connection object."""

    def __init__(self, servers: RedisServers, timeout: float) -> None:
        self.name, self.at = f"redis at {servers}", str(servers)
        self._connection = new_connection(servers, timeout)

    async def __call__(self) -> AbstractConnection:
        """Returns the connection, open."""
        await self._connection.connect()  # type: ignore[no-untyped-call]
        return self._connection


class ServerConnection:
    """A connection to one server at a time, for one caller. Every method but `close` raises `StoreError`."""

    def __init__(self, connector: Connector, clock: Callable[[], float]) -> None:
        self._connector = connector
        self._connection: AbstractConnection | None = None
        self._server = ("", "")
        """Address and run id of the server that was found last."""
        self._was_away = False
        """Whether the last attempt to connect failed."""
        self.clock = ServerClock(clock)
        self.restarts = 0
        """How often another server, or the same one restarted, was found: either may have lost data."""

    @property
    def at(self) -> str:
        """The address of the server that answered last."""
        return self._connector.at

    async def open(self) -> None:
        """Checks that the server answers, and reads its clock."""
        await self.exchange(list)

    async def exchange(self, requests: Callable[[], Sequence[Request]]) -> list[object]:
        """Sends all requests and reads all replies. A refusal by the server is an `Unknown`.

        Sends them again if the connection was lost, or if the server's clock is not what `requests` assumed.
        """
        try:
            connection = await self._connected()
            try:
                clock_was_right, replies = await self._exchange(connection, requests())
            except (RedisConnectionError, OSError):
                # The connection may have been lost long ago, while idle. All commands are safe to repeat.
                connection = await self._connected()
                clock_was_right, replies = await self._exchange(connection, requests())
            if not clock_was_right:
                _, replies = await self._exchange(connection, requests())
        except (RedisError, OSError) as error:
            raise self.error(reason(error)) from error
        if ReadOnly in map(type, replies):
            await self.close()  # it was the master before: search for the new one
        return replies

    async def close(self) -> None:
        """Disconnects."""
        if self._connection:
            with contextlib.suppress(RedisError, OSError):
                await self._connection.disconnect()

    def error(self, cause: object) -> StoreError:
        """Returns an error that names the server."""
        return StoreError(f"{self._connector.name}: {cause}")

    async def _connected(self) -> AbstractConnection:
        """Returns an open connection to a server whose clock and run id are known."""
        if self._connection is None or not self._connection.is_connected:
            was_away, self._was_away = self._was_away, True
            self._connection = await self._connector()
            _, [info] = await self._exchange(self._connection, [INFO])
            self._was_away = False
            server = (self.at, run_id(info))
            # If the user may not call INFO, a server that was away counts as restarted.
            is_restarted = server != self._server or (was_away and not run_id(info))
            self.restarts += self._server != ("", "") and is_restarted
            self._server = server
        return self._connection

    async def _exchange(self, connection: AbstractConnection, requests: Sequence[Request]) -> tuple[bool, list[object]]:
        """Returns whether the server's clock was known when the requests were written, and the replies."""
        asked_at = self.clock.clock()
        time, *replies = await round_trip(connection, [TIME, *requests])
        now = seconds_of(time)
        if now is None:
            await self.close()
            raise self.error(time.reason if isinstance(time, Unknown) else f"unexpected reply to TIME ({time})")
        return not self.clock.learn(asked_at, now), replies


async def round_trip(connection: AbstractConnection, requests: Sequence[Request]) -> list[object]:
    """Sends all requests and reads all replies; a refusal is an `Unknown`. Raises `RedisError` or `OSError`."""
    # hiredis packs and reads in C. By redis-py's pipeline and packing, a batch of 50 costs three times the CPU.
    packed = b"".join(hiredis.pack_command(request) for request in requests)  # type: ignore[arg-type]
    # After an error or a cancellation the library disconnects. It must: the next batch would read the replies that are
    # still to arrive as its own.
    try:
        await connection.send_packed_command(packed)
    except RuntimeError as error:
        # uvloop raises it for a transport that a reset has closed while idle.
        raise RedisConnectionError(f"the connection was reset ({error})") from error
    replies: list[object] = []
    for _ in requests:
        try:
            replies.append(await connection.read_response())
        except ResponseError as error:
            replies.append(refusal(error))
    return replies


def refusal(error: ResponseError) -> Unknown:
    """Returns the answer that an error reply of a server means."""
    match error:
        case AskError():  # also MOVED, which the library derives from it
            return Moved(f"moved to {error.host}:{error.port}")
        case ReadOnlyError():
            return ReadOnly(str(error))
        case NoPermissionError():
            return NotPermitted(str(error))
    if _IN_SCRIPT.search(str(error)):
        return NotPermitted(f"no permissions: {error}")
    return Unknown(str(error))


def seconds_of(time: object) -> float | None:
    """Returns the seconds since the Unix epoch in a reply to TIME."""
    match time:
        case [bytes(seconds), bytes(microseconds)]:
            return int(seconds) + int(microseconds) / 1e6
    return None


def run_id(info: object) -> str:
    """Returns the run id in a reply to INFO, which is new after each start of a server; empty if INFO was refused."""
    found = re.search(rb"^run_id:(\w+)", info, re.MULTILINE) if isinstance(info, bytes) else None
    return found[1].decode() if found else ""
