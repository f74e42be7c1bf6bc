"""What the page shows: the parts of the relay that it asks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from relay.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from relay.core.trace import TraceStore
    from relay.judge.judge import Judge
    from relay.monitor.metrics import Metrics
    from relay.monitor.recent_lines import RecentLines
    from relay.page.commands import Commands
    from relay.records.pseudonyms import Pseudonyms
    from relay.settings import Loaded

_T = TypeVar("_T")

LONGEST_QUERY = 5.0
"""Seconds for one question to the trace store."""

MOST_SEARCHES = 2
"""Searches at once; further ones wait. One that reads most traces takes what mail needs."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The parts of a running relay. The functions return its present state."""

    loaded: Callable[[], Loaded]
    """The settings in force."""
    judge: Callable[[], Judge]
    """The rules in force."""
    state: Callable[[], tuple[bool, Mapping[str, object]]]
    """Whether mail can flow, and the state of each part, as in `/readyz`."""
    listening: Callable[[], str]
    """The address for SMTP clients."""
    load: Callable[[], Mapping[str, int]]
    """What the relay holds now: `Service.load`."""
    metrics: Metrics
    warnings: RecentLines
    traces: TraceStore | None
    """None if no traces are kept."""
    pseudonyms: Callable[[], Pseudonyms]
    """How traces name addresses."""
    commands: Callable[[], Commands | None]
    """None if the process has no commands."""
    host: str
    """The name of this host."""
    now: Callable[[], float]
    """Seconds since the Unix epoch."""
    clock: Callable[[], float]
    """Monotonic seconds."""
    longest_query: float = field(default=LONGEST_QUERY)
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_SEARCHES))

    async def search(self, question: Callable[[], Awaitable[_T]]) -> _T:
        """Returns the answer to a search for traces. Raises `StoreError`, also if there is none within the limit."""

        async def ask_in_turn() -> _T:
            async with self._turns:
                return await question()

        return await within(self.longest_query, ask_in_turn())


async def within(limit: float, question: Awaitable[_T]) -> _T:
    """Returns the answer of a store. Raises `StoreError`, also if there is none within `limit` seconds."""
    try:
        async with asyncio.timeout(limit):
            return await question
    except TimeoutError:
        raise StoreError(f"the trace store did not answer within {limit:g} s") from None
