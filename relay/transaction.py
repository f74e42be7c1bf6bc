"""The story of one message. Read this first.

A client names recipients, each is passed on at once and answered in the upstream's words (`rcpt`). After the final dot
(`data`): judge, claim, plan, deliver, settle, wait for what others deliver, reply.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

from relay.core import decision
from relay.core.claim import Held, Original, Sent, Token, Won
from relay.core.delivery import NotSent, Unclear
from relay.core.envelope import fold
from relay.core.outcome import Outcome, Result
from relay.core.received import MOST_HOPS, received_field
from relay.core.record import Copy, record_of
from relay.core.reply import (
    DRAINING,
    MAIL_LOOP,
    OUR_FAULT,
    STILL_UNDER_WAY,
    TOO_MANY_RECIPIENTS,
    UNCLEAR,
    UNREACHABLE,
    Reply,
)
from relay.core.report import Report
from relay.judgement import Judgement, judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.core.claim import Fingerprint
    from relay.core.content import Content
    from relay.core.decision import Plan
    from relay.core.delivery import Delivery
    from relay.core.envelope import Envelope, Recipient
    from relay.parts import Parts

Verdicts: TypeAlias = "Mapping[Recipient, Won | Held | Sent]"

ATTEMPTS = 3
"""Times that content may be on its way before its dot is sent: connections end, but not for ever."""
LONGEST_REPLY = 500
"""Characters of the upstream's reply that are kept with an acceptance."""


class Transaction:
    """One message from MAIL to its reply. `peer` and `helo` say who brought it."""

    def __init__(self, parts: Parts, envelope: Envelope, *, peer: str, helo: bytes) -> None:
        self.record = parts.new_id()
        self._parts = parts
        self._envelope = envelope
        self._peer = peer
        self._helo = helo
        self._token = Token(self.record + parts.new_id())
        self._delivery: Delivery = parts.upstream.begin(envelope)
        self._asked: dict[Recipient, Reply] = {}
        self._paths: dict[Recipient, bytes] = {}
        self._judgement = Judgement()
        self._results: dict[Recipient, Result] = {}
        self._sending = False

    @property
    def has_recipients(self) -> bool:
        """Whether the upstream has taken at least one recipient."""
        return bool(self._paths)

    async def rcpt(self, path: bytes) -> Reply:
        """Pass a recipient on; a second spelling of one shares the first's reply and outcome."""
        recipient = fold(path)
        if recipient in self._asked:
            return self._asked[recipient]
        if len(self._paths) >= self._parts.policy.recipients:
            self._parts.witness.recipient_refused(self.record, self._peer, recipient, TOO_MANY_RECIPIENTS)
            return TOO_MANY_RECIPIENTS
        reply = (await self._delivery.rcpt(path)).for_client()
        self._asked[recipient] = reply
        if reply.positive:
            self._paths[recipient] = path
        else:
            self._parts.witness.recipient_refused(self.record, self._peer, recipient, reply)
        return reply

    async def data(self, content: Content) -> Reply:
        """From the final dot to the reply."""
        begun = self._parts.clock()
        try:
            await self._story(content, begun + self._parts.policy.wait)
        except Exception as error:  # noqa: BLE001 - the one boundary: whatever goes wrong, the client hears 451 and an id
            self._parts.witness.fault(self.record, "transaction", error)
            await self._settle(self._unsettled())
            self._end_rest(Reply.of(451, OUR_FAULT.format(id=self.record)))
        finally:
            # Something is left only when the service ends before the story does.
            self._end_rest(DRAINING)
            await self._delivery.finish()
            report = self._report(len(content), self._parts.clock() - begun)
            await self._record(report, content)
            self._parts.witness.message(report)
        return report.reply

    async def refuse(self, reply: Reply, size: int = 0) -> Reply:
        """End the message without a look at its content, such as one that is too large."""
        await self._delivery.finish()
        self._results = dict.fromkeys(self._paths, Result(Outcome.REFUSED, reply))
        report = self._report(size, 0.0)
        self._parts.witness.message(report)
        return report.reply

    async def abandon(self) -> None:
        """End it before its final dot: nothing goes out, and nothing was claimed."""
        await self._delivery.finish()

    # The steps

    async def _story(self, content: Content, deadline: float) -> None:
        self._judgement = await judge(self._parts, self._envelope, content, self._paths, self.record)
        if self._judgement.hops >= MOST_HOPS:
            self._results = dict.fromkeys(self._paths, Result(Outcome.REFUSED, MAIL_LOOP))
        in_time = True
        while unsettled := self._unsettled():
            verdicts = await self._claim(unsettled)
            plan = decision.plan(verdicts, self._judgement.observed())
            self._results |= {to: decision.suppressed(self.record, sent) for to, sent in plan.suppress.items()}
            await self._deliver(plan, content)
            await self._delivery.finish()
            if plan.wait and not in_time:
                self._results |= dict.fromkeys(plan.wait, Result(Outcome.DEFERRED, STILL_UNDER_WAY))
            elif plan.wait:
                # When the time is over the claims are asked for once more: their owners may be done.
                in_time = await self._wait(plan.wait, deadline)

    def _unsettled(self) -> list[Recipient]:
        return [recipient for recipient in self._paths if recipient not in self._results]

    def _end_rest(self, reply: Reply) -> None:
        self._results |= dict.fromkeys(self._unsettled(), Result(Outcome.DEFERRED, reply.for_client()))

    async def _claim(self, recipients: Sequence[Recipient]) -> Verdicts:
        keys = self._judgement.keys
        verdicts: Mapping[Fingerprint, Won | Held | Sent] = {}
        try:
            terms = self._judgement.terms(recipients)
            if terms:
                verdicts = await self._parts.book.claim(terms, self._token)
            return {to: verdicts[keys[to]] if to in keys else Won() for to in recipients}
        except Exception as error:  # noqa: BLE001 - a fault of ours before DATA: forward without claims
            self._parts.witness.fault(self.record, "claim", error)
            return dict.fromkeys(recipients, Won())

    async def _deliver(self, plan: Plan, content: Content) -> None:
        """Send to those who are to get it, and settle the claims we won whatever happens."""
        if not plan.forward:
            return
        won = [recipient for recipient in plan.forward if recipient not in plan.observed]
        try:
            for recipient, answer in (await self._send(plan.forward, won, content)).items():
                self._results[recipient] = _result(answer, plan.observed.get(recipient))
        except asyncio.CancelledError:
            if self._sending:
                self._results |= dict.fromkeys(plan.forward, _result(Unclear("the service ended"), None))
            raise
        finally:
            await self._settle(won)

    async def _send(
        self, recipients: Sequence[Recipient], won: Sequence[Recipient], content: Content
    ) -> dict[Recipient, Reply | Unclear]:
        """Bring the upstream to the point where content goes out, and send it once.

        Gives what the upstream said, per recipient; nothing when a claim was lost meanwhile, and all are to be asked
        for again.
        """
        received = self._received_field()
        for _ in range(ATTEMPTS):
            answers = await self._prepare(recipients)
            ready = [recipient for recipient, reply in answers.items() if reply.positive]
            if not ready:
                return {**answers}
            if await self._lost(won):
                return {}
            outcome = await self._send_content(received, content)
            if not isinstance(outcome, NotSent):
                return {**answers, **dict.fromkeys(ready, outcome)}
        return dict.fromkeys(recipients, UNREACHABLE)

    async def _send_content(self, received: bytes, content: Content) -> Reply | Unclear | NotSent:
        self._sending = True
        try:
            outcome = await self._delivery.send(received, content)
        except Exception as error:  # noqa: BLE001 - nobody can tell whether the dot was out
            self._parts.witness.fault(self.record, "send", error)
            outcome = Unclear("a fault while sending")
        self._sending = False
        return outcome

    async def _prepare(self, recipients: Sequence[Recipient]) -> dict[Recipient, Reply]:
        replies = await self._delivery.prepare([self._paths[recipient] for recipient in recipients])
        return {recipient: replies[self._paths[recipient]] for recipient in recipients}

    async def _lost(self, won: Sequence[Recipient]) -> bool:
        """Whether a lease ran out and somebody else serves a recipient now: never send what is not ours any more."""
        try:
            return bool(await self._parts.book.assure(self._judgement.terms(won), self._token))
        except Exception as error:  # noqa: BLE001 - a fault of ours before DATA: forward as if all were ours
            self._parts.witness.fault(self.record, "assure", error)
            return False

    async def _settle(self, won: Sequence[Recipient]) -> None:
        """Record what was accepted, release what was not. A fault here must not undo an acceptance."""
        kept = {Outcome.FORWARDED} | ({Outcome.UNCERTAIN} if self._parts.policy.keep_uncertain else set())
        keys = self._judgement.keys
        results = {keys[to]: self._results.get(to) for to in won if to in keys}
        replies = {key: result.reply for key, result in results.items() if result and result.outcome in kept}
        originals = {reply: self._original(reply) for reply in set(replies.values())}
        accepted = {key: originals[reply] for key, reply in replies.items()}
        try:
            terms = self._judgement.terms(won)
            await self._parts.book.settle(self._token, accepted, results.keys() - accepted.keys(), terms)
        except Exception as error:  # noqa: BLE001 - the mail is out: the client must hear so
            self._parts.witness.fault(self.record, "settle", error)

    async def _wait(self, recipients: Sequence[Recipient], deadline: float) -> bool:
        """Wait for other owners, holding nothing. False when the time is over, or the service."""
        left = deadline - self._parts.clock()
        return left > 0 and await self._parts.book.changed([self._judgement.keys[to] for to in recipients], left)

    # Words

    def _received_field(self) -> bytes:
        if not self._parts.policy.received_field:
            return b""
        return received_field(
            helo=self._helo,
            peer=self._peer,
            hostname=self._parts.policy.hostname,
            mark=self._parts.marks[-1],
            record=self.record,
            now=self._parts.now(),
        )

    def _original(self, reply: Reply) -> Original:
        said = self._parts.names.words(reply.text[:LONGEST_REPLY])
        return Original(self.record, self._judgement.message_id, said, self._parts.now())

    def _report(self, size: int, seconds: float) -> Report:
        return Report(
            record=self.record,
            peer=self._peer,
            envelope=self._envelope,
            message_id=self._judgement.message_id,
            size=size,
            results=self._results,
            reply=decision.reply_for(self._results.values()),
            seconds=seconds,
            rulings=self._judgement.rulings,
        )

    async def _record(self, report: Report, content: Content) -> None:
        """Keep what was suppressed and why, before the client hears of it. A fault here must not undo the outcome."""
        try:
            parts, judged = self._parts, self._judgement.judged
            record = record_of(report, judged, parts.names, parts.now()) if judged else None
            if record:
                suppressed = [to for to, result in self._results.items() if result.outcome is Outcome.SUPPRESSED]
                paths = tuple(self._paths[to] for to in suppressed)
                copy = Copy(self._envelope.reverse_path, paths, content, self._envelope.parameters) if paths else None
                await parts.ledger.note(record, copy)
        except Exception as error:  # noqa: BLE001 - a record less is better than a mail less
            self._parts.witness.fault(self.record, "record", error)


def _result(outcome: Reply | Unclear, repeat: Sent | Held | None) -> Result:
    if isinstance(outcome, Unclear):
        return Result(Outcome.UNCERTAIN, UNCLEAR)
    return decision.answered(outcome, repeat)
