"""The end of a run: the relays become idle, and nothing may be left over."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from parts.waiting import until

from faults import in_redis
from faults.history import Account, Suppression

if TYPE_CHECKING:
    from parts.relay_process import RelayProcess

    from faults.run import Run

SAMPLE = 20
"""Messages that are sent again at the end, within the window."""
_AT_REST = 0.3
"""Seconds without a new count after which a relay is idle."""
_REST_WITHIN = 90.0
_CLOSED_WITHIN = 20.0
"""Seconds within which a relay closes a connection that its client has closed."""
_ENDS_WITHIN = 30.0
"""Seconds from SIGTERM to the end of a relay: `limits.drain` and some more, less than the unit's stop time."""
_EVERY_TIME = frozenset({"message", "serving", "ended", "draining"})
"""Log events that every run has."""
_LONGEST_KIND = 150


def descriptors(relay: RelayProcess, *, without: set[int]) -> int:
    """Returns the number of open files of a relay, without its pooled connections to these ports."""
    inodes = _sockets_to(relay.pid, without)
    links = []
    for entry in Path(f"/proc/{relay.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(str(entry.readlink()))
    return sum(link not in inodes for link in links)


def resident(relay: RelayProcess) -> int:
    """Returns the memory of a relay in KiB."""
    return _memory(relay, "VmRSS")


def peak(relay: RelayProcess) -> int:
    """Returns the most memory in KiB that a relay has had since `reset_peak`."""
    return _memory(relay, "VmHWM")


def reset_peak(relay: RelayProcess) -> int:
    """Lets `peak` start from the memory that a relay has now, and returns that in KiB."""
    Path(f"/proc/{relay.pid}/clear_refs").write_text("5")
    return peak(relay)


def _memory(relay: RelayProcess, name: str) -> int:
    status = Path(f"/proc/{relay.pid}/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0])


def _sockets_to(pid: int, ports: set[int]) -> set[str]:
    """Returns the names, as in /proc, of a process's connections to these ports."""
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return {f"socket:[{each[9]}]" for each in fields if int(each[2].rpartition(":")[2], 16) in ports}


async def wait_until_idle(run: Run, before: dict[int, int]) -> None:
    """Waits until nothing is in progress, records what the relays report, and ends them.

    `before` is the number of open files of each relay at its start.
    """
    metrics: dict[int, Counter[str]] = {}
    for number, relay in enumerate(run.relays):
        counted = await _at_rest(run, relay)
        if number not in run.restarted:
            metrics[number] = counted
        open_now = await _descriptors_at_rest(run, relay, before[number])
        if number not in run.restarted and open_now > before[number]:
            run.complain(f"relay {number} has {open_now} descriptors open, {before[number]} at its start")
    asked = time.monotonic()
    for relay in run.relays:
        relay.terminate()
    for number, relay in enumerate(run.relays):
        if status := await relay.wait(seconds=60):
            run.complain(f"relay {number} ended with {status}")
        if (seconds := time.monotonic() - asked) > _ENDS_WITHIN:
            run.complain(f"relay {number} ended {seconds:.0f} s after SIGTERM")
        run.history.accounts.append(_account(run, number, relay, metrics.get(number)))
    _look_into_store(run)


async def _descriptors_at_rest(run: Run, relay: RelayProcess, most: int) -> int:
    """Returns the number of open files of a relay, after it has closed the connection of our last request."""

    def count() -> int:
        # Connections to the upstream and the store are pooled.
        return descriptors(relay, without=run.kept_ports())

    with contextlib.suppress(TimeoutError):
        await until(lambda: count() <= most, "connections that are closed", seconds=_CLOSED_WITHIN)
    return count()


async def _at_rest(run: Run, relay: RelayProcess) -> Counter[str]:
    """Waits until a relay has no session and counts nothing more. Returns its recipients by outcome."""
    last: object = None
    since = time.monotonic()
    deadline = since + _REST_WITHIN
    while True:
        metrics = await relay.metrics()
        busy = {name: metrics.value(f"smtp_dedup_{name}") for name in ("sessions", "claims")}
        state = (metrics.outcomes(), metrics.messages(), busy)
        now = time.monotonic()
        if state != last or any(busy.values()):
            last, since = state, now
        if now - since > _AT_REST:
            break
        if now > deadline:
            run.complain(f"not at rest after {_REST_WITHIN:g} s: {state}")
            break
        await asyncio.sleep(0.05)
    if faults := metrics.value("smtp_dedup_faults_total"):
        run.complain(f"{faults:g} faults of the relay itself")
    return Counter(metrics.outcomes())


def _account(run: Run, number: int, relay: RelayProcess, metrics: Counter[str] | None) -> Account:
    account = Account(number, metrics=None if metrics is None else Counter(metrics))
    account.log_is_complete = run.scenario.log_is_read
    for text in relay.stderr().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            if text and not text.startswith("warning: "):
                run.complain(f"relay {number} says: {text[:300]}")
            continue
        if line["event"] not in _EVERY_TIME:
            account.events[_kind(line)] += 1
        if "traceback" in line:
            run.complain(f"relay {number}: {line['event']}: {line['traceback'][-300:]}")
        if line["event"] != "message":
            continue
        account.records.add(line["record"])
        account.log.update(line["recipients"])
        count = line["recipients"].get("suppressed", 0)
        if count:
            attempt = line["message_id"].strip("<>").partition("@")[0]
            originals = tuple(repeat["record"] for repeat in line.get("repeats", ()))
            account.suppressions.append(Suppression(line["record"], attempt, count, originals))
    if not account.log_is_complete and metrics is not None:
        account.log = Counter(metrics)
    return account


def _kind(line: dict[str, str]) -> str:
    """Returns event and error of a log entry without their variable parts, so that equal ones can be counted."""
    text = ": ".join(line[name] for name in ("event", "error") if name in line)
    text = re.sub(r" script: \w+, on @\w+:\d+\.?", "", text)  # Redis's name of a Lua script
    text = re.sub(r"(?<![\w.-])/[\w./-]+", "FILE", text)
    text = re.sub(r"\d[\d.]*(:\d+)?", lambda found: "HOST:PORT" if found[1] else "N", text)
    text = re.sub(r"(HOST:PORT[, ]*)+(?=HOST:PORT)", "", text)
    return text if len(text) <= _LONGEST_KIND else text[:_LONGEST_KIND] + "…"


def _look_into_store(run: Run) -> None:
    """Checks that every key expires, that no claim outlives its lease, and that drained relays hold none."""
    if servers := run.servers():
        for key, left in in_redis.keys(servers).items():
            if left == -1:
                run.complain(f"key {key} has no expiry")
        held = {key: left / 1000 for key, left in in_redis.held(servers).items()}
        in_redis.age(servers, run.history.lease)
        # A key that was shortened has 1 ms left.
        if after := [key for key, left in in_redis.held(servers).items() if left > 1]:
            run.complain(f"held after the lease: {after[:3]}")
    elif run.scenario.store == "sqlite" and run.sqlite.exists() and not run.unreadable_store:
        with contextlib.closing(sqlite3.connect(f"file:{run.sqlite}?mode=ro", uri=True)) as connection:
            held = dict(connection.execute("SELECT key, until - since FROM claims WHERE token IS NOT NULL"))
    else:
        return
    for key, seconds in held.items():
        if seconds > run.history.lease + 1:
            run.complain(f"{key} is held for {seconds:.1f} s, longer than a lease")
    # A relay that drained while its store was up has released everything.
    if held and not (run.history.deaths or run.history.outages or run.history.stalls):
        run.complain(f"still held when all relays have ended: {list(held)[:3]}")


async def send_again(run: Run, most: int = SAMPLE, relay: int | None = None) -> int:
    """Sends at most so many delivered messages again, to any relay or to this one, and returns how many.

    The checker finds a duplicate that results from it.
    """
    promised = {attempt.message: attempt for attempt in run.history.attempts.values() if attempt.promised}
    chosen = run.chance.sample(sorted(promised), min(most, len(promised)))
    for message in chosen:
        where = run.chance.randrange(len(run.relays)) if relay is None else relay
        await asyncio.wait_for(run.clients.insist(message, promised[message].recipients, where), 60)
    return len(chosen)


def see_that_all_heard(run: Run) -> None:
    """Checks that every dot has a reply."""
    for attempt in run.history.attempts.values():
        if attempt.sent and not attempt.code:
            run.complain(f"{attempt.id} sent its dot and heard nothing: {attempt.text}")


def check_replies(run: Run, allowed: set[str]) -> None:
    """Checks that clients received no other replies than these."""
    if others := {reply: count for reply, count in run.clients.heard.items() if reply not in allowed}:
        run.complain(f"clients heard {others}")


async def all_is_written(run: Run) -> None:
    """Waits until the relays have written all acceptances back to Redis."""
    expected = {(copy.message, to) for copy in run.taken() for to in copy.recipients}
    for _ in range(200):
        found = await asyncio.to_thread(in_redis.sent, run.servers())
        if found >= len(expected):
            return
        await asyncio.sleep(0.1)
    run.complain(f"the store knows {found} of {len(expected)} acceptances")
