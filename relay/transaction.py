"""The path of one message. Read this first.

`rcpt` passes each recipient to the upstream and returns the upstream's reply. After the final dot `data` runs the steps
of `_run`, in the order of this file: judge, follow, claim, deliver and settle, wait for claims of others. Then it
hands over the trace and returns the reply. A message is a repeat for a recipient if its claim is answered `Sent`.

A block under `self._guard(step)` reports an exception and ends; the code after the block says what holds then.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from relay.core import decision
from relay.core.claim import Held, Original, Sent, Token, Won
from relay.core.client import client_of
from relay.core.delivery import NotSent, Unclear
from relay.core.envelope import fold
from relay.core.outcome import DELIVERED, Outcome, Result
from relay.core.received import MOST_HOPS, received_field
from relay.core.record import SuppressedCopy
from relay.core.reply import (
    DRAINING,
    FIRST_COPY_IN_PROGRESS,
    INTERNAL_FAULT,
    MAIL_LOOP,
    OUTCOME_UNKNOWN,
    TOO_MANY_RECIPIENTS,
    UNREACHABLE,
    Reply,
)
from relay.core.report import Report
from relay.core.trace import Step
from relay.judge.judgement import Judgement, judge_recipients
from relay.runtime.guard import Guard
from relay.trace.build import Passage, Unfinished, compare, trace_of, unfinished_trace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.core.claim import Fingerprint
    from relay.core.content import Content
    from relay.core.decision import Plan
    from relay.core.delivery import Delivery
    from relay.core.envelope import Envelope, Recipient
    from relay.core.login import Login
    from relay.dependencies import Dependencies
    from relay.judge.judge import MessageAnalysis

    Verdicts: TypeAlias = Mapping[Recipient, Won | Held | Sent]

ATTEMPTS = 3
"""The largest number of uploads of one message. An upload that is lost before its final dot is repeated."""
LONGEST_REPLY = 100
"""Characters of the upstream's reply that an acceptance keeps: its code and queue id. The store holds it for each
recipient."""
LARGE = 64 * 1024
"""Bytes. A thread searches larger content for lone dots (`Content.safe_wire`)."""
MOST_REFUSED = 1000
"""Recipients refused at RCPT that the trace of a transaction names."""
SLOW_JUDGEMENT = "judgement took too long"
"""The reason, in the log, why a message is exempt if its judgement exceeds the limit of `Executors.judging`."""


class Transaction:
    """One message from MAIL to its reply. `peer` is the client's IP address, `helo` the name that it gave.

    `login` is the client's login, if it has logged in, and `protocol` its protocol as RFC 3848 names it.
    """

    def __init__(
        self,
        dependencies: Dependencies,
        envelope: Envelope,
        *,
        peer: str,
        helo: bytes,
        login: Login | None = None,
        protocol: str = "ESMTP",
    ) -> None:
        self.id = dependencies.new_id()
        self._shared = dependencies
        self._envelope = envelope
        self._peer = peer
        self._helo = helo
        self._login = login.name if login else ""
        self._protocol = protocol
        self._token = Token(self.id + dependencies.new_id())
        self._delivery: Delivery = dependencies.upstream.begin(
            envelope, client_of(peer), login.identity if login else None
        )
        self._replies: dict[Recipient, Reply] = {}
        self._paths: dict[Recipient, bytes] = {}
        self._judgement = Judgement()
        self._results: dict[Recipient, Result] = {}
        self._sending: Sequence[Recipient] = ()
        """The recipients of the content that is being sent."""
        self._refused: dict[Recipient, Reply] = {}
        """The recipients refused at RCPT."""
        self._subject = ""
        self._at, self._lap_at = dependencies.now(), dependencies.clock()
        self._steps: dict[Step, float] = {}
        """The seconds of each step, for the trace."""

    @property
    def has_recipients(self) -> bool:
        """Whether the upstream has accepted at least one recipient."""
        return bool(self._paths)

    async def rcpt(self, path: bytes) -> Reply:
        """Passes a recipient to the upstream. A second spelling of a recipient gets the first one's reply."""
        recipient = fold(path)
        if recipient in self._replies:
            return self._replies[recipient]
        if len(self._paths) >= self._shared.policy.recipients:
            return self.refuse_recipient(recipient, TOO_MANY_RECIPIENTS)
        reply = (await self._delivery.rcpt(path)).for_client()
        self._replies[recipient] = reply
        if reply.positive:
            self._paths[recipient] = path
            return reply
        return self.refuse_recipient(recipient, reply)

    def refuse_recipient(self, recipient: Recipient, reply: Reply) -> Reply:
        """Reports a recipient that is refused at RCPT. Returns the reply."""
        if len(self._refused) < MOST_REFUSED:
            self._refused[recipient] = reply
        self._shared.reporter.recipient_refused(self.id, self._peer, recipient, reply)
        return reply

    async def data(self, content: Content) -> Reply:
        """Runs all steps from the final dot to the reply."""
        started = self._lap(Step.UPLOAD)
        try:
            with self._guard("transaction"):
                await self._run(content, started + self._shared.policy.wait)
            if undecided := self._undecided():  # after a fault only
                await self._settle(undecided)
                self._defer(undecided, Reply.of(451, INTERNAL_FAULT.format(id=self.id)))
        finally:
            # Recipients without a result are left only if the service ends while `_run` works.
            self._defer(self._undecided(), DRAINING)
            # Has an effect only if a fault kept claims from being settled.
            self._shared.claims.end_claims(self._judgement.fingerprints.values(), self._token)
            with self._guard("finish"):
                await self._delivery.finish()
            report = self._report(len(content), self._shared.clock() - started)
            try:
                await self._trace(report, content)
            finally:  # the end of the service may cancel the trace, but not the report
                with self._guard("report"):
                    self._shared.reporter.message(report)
        return report.reply

    async def refuse(self, reply: Reply, size: int = 0) -> Reply:
        """Ends the message without judging its content, for example because it is too large. `size` in bytes."""
        await self._delivery.finish()
        self._results = dict.fromkeys(self._paths, decision.answered(reply))
        self._lap(Step.UPLOAD)
        report = self._report(size, 0.0)
        await self._trace(report)
        self._shared.reporter.message(report)
        return report.reply

    async def pause(self) -> None:
        """Returns the upstream connection while the session waits for memory. `data` opens the transaction again."""
        await self._delivery.finish()

    async def abandon(self) -> None:
        """Ends the transaction before its final dot. Nothing was claimed or forwarded."""
        await self._delivery.finish()
        shared, named = self._shared, len(self._paths) + len(self._refused)
        if named and shared.traces and shared.policy.traces_all:
            self._lap(Step.UPLOAD)
            accepted = {to: self._replies[to] for to in self._paths}
            ended = Unfinished(self.id, self._peer, self._login, self._envelope.reverse_path, accepted)
            build = partial(unfinished_trace, ended, self._passage(), shared.pseudonyms)
            shared.traces.add_unfinished(build, named)

    # The steps

    async def _run(self, content: Content, deadline: float) -> None:
        if len(content) > LARGE:
            await self._shared.executors.content.run(lambda: content.safe_wire)  # computed once, and kept by `content`
        await self._judge(content)
        self._lap(Step.JUDGE)
        if self._judgement.hops >= MOST_HOPS:
            self._results = dict.fromkeys(self._paths, Result(Outcome.REFUSED, MAIL_LOOP))
            return
        await self._follow()
        in_time = True
        while undecided := self._undecided():
            verdicts = await self._claim(undecided)
            self._lap(Step.CLAIM)
            plan = decision.plan(verdicts, self._judgement.observed())
            explain = self._shared.policy.explain_repeats
            self._results |= {
                to: decision.suppressed(self.id, sent, explain=explain) for to, sent in plan.suppress.items()
            }
            await self._deliver(plan, content)
            await self._delivery.finish()
            self._lap(Step.DELIVER)
            if plan.wait and not in_time:
                self._defer(plan.wait, FIRST_COPY_IN_PROGRESS)
            elif plan.wait:
                # False at the deadline. Then the loop claims once more, because the owners may just have finished.
                in_time = await self._wait(plan.wait, deadline)
                self._lap(Step.WAIT)

    async def _judge(self, content: Content) -> None:
        """Decides the ruling and the fingerprint of each recipient.

        After a fault, or if the judgement takes too long, the message is exempt: it is forwarded without a claim.
        """
        shared, analysis = self._shared, None
        judging = shared.executors.judging
        with self._guard("fingerprint"):
            try:
                analyse = partial(self._analyse, content)
                takes_long = shared.judge.takes_long(content.wire)
                analysis = await judging.run(analyse) if takes_long else analyse()
                judge_all = partial(self._judge_recipients, analysis)
                takes_long = analysis.takes_long(self._paths)
                self._judgement = await judging.run(judge_all) if takes_long else judge_all()
            except TimeoutError:
                shared.reporter.judgement_timed_out(self.id, self._peer, len(content))
                self._judgement = Judgement.exempt(self._paths, SLOW_JUDGEMENT, analysis)
            return
        self._judgement = Judgement.exempt(self._paths, "fault", analysis)

    def _analyse(self, content: Content) -> MessageAnalysis:
        shared = self._shared
        analysis = shared.judge(content.plain, self._envelope.reverse_path, len(self._paths), shared.now())
        if shared.policy.traces_subjects:
            self._subject = analysis.subject()
        analysis.drop_message()
        return analysis

    def _judge_recipients(self, analysis: MessageAnalysis) -> Judgement:
        return judge_recipients(
            analysis,
            self._paths,
            self._envelope.reverse_path,
            loop_ids=self._shared.loop_ids,
            pseudonym=self._shared.pseudonyms,
        )

    async def _follow(self) -> None:
        """Places the message in the sequences of its sender's mails, if a consecutive rule is concerned (ADR 22).

        This comes before the claim, and so before the message is delivered: an equal mail that arrives while another
        one is in flight is no repeat. After a fault the message is exempt.
        """
        claims = self._shared.claims
        with self._guard("follow"):
            arrivals = self._judgement.arrivals(claims.knows_sender)
            if arrivals and (states := await claims.follow(arrivals.values())):
                self._judgement = self._judgement.in_sequence(arrivals, states)
            return
        self._judgement = Judgement.exempt(self._paths, "fault", self._judgement.analysis)

    async def _follow_again(self, recipients: Sequence[Recipient]) -> None:
        """Makes a message that the upstream has accepted the latest one of its sequences, if others came meanwhile."""
        claims = self._shared.claims
        with self._guard("follow"):
            arrivals = self._judgement.arrivals(claims.knows_sender)
            delivered = [to for to in recipients if to in self._results and self._results[to].outcome in DELIVERED]
            await claims.follow([arrivals[to] for to in delivered if to in arrivals])

    async def _claim(self, recipients: Sequence[Recipient]) -> Verdicts:
        """Claims all recipients at once. After a fault all count as won, so that the message is forwarded."""
        keys = self._judgement.fingerprints
        with self._guard("claim"):
            terms = self._judgement.terms(recipients)
            verdicts: Mapping[Fingerprint, Won | Held | Sent] = {}
            if terms:
                verdicts = await self._shared.claims.claim(terms, self._token)
            return {to: verdicts[keys[to]] if to in keys else Won() for to in recipients}
        return dict.fromkeys(recipients, Won())

    async def _deliver(self, plan: Plan, content: Content) -> None:
        """Sends the content to the recipients of `plan.forward`. Settles their claims in any case."""
        if not plan.forward:
            return
        won = [recipient for recipient in plan.forward if recipient not in plan.observed]
        try:
            for recipient, answer in (await self._send(plan.forward, won, content)).items():
                self._results[recipient] = _result(answer, plan.observed.get(recipient))
            await self._follow_again(plan.forward)
        except asyncio.CancelledError:
            # Only the recipients of this content, and only after the dot: `keep_uncertain` counts them as sent.
            if self._delivery.dot_sent:
                self._results |= dict.fromkeys(self._sending, _result(Unclear("the service ended"), None))
            raise
        finally:
            await self._settle(won)

    async def _send(
        self, recipients: Sequence[Recipient], won: Sequence[Recipient], content: Content
    ) -> dict[Recipient, Reply | Unclear]:
        """Prepares the upstream's transaction and sends the content, with one final dot at most.

        Returns the upstream's answer for each recipient. Returns an empty dict if a claim was lost; then `_run` claims
        all recipients again.
        """
        received = self._received_field(content)
        for _ in range(ATTEMPTS):
            answers = await self._prepare(recipients)
            ready = [recipient for recipient, reply in answers.items() if reply.positive]
            if not ready:
                return {**answers}
            if await self._has_lost_claims(won):
                return {}
            self._sending = ready
            answer = await self._send_content(received, content)
            self._sending = ()
            if not isinstance(answer, NotSent):
                return {**answers, **dict.fromkeys(ready, answer)}
        return dict.fromkeys(recipients, UNREACHABLE)

    async def _prepare(self, recipients: Sequence[Recipient]) -> dict[Recipient, Reply]:
        replies = await self._delivery.prepare([self._paths[recipient] for recipient in recipients])
        return {recipient: replies[self._paths[recipient]] for recipient in recipients}

    async def _has_lost_claims(self, won: Sequence[Recipient]) -> bool:
        """Returns whether another process took a claim after its lease ended. After a fault: False."""
        with self._guard("assure"):
            return bool(await self._shared.claims.find_lost_claims(self._judgement.terms(won), self._token))
        return False

    async def _send_content(self, received: bytes, content: Content) -> Reply | Unclear | NotSent:
        """Sends content and final dot. After a fault the answer is unclear if the dot may have been sent."""
        with self._guard("send"):
            return await self._delivery.send(received, content)
        if self._delivery.dot_sent:
            return Unclear("a fault while sending")
        with self._guard("finish"):
            await self._delivery.finish()  # the upstream still expects the rest of the content
        return NotSent("a fault while sending")

    async def _settle(self, won: Sequence[Recipient]) -> None:
        """Writes what was accepted and releases the rest. A fault does not undo an acceptance.

        If a fault keeps claims from being settled, `data` ends them (`ClaimManager.end_claims`).
        """
        with self._guard("settle"):
            accepted_outcomes = {Outcome.FORWARDED}
            if self._shared.policy.keep_uncertain:
                accepted_outcomes.add(Outcome.UNCERTAIN)
            keys = self._judgement.fingerprints
            results = {keys[to]: self._results.get(to) for to in won if to in keys}
            replies = {
                key: result.reply for key, result in results.items() if result and result.outcome in accepted_outcomes
            }
            # One `Original` for each distinct reply, shared by its recipients.
            originals = {reply: self._original(reply) for reply in set(replies.values())}
            accepted = {key: originals[reply] for key, reply in replies.items()}
            terms = self._judgement.terms(won)
            await self._shared.claims.settle(self._token, accepted, results.keys() - accepted.keys(), terms)

    async def _wait(self, recipients: Sequence[Recipient], deadline: float) -> bool:
        """Waits until a claim of another owner changes. Returns False at the deadline or when the service ends."""
        left = deadline - self._shared.clock()
        keys = [self._judgement.fingerprints[recipient] for recipient in recipients]
        return left > 0 and await self._shared.claims.wait_for_change(keys, left)

    async def _trace(self, report: Report, content: Content | None = None) -> None:
        """Hands the trace over. That of a suppression is stored before the client hears the reply.

        A fault loses the trace only.
        """
        shared, analysis = self._shared, self._judgement.analysis
        if shared.traces is None:
            return
        with self._guard("trace"):
            build = partial(trace_of, report, self._passage(), shared.pseudonyms)
            recipients = len(report.results) + len(self._refused)
            if not report.has_repeats or analysis is None:
                if shared.policy.traces_all:
                    shared.traces.add(build, recipients)
                return
            comparison = compare(report, analysis, shared.pseudonyms)
            kept = await self._keep_copy(content) if content and shared.copies else ""
            await shared.traces.write(partial(build, comparison, kept), recipients)

    async def _keep_copy(self, content: Content) -> str:
        """Saves the copy of a suppressed message, and returns its file name; empty if it is not kept."""
        suppressed = [to for to, result in self._results.items() if result.outcome is Outcome.SUPPRESSED]
        if not suppressed or self._shared.copies is None:
            return ""
        paths, envelope = tuple(self._paths[to] for to in suppressed), self._envelope
        copy = SuppressedCopy(envelope.reverse_path, paths, content, envelope.parameters)
        return await self._shared.copies.save(self.id, copy)

    # What the steps share

    def _guard(self, step: str) -> Guard:
        """Reports a fault in the block, with the step's name. The code after the block says what holds then."""
        return Guard(lambda error: self._shared.reporter.fault(self.id, step, error))

    def _lap(self, step: Step) -> float:
        """Counts the time since the step before as that of this step. Returns the time now."""
        now, before = self._shared.clock(), self._lap_at
        self._steps[step] = self._steps.get(step, 0.0) + now - before
        self._lap_at = now
        return now

    def _passage(self) -> Passage:
        return Passage(
            self._at,
            self._shared.policy.hostname,
            self._helo,
            self._delivery.upstream,
            self._subject,
            self._steps,
            self._refused,
        )

    def _undecided(self) -> list[Recipient]:
        """Returns the recipients without a result."""
        return [recipient for recipient in self._paths if recipient not in self._results]

    def _defer(self, recipients: Sequence[Recipient], reply: Reply) -> None:
        """Gives recipients a transient reply. 421 becomes 451: the session goes on."""
        self._results |= dict.fromkeys(recipients, Result(Outcome.DEFERRED, reply.for_client()))

    def _received_field(self, content: Content) -> bytes:
        if not self._shared.policy.received_field:
            return b""
        # White space at the start would continue the field, also behind a dot that the receiver removes. An empty line
        # makes it the body, as Postfix does.
        end = b"\r\n" if content.wire.startswith((b" ", b"\t", b". ", b".\t")) else b""
        field = received_field(
            helo=self._helo,
            peer=self._peer,
            hostname=self._shared.policy.hostname,
            loop_id=self._shared.loop_ids[-1],
            transaction_id=self.id,
            now=self._shared.now(),
            protocol=self._protocol,
        )
        return field + end

    def _original(self, reply: Reply) -> Original:
        """Returns what an acceptance keeps of this message. After a fault the reply is missing."""
        text = ""
        with self._guard("redact"):
            text = self._shared.pseudonyms.redact(reply.text, LONGEST_REPLY)
        return Original(self.id, self._judgement.message_id, text, self._shared.now())

    def _report(self, size: int, seconds: float) -> Report:
        return Report(
            id=self.id,
            peer=self._peer,
            envelope=self._envelope,
            message_id=self._judgement.message_id,
            size=size,
            results=self._results,
            reply=decision.reply_for(self._results.values()),
            seconds=seconds,
            rulings=self._judgement.rulings,
            login=self._login,
            interrupted=self._judgement.interrupted,
        )


def _result(answer: Reply | Unclear, repeat: Sent | Held | None) -> Result:
    if isinstance(answer, Unclear):
        return Result(Outcome.UNCERTAIN, OUTCOME_UNKNOWN)
    return decision.answered(answer, repeat)
