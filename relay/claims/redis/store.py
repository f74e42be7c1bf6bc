"""Claims and records on a Redis (6.2 or later) or Valkey server, shared by all relays that use it.

    smtp-dedup:FINGERPRINT    h TOKEN              held; the key's expiry is the lease
                              s WINDOW_MS ␠ JSON   sent; the key's expiry is what is left of the window
    smtp-dedup:records        a stream of records, the key's expiry is how long the newest is kept
    smtp-dedup:generation     a name, new whenever something is forgotten

An age is the window minus the remaining time that Redis itself reports, so no two hosts' clocks are ever compared. An
expiry is a moment by Redis's own clock, for a command may lie in a socket until a stopped server goes on: what has
ended by then leaves nothing behind. A batch is one pipeline on one connection, one key a command; what must be atomic
is a script. What they are in Redis's words stands in redis_commands.py; how one server is asked in redis_link.py, the
master of Sentinel in redis_sentinel.py, the nodes of a Cluster in redis_cluster.py.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from relay.claims.redis import commands as resp
from relay.claims.redis import server_info as redis_survey
from relay.claims.redis.cluster import ClusterServers
from relay.claims.redis.connect import UNUSABLE, ConnectionFactory
from relay.claims.redis.connection import DirectConnector, ServerConnection, Unreachable
from relay.claims.redis.sentinel import SentinelConnector
from relay.claims.redis.servers import SingleServer
from relay.core.claim import MOST_RECORDS, Claim, Generation, Note, Peek, Renew, Unknown
from relay.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from relay.claims.redis.commands import Request
    from relay.claims.redis.server_clock import ServerClock
    from relay.claims.redis.server_info import ServerInfo
    from relay.claims.redis.servers import Servers
    from relay.core.claim import Answer, Command, Entry

_T = TypeVar("_T")

_PAGE = 500
"""Records that are read in one go."""


class RedisStore:
    """The servers of one URL. The guard sets the limit of a round trip; `timeout` (s) is that of connecting.

    Raises `SettingsError` when the URL cannot be used.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        most_records: int = MOST_RECORDS,
    ) -> None:
        self._servers = _servers(url, timeout, clock)
        self._clock = clock
        self._most_records = most_records
        self._identity = ""
        self._generation: Generation | None = None
        self.open = self._servers.open
        self.close = self._servers.close

    @property
    def restarts(self) -> int:
        """Another number whenever one of the servers may have lost what it was told."""
        return self._servers.restarts

    async def execute(self, commands: Sequence[Command]) -> list[Answer]:
        """Carry out all commands in one round trip, and what may be older than a new generation in a second one.

        Several servers answer in any order. As long as they tell the generation that an earlier batch was told, each
        answer is newer than that.
        """
        answers = await self._execute(commands)
        if self._servers.ordered:
            return answers
        told = [answer for answer in answers if isinstance(answer, Generation)]
        if any(generation != self._generation for generation in told):
            self._generation = told[-1]
            again = [number for number, command in enumerate(commands) if isinstance(command, Claim | Peek | Renew)]
            newer = await self._execute([commands[number] for number in again])
            for number, answer in zip(again, newer, strict=True):
                answers[number] = answer
        return answers

    async def _execute(self, commands: Sequence[Command]) -> list[Answer]:
        asked_at = self._clock()

        def write(some: Sequence[Command], clock: ServerClock) -> list[Request]:
            now = clock.at(asked_at)
            return [resp.request(command, now, self._most_records) for command in some]

        replies = await self._servers.ask(commands, resp.key_of, write)
        pairs = list(zip(commands, replies, strict=True))
        # A refused record is no reason to do without the claims.
        self._servers.see_served([reply for command, reply in pairs if not isinstance(command, Note)])
        return [resp.answer(command, reply) for command, reply in pairs]

    async def identity(self) -> str:
        """Give the id that the first relay wrote; while whoever holds it is away, as it was told before."""
        own = secrets.token_hex(8)
        written, found, _ = await self._send(
            [
                ("SET", resp.IDENTITY, own, "NX", "PX", resp.YEAR_MS),
                ("GET", resp.IDENTITY),
                ("PEXPIRE", resp.IDENTITY, resp.YEAR_MS),
            ]
        )
        if isinstance(found, Unreachable) and self._identity:
            return self._identity
        if not isinstance(found, bytes):
            raise self._servers.error(f"no identity ({_reason(found or written)})")
        self._identity = found.decode("ascii", "replace")
        return self._identity

    async def records(self, age: float) -> AsyncIterator[str]:
        """Give the records page by page. One that was noted twice is told once, as it was noted last."""
        told: set[bytes] = set()
        before = "+"
        while page := await self._ask_one(("XREVRANGE", resp.RECORDS, before, "-", "COUNT", _PAGE), list):
            now = self._servers.clock_of(resp.RECORDS).at(self._clock())
            for number, fields in page:
                noted_at = int(number.partition(b"-")[0]) / 1000
                if noted_at < now - age:
                    return
                record = resp.read_record(fields)
                if record and record.id not in told and now < noted_at + record.keep_for:
                    told.add(record.id)
                    yield record.text
            before = "(" + page[-1][0].decode("ascii")

    async def sent(self) -> AsyncIterator[Entry]:
        """Give them page by page, as the servers scan their keys."""
        async for page in self._pages():
            for found in page:
                yield found.entry

    async def forget(self, matches: Callable[[Entry], bool]) -> int:
        """Free what matches, a page of keys at a time. A key that has changed since it was looked at stays."""
        await self._see_all()
        await self._begin_generation()
        freed = 0
        for _ in range(2):  # what a relay was writing back as it began may land behind the first look
            async for page in self._pages():
                freed += await self._free([found for found in page if matches(found.entry)])
        await self._begin_generation()
        return freed

    async def survey(self, wall: Callable[[], float] = time.time) -> list[ServerInfo]:
        """Look at every server. `wall` is this host's clock."""
        before = wall()
        told = await self._servers.ask_all(redis_survey.REQUESTS)
        return [redis_survey.read(name, replies, before, wall()) for name, replies in told.items()]

    async def _see_all(self) -> None:
        """Raise `StoreError` when a server is away: what cannot be finished is not begun."""
        for told in (await self._servers.ask_all([("PING",)])).values():
            if isinstance(told, Unreachable):
                raise self._servers.error(told.reason)

    async def _begin_generation(self) -> None:
        await self._ask_one(("SET", resp.GENERATION, secrets.token_hex(8), "PX", resp.YEAR_MS), bytes)

    async def _pages(self) -> AsyncIterator[list[resp.StoredAcceptance]]:
        async for keys in self._servers.pages():
            replies = await self._ask([resp.look(key) for key in keys])
            found = (resp.found(key, reply) for key, reply in zip(keys, replies, strict=True))
            yield [sent for sent in found if sent]

    async def _free(self, chosen: Sequence[resp.StoredAcceptance]) -> int:
        return (await self._ask([resp.free(found.key, found.value) for found in chosen])).count(1)

    async def _ask(self, requests: Sequence[Request]) -> list[object]:
        """Ask where a part of the answers is not enough."""
        replies = await self._send(requests) if requests else []
        for reply in replies:
            if isinstance(reply, Unreachable):
                raise self._servers.error(reply.reason)
        self._servers.see_served(replies)
        return replies

    async def _ask_one(self, request: Request, kind: type[_T]) -> _T:
        """Ask what must be answered with a value of this kind."""
        [reply] = await self._send([request])
        if not isinstance(reply, kind):
            raise self._servers.error(_reason(reply))
        return reply

    async def _send(self, requests: Sequence[Request]) -> list[object]:
        return await self._servers.ask(requests, resp.key_in, lambda some, _: some)


def _servers(url: str, timeout: float, clock: Callable[[], float]) -> Servers:
    """Give the servers of a URL, not connected yet."""
    parts = urlsplit(url)
    # Without the password that the URL may hold.
    place = parts.path if parts.scheme == "unix" else parts.netloc.rpartition("@")[2]
    try:
        if parts.scheme == "redis+cluster":
            return ClusterServers(url, timeout, clock)
        if parts.scheme == "redis+sentinel":
            return SingleServer(ServerConnection(SentinelConnector(url, timeout), clock))
        return SingleServer(
            ServerConnection(DirectConnector(place, ConnectionFactory(url, timeout).connection()), clock)
        )
    except UNUSABLE as error:
        raise SettingsError(f"store.url: redis at {place} cannot be used: {error}") from error


def _reason(reply: object) -> str:
    return reply.reason if isinstance(reply, Unknown) else str(reply)
