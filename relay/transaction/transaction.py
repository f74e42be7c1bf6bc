"""The path of one message. Read this first.

`rcpt` passes each recipient to the upstream and returns the upstream's reply. After the final dot `data` runs the steps
of `_run`: judge, follow, claim, deliver and settle, wait for claims of others. Then it hands over the trace and returns
the reply. A message is a repeat for a recipient if its claim is answered `Sent`.

A block under `self._guards(step)` reports an exception and ends; the code after the block says what holds then.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from relay.core import decision
from relay.core.claim import Held, Original, Sent, Token, Won
from relay.core.client import client_of
from relay.core.delivery import Unclear
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
    Reply,
)
from relay.core.report import Report
from relay.core.trace import Step
from relay.judge.judgement import Judgement
from relay.runtime.guard import Guards
from relay.trace.build import Unfinished
from relay.transaction.judging import Judging
from relay.transaction.recording import Recording
from relay.transaction.sending import Sending

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from relay.core.claim import Fingerprint
    from relay.core.content import Content
    from relay.core.decision import Plan
    from relay.core.delivery import Delivery
    from relay.core.envelope import Envelope, Recipient
    from relay.core.login import Login
    from relay.dependencies import Dependencies

    Verdicts: TypeAlias = Mapping[Recipient, Won | Held | Sent]

LONGEST_REPLY = 100
"""Characters of the upstream's reply that an acceptance keeps: its code and queue id. The store holds it for each
recipient."""
LARGE = 64 * 1024
"""Bytes. A thread searches larger content for lone dots (`Content.safe_wire`)."""


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
        self._guards = Guards(self.id, dependencies.reporter.fault)
        self._judging = Judging(dependencies, self._guards, envelope)
        self._sending = Sending(self._delivery, self._paths, self._guards)
        self._recording = Recording(dependencies, self._guards, self._delivery, helo)

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
        self._recording.refuse(recipient, reply)
        self._shared.reporter.recipient_refused(self.id, self._peer, recipient, reply)
        return reply

    async def data(self, content: Content) -> Reply:
        """Runs all steps from the final dot to the reply."""
        started = self._recording.lap(Step.UPLOAD)
        try:
            with self._guards("transaction"):
                await self._run(content, started + self._shared.policy.wait)
            if undecided := self._undecided():  # after a fault only
                await self._settle(undecided)
                self._defer(undecided, Reply.of(451, INTERNAL_FAULT.format(id=self.id)))
        finally:
            # Recipients without a result are left only if the service ends while `_run` works.
            self._defer(self._undecided(), DRAINING)
            # Has an effect only if a fault kept claims from being settled.
            self._shared.claims.end_claims(self._judgement.fingerprints.values(), self._token)
            with self._guards("finish"):
                await self._delivery.finish()
            report = self._report(len(content), self._shared.clock() - started)
            try:
                await self._trace(report, partial(self._keep_copy, content))
            finally:  # the end of the service may cancel the trace, but not the report
                with self._guards("report"):
                    self._shared.reporter.message(report)
        return report.reply

    async def refuse(self, reply: Reply, size: int = 0) -> Reply:
        """Ends the message without judging its content, for example because it is too large. `size` in bytes."""
        await self._delivery.finish()
        self._results = dict.fromkeys(self._paths, decision.answered(reply))
        self._recording.lap(Step.UPLOAD)
        report = self._report(size, 0.0)
        await self._trace(report, _no_copy)
        self._shared.reporter.message(report)
        return report.reply

    async def pause(self) -> None:
        """Returns the upstream connection while the session waits for memory. `data` opens the transaction again."""
        await self._delivery.finish()

    async def abandon(self) -> None:
        """Ends the transaction before its final dot. Nothing was claimed or forwarded."""
        await self._delivery.finish()
        accepted = {to: self._replies[to] for to in self._paths}
        ended = Unfinished(self.id, self._peer, self._login, self._envelope.reverse_path, accepted)
        self._recording.unfinished(ended)

    # The steps

    async def _run(self, content: Content, deadline: float) -> None:
        if len(content) > LARGE:
            await self._shared.executors.content.run(lambda: content.safe_wire)  # computed once, and kept by `content`
        self._judgement = await self._judging.judge(content, self._paths, self._peer)
        self._recording.lap(Step.JUDGE)
        if self._judgement.hops >= MOST_HOPS:
            self._results = dict.fromkeys(self._paths, Result(Outcome.REFUSED, MAIL_LOOP))
            return
        self._judgement = await self._judging.follow(self._judgement)
        in_time = True
        while undecided := self._undecided():
            verdicts = await self._claim(undecided)
            self._recording.lap(Step.CLAIM)
            plan = decision.plan(verdicts, self._judgement.observed())
            explain = self._shared.policy.explain_repeats
            self._results |= {
                to: decision.suppressed(self.id, sent, explain=explain) for to, sent in plan.suppress.items()
            }
            await self._deliver(plan, content)
            await self._delivery.finish()
            self._recording.lap(Step.DELIVER)
            if plan.wait and not in_time:
                self._defer(plan.wait, FIRST_COPY_IN_PROGRESS)
            elif plan.wait:
                # False at the deadline. Then the loop claims once more, because the owners may just have finished.
                in_time = await self._wait(plan.wait, deadline)
                self._recording.lap(Step.WAIT)

    async def _claim(self, recipients: Sequence[Recipient]) -> Verdicts:
        """Claims all recipients at once. After a fault all count as won, so that the message is forwarded."""
        keys = self._judgement.fingerprints
        with self._guards("claim"):
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
            received, has_lost_claims = self._received_field(content), partial(self._has_lost_claims, won)
            answers = await self._sending.send(plan.forward, received, content, has_lost_claims)
            for recipient, answer in answers.items():
                self._results[recipient] = _result(answer, plan.observed.get(recipient))
            delivered = [to for to in answers if self._results[to].outcome in DELIVERED]
            await self._judging.follow_again(self._judgement, delivered)
        except asyncio.CancelledError:
            unclear = _result(Unclear("the service ended"), None)  # `keep_uncertain` may count it as sent
            self._results |= dict.fromkeys(self._sending.uncertain, unclear)
            raise
        finally:
            await self._settle(won)

    async def _has_lost_claims(self, won: Sequence[Recipient]) -> bool:
        """Returns whether another process took a claim after its lease ended. After a fault: False."""
        with self._guards("assure"):
            return bool(await self._shared.claims.find_lost_claims(self._judgement.terms(won), self._token))
        return False

    async def _settle(self, won: Sequence[Recipient]) -> None:
        """Writes what was accepted and releases the rest. A fault does not undo an acceptance.

        If a fault keeps claims from being settled, `data` ends them (`ClaimManager.end_claims`).
        """
        with self._guards("settle"):
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

    async def _trace(self, report: Report, keep_copy: Callable[[], Awaitable[str]]) -> None:
        """Hands the trace over. That of a suppression is stored before the client hears the reply."""
        await self._recording.message(report, self._judgement.analysis, self._judging.subject, keep_copy)

    async def _keep_copy(self, content: Content) -> str:
        """Saves the copy of a suppressed message, and returns its file name; empty if it is not kept."""
        suppressed = [to for to, result in self._results.items() if result.outcome is Outcome.SUPPRESSED]
        if not suppressed or self._shared.copies is None:
            return ""
        paths, envelope = tuple(self._paths[to] for to in suppressed), self._envelope
        copy = SuppressedCopy(envelope.reverse_path, paths, content, envelope.parameters)
        return await self._shared.copies.save(self.id, copy)

    # What the steps share

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
        with self._guards("redact"):
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


async def _no_copy() -> str:
    return ""
