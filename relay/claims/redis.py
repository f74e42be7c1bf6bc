"""Claims on a Redis (6.2 or later) or Valkey server, shared by all relays that use it.

    smtp-dedup:FINGERPRINT    h TOKEN              held; the key's expiry is the lease
                              s WINDOW_MS ␠ JSON   sent; the key's expiry is what is left of the window

An age is the window minus the remaining time that Redis itself reports, so no two hosts' clocks are ever compared. An
expiry is a moment by Redis's own clock, for a command may lie in a socket until a stopped server goes on: what has
ended by then leaves nothing behind. A batch is one pipeline on one connection, one key a command; what must be atomic
is a script.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import time
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

import hiredis
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from relay.claims.clocks import ServerClock
from relay.claims.codec import decode, encode
from relay.core.claim import Claim, Confirm, Done, Free, Held, Peek, Release, Renew, Sent, Unknown, Won
from relay.errors import SettingsError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio.connection import AbstractConnection

    from relay.core.claim import Answer, Command

_Request: TypeAlias = tuple[str | bytes | int, ...]
_TIME: _Request = ("TIME",)

PREFIX = "smtp-dedup:"
_IDENTITY = PREFIX + "identity"
_IDENTITY_MS = 366 * 24 * 3600 * 1000
"""No key is without an expiry. Each start of a relay begins this one's year anew."""

_DIGITS = 15
"""In the milliseconds of a window, at most: Lua counts to there without loss."""
_SLACK_MS = 100
"""By which more may be left than the whole window: clocks drift a little between two looks at the server's."""

# A script answers 1, or what the key holds and its remaining time. EVAL with the text, which Redis caches: EVALSHA
# would need a second round trip when the cache is empty, and redis-py's cluster pipeline refuses it.
# Negative remaining time: a key without expiry, which is none of ours. Negative age: more is left than the whole
# window, so somebody lengthened it, or set the clock back. Both count as free.
_CLAIM = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PXAT', ARGV[2]) then return 1 end
local value, left = redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])
local window = tonumber(string.match(value, '^s(%d+) '))
local age = window and window - left
if value == ARGV[1] or left < 0 or (age and (age < -tonumber(ARGV[4]) or age >= tonumber(ARGV[3]))) then
  redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2])
  return 1
end
return {value, left}"""
_PEEK = "return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])}"
_RENEW = """
local value = redis.call('GET', KEYS[1])
if value == ARGV[1] then redis.call('PEXPIREAT', KEYS[1], ARGV[2]) return 1 end
return {value, redis.call('PTTL', KEYS[1])}"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1"


class RedisStore:
    """One connection to one server. The guard sets the limit of a round trip; `timeout` is that of connecting."""

    def __init__(self, url: str, timeout: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._place = _place(url)
        self._clock = ServerClock(clock)
        try:
            # The library's own retries are off: it would send a whole pipeline again, up to ten times.
            # RESP 2 needs no greeting, and there is nothing in RESP 3 that we use.
            pool = ConnectionPool.from_url(
                url, socket_connect_timeout=timeout, socket_timeout=None, retry=Retry(NoBackoff(), 0), protocol=2
            )
            # The pool is only used to read the URL.
            self._connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, RedisError) as error:
            raise SettingsError(f"store.url: {self._place} cannot be used: {error}") from error

    async def open(self) -> None:
        """Connect and learn the server's clock, unless we are connected."""
        if self._connection.is_connected:
            return
        try:
            await self._connection.connect()  # type: ignore[no-untyped-call]
            await self._look_and_ask([])
        except (RedisError, OSError) as error:
            raise self._error(_words(error)) from error

    async def execute(self, commands: Sequence[Command]) -> list[Answer]:
        """Carry out all commands in one pipeline."""
        asked_at = self._clock.clock()
        replies = await self._exchange(lambda: [_request(command, self._clock.at(asked_at)) for command in commands])
        return [_answer(command, reply) for command, reply in zip(commands, replies, strict=True)]

    async def identity(self) -> str:
        """Give the id that the first relay wrote."""
        own = secrets.token_hex(8)
        written, found, _ = await self._exchange(
            lambda: [
                ("SET", _IDENTITY, own, "NX", "PX", _IDENTITY_MS),
                ("GET", _IDENTITY),
                ("PEXPIRE", _IDENTITY, _IDENTITY_MS),
            ]
        )
        if not isinstance(found, bytes):
            raise self._error(f"no identity ({found or written})")
        return found.decode("ascii", "replace")

    async def close(self) -> None:
        """Leave the server."""
        with contextlib.suppress(RedisError, OSError):
            await self._connection.disconnect()

    async def _exchange(self, requests: Callable[[], Sequence[_Request]]) -> list[object]:
        """Send all, read all. Raises `StoreError` when the server, not a key, is why nothing could be answered."""
        await self.open()
        try:
            try:
                right, replies = await self._look_and_ask(requests())
            except (RedisConnectionError, OSError):
                # Dropped, perhaps long ago while we were idle: once more, for the commands are safe to repeat.
                await self.open()
                right, replies = await self._look_and_ask(requests())
            if not right:
                _, replies = await self._look_and_ask(requests())
        except (RedisError, OSError) as error:
            raise self._error(_words(error)) from error
        refusals = [reply.reason for reply in replies if isinstance(reply, Unknown)]
        if len(refusals) == len(replies):
            for reason in refusals:
                if "WRONGTYPE" not in reason:  # that alone is the key's own fault
                    raise self._error(reason)
        return replies

    async def _look_and_ask(self, requests: Sequence[_Request]) -> tuple[bool, list[object]]:
        """Give whether the server's clock is still what it was when the requests were made, and the replies to them."""
        asked_at = self._clock.clock()
        told, *replies = await self._round_trip([_TIME, *requests])
        match told:
            case [bytes(seconds), bytes(microseconds)]:
                return not self._clock.learn(asked_at, int(seconds) + int(microseconds) / 1e6), replies
        await self.close()
        raise self._error(told.reason if isinstance(told, Unknown) else f"it tells no time ({told})")

    async def _round_trip(self, requests: Sequence[_Request]) -> list[object]:
        # hiredis packs and reads in C. By redis-py's pipeline and packing, a batch of 50 costs three times the CPU.
        packed = b"".join(hiredis.pack_command(request) for request in requests)  # type: ignore[arg-type]
        # Broken off in the middle, by an error or a cancellation, the library disconnects. It must: answers are still
        # on their way, and the next batch would read them as its own.
        await self._connection.send_packed_command(packed)
        replies: list[object] = []
        for _ in requests:
            try:
                replies.append(await self._connection.read_response())
            except ResponseError as error:
                replies.append(Unknown(str(error)))
        return replies

    def _error(self, reason: object) -> StoreError:
        return StoreError(f"{self._place}: {reason}")


def _place(url: str) -> str:
    """Name the server without the password that the URL may hold."""
    parts = urlsplit(url)
    return f"redis at {parts.path}" if parts.scheme == "unix" else f"redis at {parts.netloc.rpartition('@')[2]}"


def _words(error: Exception) -> str:
    """Say what went wrong. The library's words hold the address again, and often a number that has a name."""
    text = str(error)
    numbers = set(re.findall(r"\b(?:Error|Errno) (\d+)", text))
    if len(numbers) == 1:
        return os.strerror(int(numbers.pop())).lower()
    # As in: Error -2 connecting to HOST:PORT. Name or service not known.
    return re.sub(r"^Error \S+ connecting to \S+ (.*?)\.?$", r"\1", text)


def _ms(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))


def _request(command: Command, now: float) -> _Request:
    """Write a command that was given at `now` by the server's clock."""

    def at(seconds: float) -> int:
        return math.floor((now + seconds) * 1000)

    key = PREFIX + command.key
    match command:
        case Claim(_, token, lease, window):
            return ("EVAL", _CLAIM, 1, key, "h" + token, at(lease), _ms(window), _SLACK_MS)
        case Peek():
            return ("EVAL", _PEEK, 1, key)
        case Confirm(_, original, window, age):
            if age >= window:
                return ("EXISTS", key)  # nothing to tell any more; a question keeps requests and replies in step
            return ("SET", key, f"s{_ms(window)} {encode(original)}", "PXAT", at(window - age))
        case Renew(_, token, lease):
            return ("EVAL", _RENEW, 1, key, "h" + token, at(lease))
        case Release(_, token):
            return ("EVAL", _RELEASE, 1, key, "h" + token)


def _answer(command: Command, reply: object) -> Answer:
    if isinstance(reply, Unknown):
        return reply
    match command:
        case Confirm() | Release():
            return Done()
        case Claim() if reply == 1:
            return Won()
        case Renew() if reply == 1:
            return Done()
        case Claim(window=window) | Peek(window=window):
            return _state(reply, window)
        case _:
            return _state(reply, math.inf)


def _state(reply: object, window: float) -> Answer:
    """Read what a key holds."""
    match reply:
        case [None, _]:
            return Free()
        case [bytes(), int(left)] if left < 0:
            return Free()
        case [bytes(value), int(left)] if value.startswith(b"h"):
            return Held(left / 1000)
        case [bytes(value), int(left)] if value.startswith(b"s"):
            return _sent(value, left, window)
    return Unknown("the key holds something that no relay wrote")


def _sent(value: bytes, left: int, window: float) -> Answer:
    whole, _, text = value[1:].partition(b" ")
    original = decode(text)
    if not whole.isdigit() or len(whole) > _DIGITS or original is None:
        return Unknown("the entry is damaged")
    age = int(whole) - left
    return Sent(original, max(0, age) / 1000) if -_SLACK_MS <= age < window * 1000 else Free()
