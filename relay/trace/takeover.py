"""Copies the records that version 0.1 wrote to the store of claims into a store of traces."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relay.core.errors import StoreError
from relay.core.trace import TraceQuery
from relay.events.records import RECORDS_NOT_COPIED
from relay.records.old_records import decode

if TYPE_CHECKING:
    from relay.core.store import OldRecords
    from relay.core.trace import TraceStore

MOST_RECORDS = 20_000
"""The newest records, which are copied. They are held in memory meanwhile: stores read the newest first, and traces are
written in the order of their times."""
_BATCH = 100


async def has_traces(traces: TraceStore, limit: float) -> bool:
    """Returns whether there are traces. True if the store does not answer in `limit` seconds: the next start asks."""
    try:
        async with asyncio.timeout(limit):
            return bool((await traces.find(TraceQuery(), 1)).traces)
    except (StoreError, TimeoutError):
        return True


async def take_over(records: OldRecords, traces: TraceStore, keep_for: float, most: int = MOST_RECORDS) -> None:
    """Copies the newest records, not older than `keep_for` seconds, and closes their store. Never raises `StoreError`.

    The records stay where they are until they expire, so that version 0.1 finds them if it is started again.
    """
    try:
        lines: list[str] = []
        async for line in records.records(keep_for):
            lines.append(line)
            if len(lines) == most:
                break
        lines.reverse()
        for start in range(0, len(lines), _BATCH):
            await traces.append([trace for line in lines[start : start + _BATCH] if (trace := decode(line))])
    except StoreError as error:
        RECORDS_NOT_COPIED.log(error=str(error))
    finally:
        await records.close()
