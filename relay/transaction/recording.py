"""Notes what happens in one transaction, and hands its trace over."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from relay.core.trace import Step
from relay.trace.build import Passage, compare, trace_of, unfinished_trace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.core.delivery import Delivery
    from relay.core.envelope import Recipient
    from relay.core.reply import Reply
    from relay.core.report import Report
    from relay.dependencies import Dependencies
    from relay.judge.judge import MessageAnalysis
    from relay.runtime.guard import Guards
    from relay.trace.build import Unfinished

MOST_REFUSED = 1000
"""Recipients refused at RCPT that the trace of a transaction names."""


class Recording:
    """The notes of one transaction. `helo` is the name that the client gave. A fault loses the trace only."""

    def __init__(self, shared: Dependencies, guards: Guards, delivery: Delivery, helo: bytes) -> None:
        self._shared = shared
        self._guards = guards
        self._delivery = delivery
        self._helo = helo
        self._at, self._lap_at = shared.now(), shared.clock()
        self._steps: dict[Step, float] = {}
        """The seconds of each step."""
        self._refused: dict[Recipient, Reply] = {}

    def lap(self, step: Step) -> float:
        """Counts the time since the step before as that of this step. Returns the time now, in monotonic seconds."""
        now, before = self._shared.clock(), self._lap_at
        self._steps[step] = self._steps.get(step, 0.0) + now - before
        self._lap_at = now
        return now

    def refuse(self, recipient: Recipient, reply: Reply) -> None:
        """Notes a recipient that is refused at RCPT."""
        if len(self._refused) < MOST_REFUSED:
            self._refused[recipient] = reply

    async def message(
        self, report: Report, analysis: MessageAnalysis | None, subject: str, keep_copy: Callable[[], Awaitable[str]]
    ) -> None:
        """Hands over the trace of a message. That of a repeat is stored before this returns, if the store answers.

        `keep_copy` saves the copy of a suppressed message and returns its file name, or "" if it keeps none.
        """
        shared = self._shared
        if shared.traces is None:
            return
        with self._guards("trace"):
            build = partial(trace_of, report, self._passage(subject), shared.pseudonyms)
            recipients = len(report.results) + len(self._refused)
            if not report.has_repeats or analysis is None:
                if shared.policy.traces_all:
                    shared.traces.add(build, recipients)
                return
            comparison = compare(report, analysis, shared.pseudonyms)
            kept = await keep_copy()
            await shared.traces.write(partial(build, comparison, kept), recipients)

    def unfinished(self, ended: Unfinished) -> None:
        """Hands over the trace of a transaction that ended before its final dot, if it named a recipient."""
        shared, named = self._shared, len(ended.accepted) + len(self._refused)
        if named and shared.traces and shared.policy.traces_all:
            self.lap(Step.UPLOAD)
            build = partial(unfinished_trace, ended, self._passage(""), shared.pseudonyms)
            shared.traces.add_unfinished(build, named)

    def _passage(self, subject: str) -> Passage:
        hostname, upstream = self._shared.policy.hostname, self._delivery.upstream
        return Passage(self._at, hostname, self._helo, upstream, subject, self._steps, self._refused)
