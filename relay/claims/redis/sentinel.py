"""Finds the master that Redis Sentinel names, again for each connection, and checks that the master confirms it."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from relay.claims.redis.connect import new_connection, reason
from relay.claims.redis.connection import round_trip
from relay.claims.redis.servers import Address
from relay.core.claim import Unknown
from relay.runtime.tasks import Tasks

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

    from relay.claims.redis.servers import RedisServers

_STEP = 0.4
"""The part of the timeout that the search for the master may take, so that time is left to connect to it."""


class SentinelConnector:
    """A `Connector` to the master of `redis+sentinel://`.

    User, password and database are the master's. The sentinels have no login, or `sentinel_password`.
    """

    def __init__(self, servers: RedisServers, timeout: float) -> None:
        self._servers = servers
        self._sentinels = replace(servers, user="", password=servers.sentinel_password, database=0)
        self._timeout = timeout
        self._limit = timeout * _STEP
        self.name = f"redis {servers.service} of the sentinels {servers}"
        self.at = ""

    async def __call__(self) -> AbstractConnection:
        """Connects to the master. Raises `RedisError` or `OSError`."""
        named, reasons = await self._ask_all()
        for address in named:
            try:
                connection = await self._connect(address)
            except (RedisError, OSError) as error:
                reasons.append(f"{address}: {reason(error)}")
            else:
                self.at = str(address)
                return connection
        raise RedisConnectionError("; ".join(dict.fromkeys(reasons)))

    async def _ask_all(self) -> tuple[list[Address], list[str]]:
        """Returns the servers that sentinels name as master, by most votes first, and why other sentinels name none.

        Does not wait for the rest as soon as most sentinels agree: one that hangs or is unreachable costs no time.
        """
        votes: Counter[Address] = Counter()
        reasons: list[str] = []
        tasks = Tasks()
        answers = [tasks.start(self._ask(sentinel), f"ask sentinel {sentinel}") for sentinel in self._servers.addresses]
        try:
            for answer in asyncio.as_completed(answers):
                found = await answer
                if isinstance(found, str):
                    reasons.append(found)
                    continue
                votes[found] += 1
                if votes[found] > len(answers) / 2:
                    break
        finally:
            await tasks.cancel()
        return [address for address, _ in votes.most_common()], reasons

    async def _ask(self, sentinel: Address) -> Address | str:
        """Returns the master that a sentinel names, or why it names none."""
        connection = new_connection(self._sentinels, self._limit, sentinel)
        try:
            async with asyncio.timeout(self._limit):
                await connection.connect()  # type: ignore[no-untyped-call]
                [reply] = await round_trip(connection, [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._servers.service)])
        except TimeoutError:
            return f"sentinel {sentinel}: no answer within {self._limit:g} s"
        except (RedisError, OSError) as error:
            return f"sentinel {sentinel}: {reason(error)}"
        finally:
            await connection.disconnect(nowait=True)
        match reply:
            case [bytes(host), bytes(port)]:
                return Address(host.decode(), int(port))
            case Unknown(refusal):
                return f"sentinel {sentinel}: {refusal}"
        return f'the sentinels know no service "{self._servers.service}"'

    async def _connect(self, address: Address) -> AbstractConnection:
        connection = new_connection(self._servers, self._timeout, address)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            [role] = await round_trip(connection, [("ROLE",)])
            # If the user may not call ROLE, the first write that a replica refuses shows it.
            if isinstance(role, Unknown) or role[:1] == [b"master"]:  # type: ignore[index]
                return connection
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        await connection.disconnect(nowait=True)
        raise RedisConnectionError("it is no master, as yet or any more")
