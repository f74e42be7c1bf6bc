"""Finds the master that Redis Sentinel names: anew at every connection, and only one that says itself that it is."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from relay.claims.redis.connect import Address, ConnectionFactory, several, words
from relay.claims.redis.connection import round_trip
from relay.core.claim import Unknown

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

PORT = 26379
_PART = 0.4
"""Of the limit of a round trip: so long may looking for the master take, that connecting still fits in."""


class SentinelConnector:
    """A `Dial` to the master of `redis+sentinel://[USER:PASSWORD@]HOST[:PORT],…/SERVICE[?db=N]`.

    User and password are the master's. The sentinels are asked without, or with the option `sentinel_password`.
    """

    def __init__(self, url: str, timeout: float) -> None:
        found = several(url, PORT)
        options = dict(parse_qsl(found.options))
        password = options.pop("sentinel_password", "")
        self._sentinels, self._service = found.addresses, found.service
        self._limit = timeout * _PART
        self._master = ConnectionFactory(f"{found.url.partition('?')[0]}?{urlencode(options)}", timeout)
        self._sentinel = ConnectionFactory(
            f"redis://:{quote(password, safe='')}@localhost" if password else "redis://", self._limit
        )
        self.name = f"redis {found.service} of the sentinels {','.join(map(str, found.addresses))}"
        self.at = ""

    async def __call__(self) -> AbstractConnection:
        """Connect to the master. Raises `RedisError` or `OSError`."""
        named, reasons = await self._ask_all()
        for address in named:
            try:
                connection = await self._connect(address)
            except (RedisError, OSError) as error:
                reasons.append(f"{address}: {words(error)}")
            else:
                self.at = str(address)
                return connection
        raise RedisConnectionError("; ".join(dict.fromkeys(reasons)))

    async def _ask_all(self) -> tuple[list[Address], list[str]]:
        """Give the servers that are named master, by most sentinels first, and why others name none.

        As soon as most of them agree the rest is not waited for: one that hangs, or was cut off, costs nothing.
        """
        votes: Counter[Address] = Counter()
        reasons: list[str] = []
        looks = [asyncio.create_task(self._ask(sentinel)) for sentinel in self._sentinels]
        try:
            for look in asyncio.as_completed(looks):
                found = await look
                if isinstance(found, str):
                    reasons.append(found)
                    continue
                votes[found] += 1
                if votes[found] > len(looks) / 2:
                    break
        finally:
            for task in looks:
                task.cancel()
            await asyncio.wait(looks)
        return [address for address, _ in votes.most_common()], reasons

    async def _ask(self, sentinel: Address) -> Address | str:
        """Give the master that this sentinel names, or why it names none."""
        connection = self._sentinel.connection(sentinel)
        try:
            async with asyncio.timeout(self._limit):
                await connection.connect()  # type: ignore[no-untyped-call]
                [told] = await round_trip(connection, [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)])
        except TimeoutError:
            return f"sentinel {sentinel}: no answer within {self._limit:g} s"
        except (RedisError, OSError) as error:
            return f"sentinel {sentinel}: {words(error)}"
        finally:
            await connection.disconnect(nowait=True)
        match told:
            case [bytes(host), bytes(port)]:
                return Address(host.decode(), int(port))
            case Unknown(reason):
                return f"sentinel {sentinel}: {reason}"
        return f'the sentinels know no service "{self._service}"'

    async def _connect(self, address: Address) -> AbstractConnection:
        connection = self._master.connection(address)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            [role] = await round_trip(connection, [("ROLE",)])
            # A user who may not ask for the role finds out by the first write that is refused.
            if isinstance(role, Unknown) or role[:1] == [b"master"]:  # type: ignore[index]
                return connection
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        await connection.disconnect(nowait=True)
        raise RedisConnectionError("it is no master, as yet or any more")
