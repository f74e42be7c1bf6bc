"""Copies the records that version 0.1 wrote to the store of claims into a store of traces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.core.errors import StoreError
from relay.events.records import RECORDS_NOT_COPIED
from relay.records.old_records import decode

if TYPE_CHECKING:
    from relay.core.store import OldRecords
    from relay.core.trace import TraceStore

_BATCH = 100


async def take_over(records: OldRecords, traces: TraceStore, keep_for: float) -> None:
    """Copies records that are not older than `keep_for` seconds, and closes their store. Never raises `StoreError`.

    The records stay where they are until they expire, so that version 0.1 finds them if it is started again.
    """
    try:
        found = [trace async for line in records.records(keep_for) if (trace := decode(line))]
        found.reverse()
        for start in range(0, len(found), _BATCH):
            await traces.append(found[start : start + _BATCH])
    except StoreError as error:
        RECORDS_NOT_COPIED.log(error=str(error))
    finally:
        await records.close()
