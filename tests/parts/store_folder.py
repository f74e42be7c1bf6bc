"""A store with records and acceptances, for the tests of the commands about records."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner, Result

from relay.claims.sqlite.store import SqliteStore
from relay.cli import main
from relay.core.claim import Confirm, Fingerprint, Original
from relay.core.envelope import fold
from relay.core.trace import RecipientTrace, Trace, TraceOutcome
from relay.records.kept_copies import KeptCopies
from relay.records.pseudonyms import Pseudonyms
from relay.records.secret import ensure_secret
from relay.trace.segments import Limits
from relay.trace.sqlite import SqliteTraceStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from relay.core.claim import Command
    from relay.core.store import Store
    from relay.core.trace import TraceStore

DAY = 86400.0
NOW = time.time()
FIRST = Original("aaaaaaaaaaaa", "<first@example.test>", "2.0.0 Ok: queued as 4XYZ", NOW - 154)
OTHER = Original("bbbbbbbbbbbb", "<other@example.test>", "2.0.0 Ok: queued as 5XYZ", NOW - 220)


def repeat(name: str, original: Original | None = FIRST, **more: Any) -> RecipientTrace:
    values = {"outcome": "suppressed", "rule": "default", "fingerprint": f"v1:{name}", "age": 34.0} | more
    reply = original.reply if original else ""
    values["outcome"] = TraceOutcome(values["outcome"])
    return RecipientTrace(recipient=name, original=original, reply=reply, **values)


def record(id_: str, *repeats: RecipientTrace, at: float = NOW - 120, **more: Any) -> Trace:
    """Returns the trace of a suppressed message."""
    values = dict.fromkeys(("host", "peer", "helo", "login", "subject", "upstream", "reply"), "") | {
        "seconds": 0.0,
        "size": 0,
        "message_id": f"<{id_}@example.test>",
        "sender": "h:1111111111111111",
        "forms": {"default": ("Subject 1c9f03a2", "text/html 00112233")},
        "ignored": {"default": ("avideo: cache value of a thumbnail",)},
    }
    return Trace(id=id_, at=at, recipients=repeats, **(values | more))


class StoreFolder:
    """A folder with a SQLite store, its secret and kept copies, which a test fills before it runs a command."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.flags = ["--set", f"store.url=sqlite:{path}/relay.db", "--set", f"record.keep=maildir:{path}/kept"]
        self.names = Pseudonyms(ensure_secret(None, path / "record.key"), plain=False)
        self.keep = KeptCopies(path / "kept")

    def name(self, address: str) -> str:
        """Return an address as records contain it."""
        return self.names(fold(address.encode()))

    def fill(self, *records: Trace, sent: Sequence[Command] = ()) -> None:
        asyncio.run(_fill(SqliteStore(self.path / "relay.db"), sent, self.traces(), records))

    def traces(self) -> SqliteTraceStore:
        """Returns the store of traces."""
        return SqliteTraceStore(self.path / "relay.trace.db", Limits(30 * DAY, 100 << 20))

    def sent(self, key: str, original: Original = FIRST, *, to: str = "", age: float = 100.0) -> Command:
        return Confirm(Fingerprint(key), original, 600.0, age, self.name(to))

    def call(self, command: str, *arguments: str) -> Result:
        """Run a command on this store, in this process."""
        given = [command, *self.flags, *arguments]
        return CliRunner().invoke(main, given, prog_name="relay", env={"STATE_DIRECTORY": str(self.path)})


async def _fill(store: Store, commands: Sequence[Command], traces: TraceStore, records: Sequence[Trace]) -> None:
    await store.open()
    await store.execute(commands)
    await store.close()
    await traces.open()
    await traces.append(records)
    await traces.close()
