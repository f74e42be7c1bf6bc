"""Claims and records in dicts of this process: for trying out and for tests. Nothing survives a restart."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from relay.core.claim import (
    MOST_RECORDS,
    AskGeneration,
    Claim,
    Confirm,
    Done,
    Entry,
    Free,
    Generation,
    Held,
    Note,
    Peek,
    Release,
    Renew,
    Sent,
    Won,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

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
    recipient: str


@dataclass(frozen=True, slots=True)
class _StoredRecord:
    note: Note
    at: float
    until: float


_Entry: TypeAlias = _HeldEntry | _SentEntry


class MemoryStore:
    """The contract in its plainest form."""

    restarts = 0

    def __init__(self, clock: Callable[[], float] = time.monotonic, most_records: int = MOST_RECORDS) -> None:
        self._clock = clock
        self._entries: dict[Fingerprint, _Entry] = {}
        self._records: OrderedDict[str, _StoredRecord] = OrderedDict()
        self._most_records = most_records
        self._weight = 0
        self._identity = secrets.token_hex(8)
        self._generation = ""
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

    async def records(self, age: float) -> AsyncIterator[str]:
        """Give the records that stand here now."""
        now = self._clock()
        for record in reversed(list(self._records.values())):
            if now - record.at <= age and now < record.until:
                yield record.note.text

    async def sent(self) -> AsyncIterator[Entry]:
        """Give what stands here now."""
        for entry in self._sent():
            yield entry

    async def forget(self, matches: Callable[[Entry], bool]) -> int:
        """Free what matches. Nobody asks meanwhile: one generation is both the one before it and the one after it."""
        self._generation = secrets.token_hex(8)
        freed = [entry.key for entry in self._sent() if matches(entry)]
        for key in freed:
            del self._entries[key]
        return len(freed)

    async def close(self) -> None:
        """Nothing to do."""

    def _sent(self) -> list[Entry]:
        now = self._clock()
        return [
            Entry(key, entry.original, now - entry.since, entry.recipient)
            for key, entry in self._entries.items()
            if isinstance(entry, _SentEntry) and now < entry.until
        ]

    def _carry_out(self, command: Command, now: float) -> Answer:
        match command:
            case Claim():
                return self._claim(command, now)
            case Peek(key, window):
                return self._state(key, window, now)
            case Renew(key, token, lease):
                return self._renew(key, token, now, lease)
            case AskGeneration():
                return Generation(self._generation)
            case Confirm(key, original, window, age, recipient) if age < window:
                taken = self._is_anothers(command, now)
                self._entries[key] = _SentEntry(original, now - age, now - age + window, recipient)
                return Done(taken)
            case Release(key, token) if self._holds(key, token):
                del self._entries[key]
            case Note():
                self._note(command, now)
        return Done()

    def _claim(self, claim: Claim, now: float) -> Won | Held | Sent:
        state = self._state(claim.key, claim.window, now)
        if not isinstance(state, Free) and not self._holds(claim.key, claim.token):
            return state
        self._entries[claim.key] = _HeldEntry(claim.token, now + claim.lease)
        return Won()

    def _renew(self, key: Fingerprint, token: Token, now: float, lease: float) -> Done | Free | Held | Sent:
        state = self._state(key, float("inf"), now)
        if not isinstance(state, Held) or not self._holds(key, token):
            return state
        self._entries[key] = _HeldEntry(token, now + lease)
        return Done()

    def _note(self, note: Note, now: float) -> None:
        before = self._records.pop(note.record_id, None)
        self._records[note.record_id] = _StoredRecord(note, now, now + note.keep_for)
        self._weight += note.weight - (before.note.weight if before else 0)
        while self._weight > self._most_records and len(self._records) > 1:
            self._weight -= self._records.popitem(last=False)[1].note.weight

    def _holds(self, key: Fingerprint, token: Token) -> bool:
        entry = self._entries.get(key)
        return isinstance(entry, _HeldEntry) and entry.token == token

    def _is_anothers(self, confirm: Confirm, now: float) -> bool:
        match self._entries.get(confirm.key):
            case _HeldEntry(token, until) if now < until:
                return token != confirm.token
            case _SentEntry(original, _, until) if now < until:
                return original.id != confirm.original.id
        return False

    def _state(self, key: Fingerprint, window: float, now: float) -> Free | Held | Sent:
        match self._entries.get(key):
            case _HeldEntry(_, until) if now < until:
                return Held(until - now)
            case _SentEntry(original, since, until) if now < until and 0 <= now - since < window:
                return Sent(original, now - since, until - since)
        return Free()

    def _sweep(self, executed: int, now: float) -> None:
        """Forget what has run out, now and then: without this, keys asked for once would stay for ever."""
        self._until_sweep -= executed
        if self._until_sweep <= 0:
            self._entries = {key: entry for key, entry in self._entries.items() if now < entry.until}
            self._records = OrderedDict((name, record) for name, record in self._records.items() if now < record.until)
            self._weight = sum(record.note.weight for record in self._records.values())
            self._until_sweep = max(_SWEEP_AFTER, len(self._entries) + len(self._records))
