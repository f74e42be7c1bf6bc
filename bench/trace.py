"""How long searches take in a store of a million traces, and how much memory they need.

    python bench/trace.py sqlite|redis [TRACES]

Starts a Redis server of its own. Each search is made seven times; the middle one counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from processes import HOST, free_port

from relay.claims.redis.servers import Address, RedisServers
from relay.core.trace import RecipientTrace, Step, Trace, TraceOutcome, TraceQuery
from relay.trace.redis import RedisTraceStore
from relay.trace.segments import Limits
from relay.trace.sqlite import SqliteTraceStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.core.trace import TraceStore

BATCH = 100
START = 1_700_000_000.0
LIMITS = Limits(keep_for=400 * 86400.0, size=4 << 30)


def trace(number: int) -> Trace:
    """Returns one of a million: 50,000 recipients, 100 senders, two refused and one deferred in a thousand."""
    outcome = {1: TraceOutcome.REFUSED, 2: TraceOutcome.REFUSED, 3: TraceOutcome.DEFERRED}.get(number % 1000)
    rule = "rare" if number % 100_000 == 5 else "default"
    reply = f"250 2.0.0 Ok: queued as 4Q{number:09X}"
    return Trace(
        id=f"{number * 2654435761 % (1 << 48):012x}",
        at=START + number / 10,
        seconds=0.031,
        host="relay.example.org",
        peer="127.0.0.1",
        helo="tube.example.org",
        login="",
        sender=f"h:{number % 100:016x}",
        message_id=f"<{number:08x}@tube.example.org>",
        subject="",
        size=9120,
        upstream="127.0.0.1:25",
        reply=reply,
        recipients=(
            RecipientTrace(
                f"h:{number * 48271 % 50_000:016x}",
                outcome or TraceOutcome.FORWARDED,
                reply,
                rule,
            ),
        ),
        steps={Step.UPLOAD: 0.002, Step.JUDGE: 0.001, Step.CLAIM: 0.002, Step.DELIVER: 0.02},
    )


def searches(count: int) -> dict[str, TraceQuery]:
    """Returns a query of each kind."""
    some = trace(count // 3)
    return {
        "newest page": TraceQuery(),
        "address": TraceQuery(names=frozenset({some.recipients[0].recipient})),
        "message-id": TraceQuery(names=frozenset({some.message_id[1:-1]})),
        "queue id": TraceQuery(names=frozenset({some.reply.split()[-1]})),
        "id": TraceQuery(names=frozenset({some.id})),
        "nothing found": TraceQuery(names=frozenset({"h:ffffffffffffffff"})),
        "sender and outcome": TraceQuery(names=frozenset({some.sender}), outcomes=frozenset({TraceOutcome.REFUSED})),
        "rare outcome": TraceQuery(outcomes=frozenset({TraceOutcome.DEFERRED})),
        "rare rule": TraceQuery(rule="rare"),
        "an hour long ago": TraceQuery(since=some.at, until=some.at + 3600),
    }


async def measure(store: TraceStore, count: int) -> None:
    """Fills the store and prints what searches in it take."""
    await store.open()
    begun = time.process_time()
    for first in range(0, count, BATCH):
        await store.append([trace(number) for number in range(first, min(first + BATCH, count))])
    print(f"{count:,} traces; {(time.process_time() - begun) / count * 1e6:.0f} us of CPU each, with their making")
    before = peak()
    for name, query in searches(count).items():
        taken = []
        for _ in range(7):
            begun = time.perf_counter()
            page = await store.find(query, 50)
            taken.append(time.perf_counter() - begun)
        line = f"{name:20} {statistics.median(taken) * 1000:6.1f} ms, {len(page.traces)} found"
        if page.next:
            begun = time.perf_counter()
            await store.find(query, 50, page.next)
            line += f", next page {(time.perf_counter() - begun) * 1000:.1f} ms"
        print(line)
    begun = time.perf_counter()
    await store.counts(START + count / 10 - 86400, 60)
    print(f"{'counts of a day':20} {(time.perf_counter() - begun) * 1000:6.1f} ms")
    print(f"memory {before} MiB before the searches, {peak()} MiB at most in them")
    await store.close()


def peak() -> int:
    """Returns the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@contextlib.contextmanager
def opened(kind: str) -> Iterator[TraceStore]:
    """Yields an empty store."""
    now = START + 200_000
    with tempfile.TemporaryDirectory() as folder:
        if kind == "sqlite":
            path = Path(folder, "relay.trace.db")
            yield SqliteTraceStore(path, LIMITS, now=lambda: now)
            print(f"{path.stat().st_size >> 20} MiB on the disk")
            return
        port = free_port()
        server = subprocess.Popen(
            ["redis-server", "--port", str(port), "--save", "", "--dir", folder, "--loglevel", "warning"]
        )
        time.sleep(1)
        try:
            yield RedisTraceStore(RedisServers((Address(HOST, port),)), LIMITS, now=lambda: now, timeout=60.0)
            info = subprocess.run(
                ["redis-cli", "-p", str(port), "info", "memory"], capture_output=True, text=True, check=True
            )
            print(next(line for line in info.stdout.splitlines() if line.startswith("used_memory_human")))
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    with opened(arguments[0]) as store:
        asyncio.run(measure(store, int(arguments[1]) if arguments[1:] else 1_000_000))
