"""Records as version 0.1 wrote them into a store of claims."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from parts.redis_server import RedisServer


class OldRecord(NamedTuple):
    """A record; `at` in seconds since the epoch, `keep_for` in seconds."""

    id: str
    text: str
    at: float
    keep_for: float


def write_to_sqlite(path: Path, records: Sequence[OldRecord]) -> None:
    """Adds records to a file that a store has created. A record replaces an earlier one with the same id."""
    insert = """
        INSERT OR REPLACE INTO records (id, record, text, at, until)
        SELECT coalesce(max(id), 0) + 1, ?, ?, ?, ? FROM records
    """
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(insert, [(name, text, at, at + keep) for name, text, at, keep in records])


def write_to_redis(server: RedisServer, records: Sequence[OldRecord], stream: str = "smtp-dedup:records") -> None:
    """Adds records to the stream, the oldest first. A long record was followed by an empty one."""
    with server.client() as client, client.pipeline(transaction=False) as pipeline:
        for name, text, at, keep in records:
            fields = {"record": name, "keep": int(keep * 1000), "text": text}
            pipeline.xadd(stream, fields, id=f"{int(at * 1000)}-*")
            if len(text) >= 1024:
                pipeline.xadd(stream, {"": ""}, id=f"{int(at * 1000)}-*")
        pipeline.pexpire(stream, 3_600_000)
        pipeline.execute()
