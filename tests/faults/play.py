"""Runs one scenario and returns its row of the report."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import aiohttp

from faults.checker import check, exposed
from faults.rest import descriptors, resident, send_again, wait_until_idle
from faults.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults.scenario import Scenario

WATCH_EVERY = 0.2
"""Seconds between two requests for `/readyz`."""
SHOWN = 20
"""The number of findings of one kind that a result keeps."""


@dataclass
class Result:
    """The measured row of the report."""

    name: str
    seed: int
    relays: int
    store: str
    upstream: str
    asked: int
    """The number of messages that the scenario was asked to send."""
    messages: int = 0
    """The number of different messages that were sent."""
    recipients: int = 0
    attempts: int = 0
    lost: int = 0
    doubled: int = 0
    excused: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    heard: dict[str, int] = field(default_factory=dict)
    deaths: int = 0
    outages: int = 0
    slowest: float = 0.0
    """Seconds from a client's connection to its reply."""
    seconds: float = 0.0
    memory: tuple[int, int] = (0, 0)
    """KiB of the first relay before and after; 0 if it was restarted."""
    exposed: int = 0
    """The most duplicates that several relays may cause while they have no common store."""
    states: list[str] = field(default_factory=list)
    """The reports of `/readyz` about faults."""
    events: dict[str, int] = field(default_factory=dict)
    """Log entries, by kind."""
    notes: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.findings)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


async def play(
    scenario: Scenario, messages: int, seed: int, progress: Callable[[Run], None] = lambda _: None
) -> Result:
    """Runs a scenario. Never raises: the findings contain each fault, of the relay and of the harness."""
    begun = time.monotonic()
    result = Result(scenario.name, seed, scenario.relays, scenario.store, scenario.upstream, messages)
    try:
        await _play(scenario, result, progress)
    except Exception as error:  # noqa: BLE001 - one scenario must not end the others
        result.findings.append(f"the parts failed: {_words(error)}")
    result.seconds = round(time.monotonic() - begun, 1)
    return result


async def _play(scenario: Scenario, result: Result, progress: Callable[[Run], None]) -> None:
    async with Run(scenario, result.asked, result.seed) as run:
        before = {number: descriptors(relay, without=run.kept_ports()) for number, relay in enumerate(run.relays)}
        memory = resident(run.relays[0])
        watch = asyncio.create_task(_watch(run, result, progress))
        try:
            async with asyncio.timeout(scenario.limit):
                await scenario.play(run)
                if not scenario.forgets:
                    await send_again(run)
                if 0 not in run.restarted:
                    result.memory = (memory, resident(run.relays[0]))
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)
                await wait_until_idle(run, before)
                run.history.copies = await run.copies()
        except Exception as error:  # noqa: BLE001 - one scenario must not end the others
            run.complain(f"the run broke off: {_words(error)}")
            run.history.copies = run.taken()
        finally:
            watch.cancel()
        _judge(scenario, run, result)


def _judge(scenario: Scenario, run: Run, result: Result) -> None:
    verdict = check(run.history)
    unexpected = {cause: count for cause, count in verdict.excused.items() if cause not in scenario.excuses}
    result.messages, result.recipients = verdict.messages, verdict.recipients
    result.attempts = len(run.history.attempts)
    result.lost, result.doubled = len(verdict.lost), len(verdict.doubled) + sum(unexpected.values())
    result.excused = {cause: count for cause, count in verdict.excused.items() if cause in scenario.excuses}
    result.outcomes = dict(sum((account.log for account in run.history.accounts), start=type(verdict.excused)()))
    result.heard = dict(run.clients.heard.most_common())
    result.deaths, result.outages = len(run.history.deaths), len(run.history.outages)
    result.slowest = round(run.clients.slowest, 2)
    result.exposed = exposed(run.history)
    events = sum((account.events for account in run.history.accounts), start=type(verdict.excused)())
    result.events = dict(events.most_common(SHOWN))
    result.notes = run.notes
    result.findings = [
        *(f"lost: {text}" for text in verdict.lost[:SHOWN]),
        *(f"doubled: {text}" for text in verdict.doubled[:SHOWN]),
        *(f"doubled, not to be expected here: {count} of {cause!r}" for cause, count in unexpected.items()),
        *verdict.wrong[:SHOWN],
    ]


async def _watch(run: Run, result: Result, progress: Callable[[Run], None]) -> None:
    """Polls `/readyz` of the relays, as a monitor does."""
    while True:
        progress(run)
        for relay in run.relays:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                ready = await relay.readyz()
                _note_state(result, ready)
        await asyncio.sleep(WATCH_EVERY)


def _note_state(result: Result, ready: dict[str, Any]) -> None:
    ways = [
        f"{part} {state}" for part, state in ready.items() if part in ("store", "upstream", "trace") and state != "up"
    ]
    if ready["status_code"] != HTTPStatus.OK or ways:
        state = f"{ready['status_code']} " + ", ".join(ways or [str(ready.get("status", ""))])
        if state.strip() not in result.states:
            result.states.append(state.strip())


def _words(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_words(each) for each in error.exceptions)
    return f"{type(error).__name__}: {error}"
