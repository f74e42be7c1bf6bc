"""Play one scenario and give its row."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from faults.checker import check
from faults.rest import come_to_rest, descriptors, kept_ports, resident, send_again
from faults.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults.scenario import Scenario

SHOWN = 20
"""Findings of one kind that are kept with a result."""


@dataclass
class Result:
    """A row of the report, as measured."""

    name: str
    seed: int
    relays: int
    store: str
    upstream: str
    asked: int
    """The number of messages that the scenario was given."""
    messages: int = 0
    """Different ones that were sent."""
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
    """Seconds from a client's connecting to its reply."""
    seconds: float = 0.0
    memory: tuple[int, int] = (0, 0)
    """KiB of the first relay before and after; 0 where it did not live through the run."""
    findings: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.findings)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


async def play(
    scenario: Scenario, messages: int, seed: int, progress: Callable[[Run], None] = lambda _: None
) -> Result:
    """Run it to its end. Never raises: whatever goes wrong, the relay's doing or our own, stands in the findings."""
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
        before = {number: descriptors(relay, without=kept_ports(run)) for number, relay in enumerate(run.relays)}
        memory = resident(run.relays[0])
        watch = asyncio.create_task(_watch(run, progress))
        try:
            async with asyncio.timeout(scenario.limit):
                await scenario.play(run)
                if not scenario.forgets:
                    await send_again(run)
                if 0 not in run.restarted:
                    result.memory = (memory, resident(run.relays[0]))
                await come_to_rest(run, before)
                run.history.copies = await run.receiver.copies()
        except Exception as error:  # noqa: BLE001 - one scenario must not end the others
            run.complain(f"the run broke off: {_words(error)}")
            run.history.copies = run.peer.taken if hasattr(run, "peer") else []
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
    result.outcomes = dict(sum((told.log for told in run.history.accounts), start=type(verdict.excused)()))
    result.heard = dict(run.clients.heard.most_common())
    result.deaths, result.outages = len(run.history.deaths), len(run.history.outages)
    result.slowest = round(run.clients.slowest, 2)
    result.findings = [
        *(f"lost: {text}" for text in verdict.lost[:SHOWN]),
        *(f"doubled: {text}" for text in verdict.doubled[:SHOWN]),
        *(f"doubled, not to be expected here: {count} of {cause!r}" for cause, count in unexpected.items()),
        *verdict.wrong[:SHOWN],
    ]


async def _watch(run: Run, progress: Callable[[Run], None]) -> None:
    while True:
        progress(run)
        await asyncio.sleep(0.5)


def _words(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_words(each) for each in error.exceptions)
    return f"{type(error).__name__}: {error}"
