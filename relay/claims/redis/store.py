"""Claims on Redis (6.2 or later) or Valkey, shared by all relays that use the same servers.

    smtp-dedup:FINGERPRINT    h TOKEN              held; the key's expiry is the lease
                              s WINDOW_MS ␠ JSON   sent; the key's expiry is the rest of the window
    smtp-dedup:SEQUENCE       q EPOCH FINGERPRINT …, the latest one first; the key's expiry is how long it is kept
    smtp-dedup:records        a stream of the records of version 0.1; its expiry is how long the newest is kept
    smtp-dedup:generation     a random name, replaced whenever something is forgotten
    smtp-dedup:identity       a random name, by which relays recognise their own mail in a loop

With `store.namespace = "NAME"` each key begins with `smtp-dedup.NAME:`. What no relay wrote is never believed.

An age is the window minus the remaining time that Redis reports, so the clocks of two hosts are never compared. An
expiry is a moment by Redis's own clock: a command may wait in a socket until a stopped server continues, and what has
expired by then leaves no entry. A batch is one pipeline for each server; each command uses one key; what must be atomic
is a script. `commands.py` holds the Redis commands, `connection.py` the connection to one server, `sentinel.py` the
search for the master, `cluster.py` the nodes of a Cluster.
"""

from __future__ import annotations

import secrets
import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from relay.claims.redis import commands as redis_commands
from relay.claims.redis import permissions, server_info
from relay.claims.redis.claim_count import ClaimCount
from relay.claims.redis.connection import Unreachable
from relay.claims.redis.topologies import new_deployment
from relay.core.claim import MOST_CLAIMS, RANDOM_NAME, Claim, Generation, Peek, Renew, Unknown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from relay.claims.redis.commands import Request
    from relay.claims.redis.server_clock import ServerClock
    from relay.claims.redis.server_info import ServerInfo
    from relay.claims.redis.servers import RedisServers
    from relay.core.claim import Answer, Command, Entry

_T = TypeVar("_T")

_PAGE = 500
"""Records in one reply."""


class RedisStore:
    """A store on the given servers. `timeout` (s) limits connecting, and the steps of a batch in a Cluster."""

    def __init__(
        self,
        servers: RedisServers,
        timeout: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        most_claims: int = MOST_CLAIMS,
    ) -> None:
        self._keys = redis_commands.Keys(servers.namespace)
        self._written = ClaimCount(most_claims, clock)
        self._servers = new_deployment(servers, timeout, clock)
        self._clock = clock
        self._identity = ""
        self._generation: Generation | None = None
        self.open = self._servers.open
        self.close = self._servers.close

    @property
    def restarts(self) -> int:
        """A number that changes when a server may have lost data."""
        return self._servers.restarts

    async def execute(self, commands: Sequence[Command]) -> list[Answer]:
        """Carries out all commands in one round trip. Raises `StoreError` if the servers are down.

        Several servers answer in any order. If the generation is new, the answers may be older than it: then they are
        asked for again, in a second round trip. If the generation is that of an earlier batch, each answer is newer.
        """
        answers = await self._execute(commands)
        if self._servers.ordered:
            return answers
        generations = [answer for answer in answers if isinstance(answer, Generation)]
        if any(generation != self._generation for generation in generations):
            self._generation = generations[-1]
            again = [number for number, command in enumerate(commands) if isinstance(command, Claim | Peek | Renew)]
            newer = await self._execute([commands[number] for number in again])
            for number, answer in zip(again, newer, strict=True):
                answers[number] = answer
        return answers

    async def _execute(self, commands: Sequence[Command]) -> list[Answer]:
        asked_at = self._clock()
        is_full = self._written.is_full

        def write(some: Sequence[Command], clock: ServerClock) -> list[Request]:
            now = clock.at(asked_at)
            return [redis_commands.request(command, now, self._keys, is_full=is_full) for command in some]

        replies = await self._servers.ask(commands, partial(redis_commands.key_of, self._keys), write)
        self._servers.raise_if_down(replies)
        answers = [redis_commands.answer(command, reply) for command, reply in zip(commands, replies, strict=True)]
        self._written.add(commands, answers)
        return answers

    async def identity(self) -> str:
        """Returns the id that the first relay wrote. While its node is away: the id that was read before."""
        [found] = await self._send([redis_commands.identity(self._keys, secrets.token_hex(8))])
        if isinstance(found, Unreachable) and self._identity:
            return self._identity
        if not isinstance(found, bytes) or not RANDOM_NAME.fullmatch(name := found.decode("ascii", "replace")):
            raise self._servers.error(f"no identity ({_reason(found)[:100]})")
        self._identity = name
        return name

    async def records(self, age: float) -> AsyncIterator[str]:
        """Yields the records of the last `age` seconds that version 0.1 wrote, newest first.

        Of a record that was written twice: its last text.
        """
        seen: set[bytes] = set()
        before = "+"
        while page := await self._ask_one(("XREVRANGE", self._keys.records, before, "-", "COUNT", _PAGE), list):
            now = self._servers.clock_of(self._keys.records).at(self._clock())
            for number, fields in page:
                noted_at = int(number.partition(b"-")[0]) / 1000
                if noted_at < now - age:
                    return
                record = redis_commands.read_record(fields)
                if record and record.id not in seen and now < noted_at + record.keep_for:
                    seen.add(record.id)
                    yield record.text
            before = "(" + page[-1][0].decode("ascii")

    async def sent(self) -> AsyncIterator[Entry]:
        """Yields all acceptances, as the servers scan their keys."""
        async for page in self._pages():
            for found in page:
                yield found.entry

    async def forget(self, matches: Callable[[Entry], bool]) -> int:
        """Frees what matches, a page of keys at a time. A key that has changed since it was read stays."""
        await self._require_all_servers()
        await self._begin_generation()
        freed = 0
        # Twice: what a relay was writing back as this began may arrive behind the first scan.
        for _ in range(2):
            async for page in self._pages():
                freed += await self._free([found for found in page if matches(found.entry)])
        await self._begin_generation()
        return freed

    async def survey(self, wall: Callable[[], float] = time.time) -> list[ServerInfo]:
        """Returns what `relay check` needs to know of each server. `wall` is this host's clock."""
        before = wall()
        answered = await self._servers.ask_all(server_info.REQUESTS)
        return [server_info.read(name, replies, before, wall()) for name, replies in answered.items()]

    async def refused_commands(self) -> list[str]:
        """Returns the commands that the relay uses and that the server does not let this user call."""
        asked = permissions.requests(self._keys)
        replies = await self._send(asked)
        scanned: list[Request] = [("SCAN", 0, "MATCH", self._keys.prefix + "*", "COUNT", 1), ("PING",)]
        refused = permissions.refused(asked, replies)
        for answers in (await self._servers.ask_all(scanned)).values():
            if not isinstance(answers, Unreachable):
                refused += permissions.refused(scanned, answers)
        return list(dict.fromkeys(refused))

    async def _require_all_servers(self) -> None:
        """Raises `StoreError` if a server is away: forgetting could not be completed."""
        for replies in (await self._servers.ask_all([("PING",)])).values():
            if isinstance(replies, Unreachable):
                raise self._servers.error(replies.reason)

    async def _begin_generation(self) -> None:
        name = secrets.token_hex(8)
        await self._ask_one(("SET", self._keys.generation, name, "PX", redis_commands.YEAR_MS), bytes)

    async def _pages(self) -> AsyncIterator[list[redis_commands.StoredAcceptance]]:
        async for keys in self._servers.pages(self._keys.prefix):
            replies = await self._ask([redis_commands.peek(key) for key in keys])
            found = (
                redis_commands.acceptance(self._keys, key, reply) for key, reply in zip(keys, replies, strict=True)
            )
            yield [sent for sent in found if sent]

    async def _free(self, chosen: Sequence[redis_commands.StoredAcceptance]) -> int:
        return (await self._ask([redis_commands.free(found.key, found.value) for found in chosen])).count(1)

    async def _ask(self, requests: Sequence[Request]) -> list[object]:
        """Returns all replies. Raises `StoreError` if any server is away."""
        replies = await self._send(requests) if requests else []
        for reply in replies:
            if isinstance(reply, Unreachable):
                raise self._servers.error(reply.reason)
        self._servers.raise_if_down(replies)
        return replies

    async def _ask_one(self, request: Request, kind: type[_T]) -> _T:
        """Returns a reply of the given type. Raises `StoreError` if the reply is of another type."""
        [reply] = await self._send([request])
        if not isinstance(reply, kind):
            raise self._servers.error(_reason(reply))
        return reply

    async def _send(self, requests: Sequence[Request]) -> list[object]:
        return await self._servers.ask(requests, redis_commands.key_in, lambda some, _: some)


def _reason(reply: object) -> str:
    return reply.reason if isinstance(reply, Unknown) else str(reply)
