"""The judgement of one message, and its place among the mails of its sender."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from relay.judge.judgement import Judgement, judge_recipients

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from relay.core.content import Content
    from relay.core.envelope import Envelope, Recipient
    from relay.dependencies import Dependencies
    from relay.judge.judge import MessageAnalysis
    from relay.runtime.guard import Guards

SLOW_JUDGEMENT = "judgement took too long"
"""The reason, in the log, why a message is exempt if its judgement exceeds the limit of `Executors.judging`."""
FAULT = "fault"
"""The reason, in the log, why a message is exempt after a fault."""


class Judging:
    """Judges the message of one transaction. A message that cannot be judged is exempt: it is forwarded unclaimed."""

    def __init__(self, shared: Dependencies, guards: Guards, envelope: Envelope) -> None:
        self.subject = ""
        """The subject, if traces contain subjects."""
        self._shared = shared
        self._guards = guards
        self._envelope = envelope

    async def judge(self, content: Content, recipients: Collection[Recipient], peer: str) -> Judgement:
        """Returns the ruling and the fingerprint of each recipient. `peer` is the client's IP address, for the log."""
        shared, analysis = self._shared, None
        judging = shared.executors.judging
        with self._guards("fingerprint"):
            try:
                analyse = partial(self._analyse, content, len(recipients))
                takes_long = shared.judge.takes_long(content.wire)
                analysis = await judging.run(analyse) if takes_long else analyse()
                judge_all = partial(self._judge_recipients, analysis, recipients)
                takes_long = analysis.takes_long(recipients)
                return await judging.run(judge_all) if takes_long else judge_all()
            except TimeoutError:
                shared.reporter.judgement_timed_out(self._guards.id, peer, len(content))
                return Judgement.exempt(recipients, SLOW_JUDGEMENT, analysis)
        return Judgement.exempt(recipients, FAULT, analysis)

    async def follow(self, judgement: Judgement) -> Judgement:
        """Places the message in the sequences of its sender's mails, if a consecutive rule is concerned (ADR 22).

        This comes before the claim, and so before the message is delivered: an equal mail that arrives while another
        one is in flight is no repeat.
        """
        claims = self._shared.claims
        with self._guards("follow"):
            arrivals = judgement.arrivals(claims.knows_sender)
            if arrivals and (states := await claims.follow(arrivals.values())):
                return judgement.in_sequence(arrivals, states)
            return judgement
        return Judgement.exempt(judgement.rulings, FAULT, judgement.analysis)

    async def follow_again(self, judgement: Judgement, delivered: Iterable[Recipient]) -> None:
        """Makes a message that the upstream has accepted the latest one of its sequences, if others came meanwhile."""
        claims = self._shared.claims
        with self._guards("follow"):
            arrivals = judgement.arrivals(claims.knows_sender)
            await claims.follow([arrivals[to] for to in delivered if to in arrivals])

    def _analyse(self, content: Content, recipients: int) -> MessageAnalysis:
        shared = self._shared
        analysis = shared.judge(content.plain, self._envelope.reverse_path, recipients, shared.now())
        if shared.policy.traces_subjects:
            self.subject = analysis.subject()
        analysis.drop_message()
        return analysis

    def _judge_recipients(self, analysis: MessageAnalysis, recipients: Collection[Recipient]) -> Judgement:
        return judge_recipients(
            analysis,
            recipients,
            self._envelope.reverse_path,
            loop_ids=self._shared.loop_ids,
            pseudonym=self._shared.pseudonyms,
        )
