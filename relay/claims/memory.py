"""Claims in a dict of this process: for trying out and for tests. Nothing survives a restart."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from relay.core.claim import Claim, Confirm, Done, Free, Held, Peek, Release, Renew, Sent, Won

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.core.claim import Answer, Command, Fingerprint, Original, Token

_SWEEP_AFTER = 1_000
"""Commands between two sweeps, at least; with more entries left, as many as those, so that it costs each O(1)."""


@dataclass(frozen=True, slots=True)
class _HeldEntry:
    token: Token
    until: float


@dataclass(frozen=True, slots=True)
class _SentEntry:
    original: Original
    since: float
    until: float


_Entry: TypeAlias = _HeldEntry | _SentEntry


class MemoryStore:
    """The contract in its plainest form."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: dict[Fingerprint, _Entry] = {}
        self._identity = secrets.token_hex(8)
        self._until_sweep = _SWEEP_AFTER

    async def open(self) -> None:
        """Nothing to do."""

    async def execute(self, commands: Sequence[Command]) -> list[Answer]:
        """Carry out all commands, in order."""
        now = self._clock()
        answers = [self._carry_out(command, now) for command in commands]
        self._sweep(len(commands), now)
        return answers

    async def identity(self) -> str:
        """Give the id this object was born with."""
        return self._identity

    async def close(self) -> None:
        """Nothing to do."""

    def _carry_out(self, command: Command, now: float) -> Answer:
        match command:
            case Claim(key, token, lease, window):
                state = self._state(key, window, now)
                if not isinstance(state, Free) and not self._holds(key, token):
                    return state
                self._entries[key] = _HeldEntry(token, now + lease)
                return Won()
            case Peek(key, window):
                return self._state(key, window, now)
            case Confirm(key, original, window, age):
                if age < window:
                    self._entries[key] = _SentEntry(original, now - age, now - age + window)
            case Renew(key, token, lease):
                state = self._state(key, float("inf"), now)
                if not isinstance(state, Held) or not self._holds(key, token):
                    return state
                self._entries[key] = _HeldEntry(token, now + lease)
            case Release(key, token):
                if self._holds(key, token):
                    del self._entries[key]
        return Done()

    def _holds(self, key: Fingerprint, token: Token) -> bool:
        entry = self._entries.get(key)
        return isinstance(entry, _HeldEntry) and entry.token == token

    def _state(self, key: Fingerprint, window: float, now: float) -> Free | Held | Sent:
        match self._entries.get(key):
            case _HeldEntry(_, until) if now < until:
                return Held(until - now)
            case _SentEntry(original, since, until) if now < until and 0 <= now - since < window:
                return Sent(original, now - since)
        return Free()

    def _sweep(self, executed: int, now: float) -> None:
        """Forget what has run out, now and then: without this, keys asked for once would stay for ever."""
        self._until_sweep -= executed
        if self._until_sweep <= 0:
            self._entries = {key: entry for key, entry in self._entries.items() if now < entry.until}
            self._until_sweep = max(_SWEEP_AFTER, len(self._entries))
