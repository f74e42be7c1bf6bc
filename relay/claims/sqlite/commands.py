"""The SQL statements that carry out a store's commands. The caller provides the transaction and the time."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from relay.claims.wire_form import decode, decode_recipient, decode_sequence, encode, encode_sequence
from relay.core.claim import (
    RANDOM_NAME,
    AskGeneration,
    Claim,
    Confirm,
    Done,
    Entry,
    Fingerprint,
    Follow,
    Free,
    Generation,
    Held,
    Peek,
    Release,
    Renew,
    Sent,
    Unknown,
    Won,
)
from relay.core.sequence import place

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from relay.core.claim import Answer, Command

_CLOCK_SLACK = 1.0
"""Seconds by which an entry may be ahead of the clock, which is corrected by small steps. If it is more, the clock was
set back before this boot: the entry would suppress for longer than its window, so it counts as free."""

_TAKE = """
INSERT INTO claims (key, token, original, since, until) VALUES (:key, :token, NULL, :now, :now + :lease)
ON CONFLICT (key) DO UPDATE
SET token = excluded.token, original = NULL, since = excluded.since, until = excluded.until
WHERE until <= :now OR since > :latest OR token = :token
   OR (original IS NOT NULL AND :now - since >= :window)
"""
_CONFIRM = "INSERT OR REPLACE INTO claims (key, token, original, since, until) VALUES (?, NULL, ?, ?, ?)"
_RENEW = """
UPDATE claims SET since = :now, until = :now + :lease
WHERE key = :key AND token = :token AND until > :now AND since <= :latest
"""
_RELEASE = "DELETE FROM claims WHERE key = ? AND token = ?"
_STATE = "SELECT token, original, since, until FROM claims WHERE key = ?"
_SENT = """
SELECT key, original, since FROM claims
WHERE key > :after AND original IS NOT NULL AND until > :now AND since <= :latest ORDER BY key LIMIT :rows
"""
_FREE = "DELETE FROM claims WHERE key = :key AND original IS NOT NULL AND since <= :latest"
_SEQUENCE = "SELECT state, until FROM sequences WHERE name = ?"
_SET_SEQUENCE = "INSERT OR REPLACE INTO sequences VALUES (?, ?, ?)"
_META = "SELECT value FROM meta WHERE name = ?"
_SET_META = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
_RECORDS = """
SELECT at, id, text FROM records
WHERE (at, id) < (:at, :id) AND at >= :earliest AND until > :now ORDER BY at DESC, id DESC LIMIT :rows
"""
_SWEEPS = (
    "DELETE FROM claims WHERE key IN (SELECT key FROM claims WHERE until <= :now LIMIT :rows)",
    "DELETE FROM sequences WHERE name IN (SELECT name FROM sequences WHERE until <= :now LIMIT :rows)",
    "DELETE FROM records WHERE id IN (SELECT id FROM records WHERE until <= :now LIMIT :rows)",
)

_SWEEP_ROWS = 1_000
"""Expired rows that one sweep deletes: a limit, but twice what can have been added since the last sweep."""

_PAGE = 500
"""Rows that are read at a time, before others may write again."""


def adds_claim(connection: sqlite3.Connection, command: Command) -> bool:
    """Returns whether the command could add a row to the claims or the sequences."""
    if isinstance(command, Follow):
        return connection.execute(_SEQUENCE, (command.sequence,)).fetchone() is None
    if not isinstance(command, Claim | Confirm):
        return False
    return connection.execute(_STATE, (command.key,)).fetchone() is None


def carry_out(connection: sqlite3.Connection, command: Command, now: float, late: float) -> Answer:
    """Carries out a command that was given `late` seconds before `now`."""
    match command:
        case Claim(key, token, lease, window):
            given = {"key": key, "token": token, "lease": lease, "window": window, **_moment(now)}
            return Won() if connection.execute(_TAKE, given).rowcount else _state(connection, key, window, now)
        case Peek(key, window):
            return _state(connection, key, window, now)
        case Confirm(key, original, window, age, recipient):
            since = now - late - age
            if now < since + window:
                taken = _is_anothers(connection, command, now)
                connection.execute(_CONFIRM, (key, encode(original, recipient), since, since + window))
                return Done(taken)
        case Renew(key, token, lease):
            given = {"key": key, "token": token, "lease": lease, **_moment(now)}
            return Done() if connection.execute(_RENEW, given).rowcount else _state(connection, key, float("inf"), now)
        case Release(key, token):
            connection.execute(_RELEASE, (key, token))
        case Follow() | AskGeneration():
            return _follow(connection, command, now) if isinstance(command, Follow) else _generation(connection)
    return Done()


def _follow(connection: sqlite3.Connection, command: Follow, now: float) -> Answer:
    """Changes the sequence. One that is damaged begins anew."""
    text, until = connection.execute(_SEQUENCE, (command.sequence,)).fetchone() or (None, 0.0)
    before = decode_sequence(text) if isinstance(until, float) and now < until else None
    state = place(before, command.fingerprint, command.epoch)
    connection.execute(_SET_SEQUENCE, (command.sequence, encode_sequence(state), now + command.keep_for))
    return state


def _generation(connection: sqlite3.Connection) -> Answer:
    name = meta(connection, "generation")
    return Generation(name) if not name or RANDOM_NAME.fullmatch(name) else Unknown("the generation is damaged")


def _moment(now: float) -> dict[str, float]:
    return {"now": now, "latest": now + _CLOCK_SLACK}


def _state(connection: sqlite3.Connection, key: Fingerprint, window: float, now: float) -> Answer:
    row = connection.execute(_STATE, (key,)).fetchone()
    if row is None:
        return Free()
    token, text, since, until = row
    if not isinstance(since, float) or not isinstance(until, float):
        return Unknown("the entry is damaged")
    if until <= now or since > now + _CLOCK_SLACK:
        return Free()
    if text is None:
        return Held(until - now) if token is not None else Unknown("the entry is damaged")
    age = max(0.0, now - since)
    if age >= window:
        return Free()
    original = decode(text) if isinstance(text, str | bytes) else None
    return Sent(original, age, until - since) if original else Unknown("the entry is damaged")


def _is_anothers(connection: sqlite3.Connection, confirm: Confirm, now: float) -> bool:
    token, text, _, until = connection.execute(_STATE, (confirm.key,)).fetchone() or (None, None, 0.0, 0.0)
    if not isinstance(until, float) or until <= now:
        return False
    original = decode(text) if isinstance(text, str | bytes) else None
    return original.id != confirm.original.id if original else token not in (None, confirm.token)


def _entry(key: str, text: object, age: float) -> Entry | None:
    original = decode(text) if isinstance(text, str | bytes) else None
    if original is None or not isinstance(text, str | bytes):
        return None
    return Entry(Fingerprint(key), original, max(0.0, age), decode_recipient(text))


def meta(connection: sqlite3.Connection, name: str) -> str:
    """Returns a value of the table `meta`; empty if there is none."""
    row = connection.execute(_META, (name,)).fetchone()
    return str(row[0]) if row else ""


def set_meta(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Writes a value to the table `meta`."""
    connection.execute(_SET_META, (name, value))


def identity(connection: sqlite3.Connection) -> str:
    """Returns the random id of this file. The first call makes it, and replaces what no relay wrote."""
    found = meta(connection, "identity")
    if not RANDOM_NAME.fullmatch(found):
        found = secrets.token_hex(8)
        set_meta(connection, "identity", found)
    return found


def used_bytes(connection: sqlite3.Connection) -> int:
    """Returns the size of the file without its free pages."""
    pages, free_pages, page_size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free_pages) * page_size)


def read_records(
    connection: sqlite3.Connection, now: float, age: float, at: float, number: int
) -> list[tuple[float, int, str]]:
    """Returns a page of old records (time, id, text), newest first, that begins after the given time and id."""
    given = {"at": at, "id": number, "earliest": now - age, "now": now, "rows": _PAGE}
    return connection.execute(_RECORDS, given).fetchall()


def read_sent(connection: sqlite3.Connection, now: float, after: str) -> dict[str, Entry | None]:
    """Returns a page of acceptances by key, that begins after the given key. None: the entry is damaged."""
    rows = connection.execute(_SENT, {"after": after, "rows": _PAGE, **_moment(now)})
    return {key: _entry(key, text, now - since) for key, text, since in rows}


def free(connection: sqlite3.Connection, now: float, keys: Iterable[str]) -> int:
    """Deletes the acceptances of these keys up to now. Returns how many there were."""
    return connection.executemany(_FREE, [{"key": key, **_moment(now)} for key in keys]).rowcount


def sweep(connection: sqlite3.Connection, now: float) -> None:
    """Deletes some of the expired rows."""
    for statement in _SWEEPS:
        connection.execute(statement, {"now": now, "rows": _SWEEP_ROWS})
