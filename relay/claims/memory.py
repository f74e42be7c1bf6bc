"""A store in dicts of this process, for trials and for tests. Nothing survives a restart."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from relay.core.claim import (
    MOST_CLAIMS,
    AskGeneration,
    Claim,
    Confirm,
    Done,
    Entry,
    Follow,
    Free,
    Full,
    Generation,
    Held,
    Peek,
    Release,
    Renew,
    Sent,
    Won,
)
from relay.core.life_cycle import Condition, State, find_row
from relay.core.sequence import place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from relay.core.claim import Answer, Command, Fingerprint, KeyCommand, Original, Token
    from relay.core.sequence import SequenceName, SequenceState

_SWEEP_AFTER = 1_000
"""The least number of commands between two sweeps. With more entries it is their number, so that the cost for each
command is O(1)."""


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
class _StoredSequence:
    state: SequenceState
    until: float


_Entry: TypeAlias = _HeldEntry | _SentEntry


class MemoryStore:
    """Claims by the table in `relay.core.life_cycle`."""

    restarts = 0

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        most_claims: int = MOST_CLAIMS,
    ) -> None:
        self._clock = clock
        self._entries: dict[Fingerprint, _Entry] = {}
        self._sequences: dict[SequenceName, _StoredSequence] = {}
        self._most_claims = most_claims
        self._identity = secrets.token_hex(8)
        self._generation = ""
        self._until_sweep = _SWEEP_AFTER

    async def open(self) -> None:
        """Does nothing."""

    async def execute(self, commands: Sequence[Command]) -> list[Answer]:
        """Carries out all commands, in order."""
        now = self._clock()
        answers = [self._execute_one(command, now) for command in commands]
        self._sweep(len(commands), now)
        return answers

    async def identity(self) -> str:
        """Returns the random id of this object."""
        return self._identity

    async def sent(self) -> AsyncIterator[Entry]:
        """Yields the acceptances that are stored now."""
        for entry in self._sent():
            yield entry

    async def forget(self, matches: Callable[[Entry], bool]) -> int:
        """Frees what matches. No command can come between: one new generation serves before and after."""
        self._generation = secrets.token_hex(8)
        freed = [entry.key for entry in self._sent() if matches(entry)]
        for key in freed:
            del self._entries[key]
        return len(freed)

    async def close(self) -> None:
        """Does nothing."""

    def _sent(self) -> list[Entry]:
        now = self._clock()
        return [
            Entry(key, entry.original, now - entry.since, entry.recipient)
            for key, entry in self._entries.items()
            if isinstance(entry, _SentEntry) and now < entry.until
        ]

    def _execute_one(self, command: Command, now: float) -> Answer:
        if isinstance(command, AskGeneration):
            return Generation(self._generation)
        is_full = len(self._entries) + len(self._sequences) >= self._most_claims
        if isinstance(command, Follow):
            return self._follow(command, now, is_full=is_full)
        if is_full and isinstance(command, Claim | Confirm) and command.key not in self._entries:
            return Full()
        entry = self._entry(command.key, now)
        row = find_row(_state(entry), type(command), _condition(command, entry, now))
        match command:
            case Claim(key, token, lease) | Renew(key, token, lease) if row.new_state is State.HELD:
                self._entries[key] = _HeldEntry(token, now + lease)
            case Confirm(key, original, window, age, recipient) if row.new_state is State.SENT:
                self._entries[key] = _SentEntry(original, now - age, now - age + window, recipient)
            case Release(key) if row.new_state is State.FREE:
                del self._entries[key]
        return row.answer if isinstance(row.answer, Won | Free | Done) else _describe(entry, now)

    def _follow(self, command: Follow, now: float, *, is_full: bool) -> Answer:
        stored = self._sequences.get(command.sequence)
        if stored is None and is_full:
            return Full()
        before = stored.state if stored and now < stored.until else None
        state = place(before, command.fingerprint, command.epoch)
        self._sequences[command.sequence] = _StoredSequence(state, now + command.keep_for)
        return state

    def _entry(self, key: Fingerprint, now: float) -> _Entry | None:
        """Returns what the key holds, unless its time is over. An acceptance from the future counts as none."""
        match self._entries.get(key):
            case _HeldEntry(until=until) as entry if now < until:
                return entry
            case _SentEntry(since=since, until=until) as entry if since <= now < until:
                return entry
        return None

    def _sweep(self, executed: int, now: float) -> None:
        """Removes expired entries now and then. Otherwise keys that are asked for only once would stay for ever."""
        self._until_sweep -= executed
        if self._until_sweep <= 0:
            self._entries = {key: entry for key, entry in self._entries.items() if now < entry.until}
            self._sequences = {name: stored for name, stored in self._sequences.items() if now < stored.until}
            self._until_sweep = max(_SWEEP_AFTER, len(self._entries) + len(self._sequences))


def _state(entry: _Entry | None) -> State:
    match entry:
        case _HeldEntry():
            return State.HELD
        case _SentEntry():
            return State.SENT
    return State.FREE


def _condition(command: KeyCommand, entry: _Entry | None, now: float) -> Condition:
    """Returns which of the conditions in the table of the life cycle holds."""
    match command, entry:
        case Confirm(window=window, age=age), _ if age >= window:
            return Condition.PAST_WINDOW
        case Confirm(original=original), _SentEntry(before):
            return Condition.SAME_MESSAGE if original.id == before.id else Condition.OTHER_MESSAGE
        case Claim(window=window) | Peek(window=window), _SentEntry(since=since):
            return Condition.IN_WINDOW if now - since < window else Condition.PAST_WINDOW
        case ((Claim() | Confirm() | Renew() | Release()), _HeldEntry(token)):
            return Condition.SAME_TOKEN if command.token == token else Condition.OTHER_TOKEN
    return Condition.IN_WINDOW


def _describe(entry: _Entry | None, now: float) -> Free | Held | Sent:
    match entry:
        case _HeldEntry(_, until):
            return Held(until - now)
        case _SentEntry(original, since, until):
            return Sent(original, now - since, until - since)
    return Free()
