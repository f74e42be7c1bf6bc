"""The story of one message, with a real book before a store in memory, and an upstream that does what the test says."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest
from parts.scripted_delivery import ACCEPTED, QUEUED, ScriptedUpstream
from parts.waiting import until

from relay.claims.manager import ClaimManager
from relay.claims.memory import MemoryStore
from relay.core.claim import ClaimTerms, Original
from relay.core.content import Content
from relay.core.delivery import NotSent, Unclear
from relay.core.envelope import Envelope, fold
from relay.core.outcome import Outcome
from relay.core.record import SuppressedCopy
from relay.core.redact import without_addresses
from relay.core.reply import FIRST_COPY_IN_PROGRESS, MAIL_LOOP, OUTCOME_UNKNOWN, TOO_MANY_RECIPIENTS, UNREACHABLE, Reply
from relay.core.ruling import Action, Repeats
from relay.core.trace import Step, Trace, TraceOutcome
from relay.dependencies import Dependencies, Executors, Policy
from relay.judge.judge import Judge, MessageAnalysis
from relay.judge.rules.pattern import Pattern
from relay.judge.rules.rule import Condition, MatchTarget, Rule
from relay.runtime.executor import Executor
from relay.runtime.memory import MemoryBudget
from relay.trace.codec import decode, encode
from relay.transaction import Transaction
from relay.transaction.judging import SLOW_JUDGEMENT
from relay.transaction.transaction import LONGEST_REPLY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from relay.claims.local_table import Verdict
    from relay.core.claim import Answer, Command, Fingerprint
    from relay.core.report import Report
    from relay.core.sequence import SequenceName, SequenceState

A, B, C = b"a@example.test", b"b@example.test", b"c@example.test"
MAIL = Content(b"Subject: New video\r\nMessage-ID: <one@tube.example.test>\r\n\r\nLook at this.\r\n")
BUSY = Reply(450, (b"4.2.1 Mailbox busy",))
SPAM = Reply(554, (b"5.7.1 Looks like spam",))
LEASE = 30.0
JUDGING_LIMIT = 20.0
WINDOW = 600.0

ORIGINAL = Original("4f1d", "<one@example.test>", "2.0.0 Ok", 1_700_000_000.0)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Store(MemoryStore):
    """What a guard makes of it."""

    up = True
    data_losses = 0

    async def ask(self, commands: Sequence[Command]) -> list[Answer]:
        return await self.execute(commands)


class FaultyClaims(ClaimManager):
    """A book with a fault in one step."""

    fault = ""
    """The name of the step; "answer" is a claim that is made, but not told."""

    async def follow(self, *arguments: Any) -> dict[SequenceName, SequenceState]:
        self._fail("follow")
        return await super().follow(*arguments)

    async def claim(self, *arguments: Any) -> dict[Fingerprint, Verdict]:
        self._fail("claim")
        verdicts = await super().claim(*arguments)
        return {} if self.fault == "answer" else verdicts

    async def find_lost_claims(self, *arguments: Any) -> dict[Fingerprint, Verdict]:
        self._fail("assure")
        return await super().find_lost_claims(*arguments)

    async def settle(self, *arguments: Any) -> None:
        self._fail("before settle")
        # Itself it is needed to leave nothing claimed, so it fails after its work.
        await super().settle(*arguments)
        self._fail("settle")

    def _fail(self, step: str) -> None:
        if step == self.fault:
            raise ValueError("a fault")


class ScriptedJudge(Judge):
    """Analyses a message with the function of a test."""

    def __init__(self, analyse: Callable[[bytes, bytes], MessageAnalysis]) -> None:
        super().__init__(window=WINDOW)
        self._analyse = analyse

    def __call__(
        self, content: bytes, reverse_path: bytes, recipients: int = 1, received_at: float | None = None
    ) -> MessageAnalysis:
        del recipients
        return self._analyse(content, reverse_path)


class RecordingReporter:
    """Hears everything."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.faults: list[str] = []
        self.refused: list[Reply] = []
        self.timed_out: list[int] = []

    def message(self, report: Report) -> None:
        self.reports.append(report)

    def aborted(self, record: str, peer: str) -> None:
        """Is the session's word."""

    def recipient_refused(self, record: str, peer: str, recipient: str, reply: Reply) -> None:
        self.refused.append(reply)

    def memory_refused(self, record: str, peer: str, size: int) -> None:
        """Is reported by the session."""

    def judgement_timed_out(self, record: str, peer: str, size: int) -> None:
        self.timed_out.append(size)

    def fault(self, record: str, where: str, error: Exception) -> None:
        self.faults.append(where)


class RecordingWriter:
    """Keeps traces and copies."""

    def __init__(self) -> None:
        self.noted: list[tuple[Trace, SuppressedCopy | None]] = []
        """The traces of suppressions, each with the copy."""
        self.added: list[Trace] = []
        """The traces of other messages."""
        self.unfinished: list[Trace] = []
        self._copy: SuppressedCopy | None = None
        self.fault = False
        self.hang = False
        self.hangs = asyncio.Event()

    def add(self, build: Callable[[], Trace], recipients: int) -> None:
        self.added.append(build())
        assert len(self.added[-1].recipients) == recipients

    def add_unfinished(self, build: Callable[[], Trace], recipients: int) -> None:
        self.unfinished.append(build())
        assert len(self.unfinished[-1].recipients) == recipients

    async def save(self, record: str, copy: SuppressedCopy) -> str:
        self._copy = copy
        return f"copy of {record}"

    async def write(self, build: Callable[[], Trace], recipients: int) -> None:
        if self.fault:
            raise ValueError("a fault")
        if self.hang:
            self.hangs.set()
            await asyncio.Event().wait()
        copy, self._copy = self._copy, None
        self.noted.append((build(), copy))


class ReadablePseudonyms:
    """Names that a test can read."""

    fault = ""
    """The recipient whose name cannot be had."""

    def __init__(self) -> None:
        self.threads: set[str] = set()

    def __call__(self, recipient: str) -> str:
        self.threads.add(threading.current_thread().name)
        if recipient == self.fault:
            raise ValueError("a fault")
        return recipient.upper()

    def redact(self, text: str, most: int) -> str:
        if self.fault == "redact":
            raise ValueError("a fault")
        return without_addresses(text.replace("2.0.0", "said:"), most)

    def digest(self, octets: bytes) -> str:
        return f"{len(octets)}"


class Relay:
    """The parts of one process; `other` is a second book on the same store."""

    def __init__(
        self,
        *,
        rules: Sequence[Rule] = (),
        window: float = WINDOW,
        observe: bool = False,
        judging_limit: float = JUDGING_LIMIT,
        **policy: Any,
    ) -> None:
        self.clock = Clock()
        self.store = Store(self.clock)
        self.lost: list[int] = []
        self.claims = FaultyClaims(self.store, lease=LEASE, clock=self.clock, on_lost=self.lost.append)
        self.other = ClaimManager(self.store, lease=LEASE, clock=self.clock)
        self.upstream = ScriptedUpstream()
        self.reporter = RecordingReporter()
        self.records = RecordingWriter()
        self.pseudonyms = ReadablePseudonyms()
        self.judge = Judge(rules, window=window, observe=observe)
        self.executors = Executors(judging=Executor("judging", 1, judging_limit), content=Executor("content", 1))
        self.memory = MemoryBudget(1 << 30)
        usual = {"wait": 60.0, "keep_uncertain": False, "explain_repeats": True, "recipients": 100}
        self.policy = Policy(**{**usual, "hostname": "relay.example.test", "received_field": True, **policy})
        self._ids = itertools.count()

    def begin(self, *, reverse_path: bytes = b"sender@example.test", book: ClaimManager | None = None) -> Transaction:
        parts = Dependencies(
            authenticator=None,
            policy=self.policy,
            upstream=self.upstream,
            claims=book or self.claims,
            reporter=self.reporter,
            judge=self.judge,
            executors=self.executors,
            memory=self.memory,
            traces=self.records,
            copies=self.records,
            pseudonyms=self.pseudonyms,
            loop_ids=["fedcba9876543210", "0123456789abcdef"],
            new_id=lambda: f"id{next(self._ids)}",
            clock=self.clock,
            now=lambda: 1_700_000_000.0,
        )
        return Transaction(parts, Envelope(reverse_path), peer="127.0.0.1", helo=b"tube.example.test")

    async def send(self, *paths: bytes, content: Content = MAIL, **more: Any) -> Reply:
        transaction = self.begin(**more)
        for path in paths:
            await transaction.rcpt(path)
        return await transaction.data(content)

    def outcomes(self) -> dict[bytes, Outcome]:
        """Give what became of each recipient of the last message."""
        return {to.encode(): result.outcome for to, result in self.reporter.reports[-1].results.items()}


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    one = Relay()
    yield one
    await close(one)


async def close(relay: Relay) -> None:
    assert relay.claims.held == 0, "whatever happens, nothing stays claimed"
    await relay.claims.close()
    await relay.other.close()


async def test_a_repeat_is_suppressed_and_a_narrower_one_goes_to_the_rest(relay: Relay) -> None:
    assert await relay.send(A, B) == QUEUED
    assert await relay.send(B, C) == QUEUED
    assert relay.upstream.sent == [(A, B), (C,)]
    assert relay.outcomes() == {B: Outcome.SUPPRESSED, C: Outcome.FORWARDED}
    relay.clock.now += 34
    reply = await relay.send(A, C)
    assert reply.code == 250
    assert reply.text.endswith("first sent 34 s ago")
    assert relay.upstream.prepared == [(A, B), (C,)]


async def test_who_is_refused_when_the_transaction_is_narrowed_can_be_sent_again(relay: Relay) -> None:
    await relay.send(A)
    relay.upstream.recipients = {C: [Reply(250, (b"ok",)), BUSY]}
    assert await relay.send(A, B, C) == BUSY
    assert relay.outcomes() == {A: Outcome.SUPPRESSED, B: Outcome.FORWARDED, C: Outcome.DEFERRED}
    assert await relay.send(A, B, C) == QUEUED
    assert relay.upstream.sent == [(A,), (B,), (C,)]


async def test_a_second_spelling_shares_reply_and_outcome(relay: Relay) -> None:
    transaction = relay.begin()
    relay.upstream.recipients = {A: [Reply(250, (b"2.1.5 first",))], B: [Reply(550, (b"5.1.1 unknown",))]}
    heard = [await transaction.rcpt(path) for path in (A, A.upper(), b'"a"@Example.Test', B, B.upper())]
    assert [reply.text for reply in heard] == ["2.1.5 first"] * 3 + ["5.1.1 unknown"] * 2
    assert await transaction.data(MAIL) == QUEUED
    assert relay.upstream.sent == [(A,)]
    assert relay.outcomes() == {A: Outcome.FORWARDED}
    assert len(relay.reporter.refused) == 1


async def test_too_many_recipients(relay: Relay) -> None:
    relay = Relay(recipients=2)
    transaction = relay.begin()
    heard = [await transaction.rcpt(path) for path in (A, B, A.upper(), C)]
    assert [reply.code for reply in heard] == [250, 250, 250, 452]
    assert heard[-1] == TOO_MANY_RECIPIENTS
    assert relay.reporter.refused == [TOO_MANY_RECIPIENTS]
    await transaction.abandon()


async def test_421_to_a_recipient_is_451_to_the_client(relay: Relay) -> None:
    relay.upstream.recipients = {A: [Reply(421, (b"4.3.2 Closing",))]}
    assert await relay.begin().rcpt(A) == Reply(451, (b"4.3.2 Closing",))


async def test_content_that_was_not_sent_is_sent_again(relay: Relay) -> None:
    relay.upstream.dots = [NotSent("lost"), NotSent("lost")]
    assert await relay.send(A) == QUEUED
    assert relay.upstream.sent == [(A,)]
    relay.upstream.dots = [NotSent("lost")] * 3
    assert await relay.send(B) == UNREACHABLE
    assert relay.outcomes() == {B: Outcome.DEFERRED}
    assert await relay.send(B) == QUEUED


@pytest.mark.parametrize("dot", [Unclear("lost"), OSError("while sending")], ids=["unclear", "fault"])
@pytest.mark.parametrize("keep", [False, True])
async def test_an_unclear_outcome_is_released_or_kept(dot: Unclear | Exception, keep: bool) -> None:
    relay = Relay(keep_uncertain=keep)
    relay.upstream.dots = [dot]
    assert await relay.send(A) == OUTCOME_UNKNOWN
    assert relay.outcomes() == {A: Outcome.UNCERTAIN}
    assert (await relay.send(A)).code == 250
    assert relay.upstream.sent == ([] if keep else [(A,)])
    await close(relay)


@pytest.mark.parametrize("reply", [BUSY, SPAM])
async def test_a_refusal_after_data_frees_the_claims(relay: Relay, reply: Reply) -> None:
    relay.upstream.dots = [reply]
    assert await relay.send(A, B) == reply
    assert await relay.send(A, B) == QUEUED
    assert relay.upstream.sent == [(A, B)]


# Faults of our own


async def test_a_message_that_cannot_be_judged_is_forwarded(relay: Relay) -> None:
    def fail(*_: bytes) -> MessageAnalysis:
        raise ValueError("a fault")

    relay.judge = ScriptedJudge(fail)
    assert [await relay.send(A) for _ in range(2)] == [QUEUED, QUEUED]
    assert relay.upstream.sent == [(A,), (A,)]
    assert relay.reporter.faults == ["fingerprint"] * 2
    assert [report.exempt for report in relay.reporter.reports] == ["fault"] * 2


async def test_a_fault_at_one_recipient_leaves_none_claimed(relay: Relay) -> None:
    relay.pseudonyms.fault = "b@example.test"
    assert await relay.send(A, B) == QUEUED
    relay.pseudonyms.fault = ""
    assert await relay.send(A, B) == QUEUED
    assert relay.upstream.sent == [(A, B), (A, B)]


@pytest.mark.parametrize("step", ["claim", "answer", "assure", "settle"])
async def test_a_fault_in_the_book_costs_no_mail(relay: Relay, step: str) -> None:
    relay.claims.fault = step
    assert await relay.send(A, B) == QUEUED
    assert relay.upstream.sent == [(A, B)]
    assert set(relay.reporter.faults) == {"claim": {"claim", "assure"}, "answer": {"claim"}}.get(step, {step})
    relay.claims.fault = ""
    assert (await relay.send(A)).text.startswith("2.0.0 Ok: duplicate, ")


async def test_a_fault_anywhere_else_is_451_with_an_id_and_leaves_nothing_claimed(relay: Relay) -> None:
    async def fail() -> None:
        raise ValueError("secret")

    relay.upstream.before_dot = fail
    reply = await relay.send(A)
    assert reply == Reply.of(451, f"4.3.0 Internal fault, try again later, id {relay.reporter.reports[-1].id}")
    assert relay.reporter.faults == ["transaction"]
    assert relay.outcomes() == {A: Outcome.DEFERRED}
    assert relay.claims.held == 0
    assert await relay.send(A) == QUEUED


async def test_a_record_that_cannot_be_kept_costs_no_mail(relay: Relay) -> None:
    relay.records.fault = True
    assert await relay.send(A) == QUEUED
    assert (await relay.send(A)).text.startswith("2.0.0 Ok: duplicate, ")
    assert relay.reporter.faults == ["trace"]
    assert relay.outcomes() == {A: Outcome.SUPPRESSED}


async def test_a_fault_before_the_claims_are_settled_leaves_none_claimed(relay: Relay) -> None:
    relay.claims.fault = "before settle"
    assert await relay.send(A, B) == QUEUED
    assert relay.reporter.faults == ["settle"]
    assert relay.claims.held == 0, "their leases would be renewed for ever"


async def test_a_reply_that_cannot_be_redacted_costs_its_text_and_not_the_acceptance(relay: Relay) -> None:
    relay.pseudonyms.fault = "redact"
    assert await relay.send(A) == QUEUED
    assert relay.reporter.faults == ["redact", "trace"]
    relay.pseudonyms.fault = ""
    assert (await relay.send(A)).text.startswith("2.0.0 Ok: duplicate, ")
    ((record, _),) = relay.records.noted
    assert record.repeats[0].original.reply == ""


async def test_a_connection_that_cannot_be_returned_loses_neither_reply_nor_report(relay: Relay) -> None:
    relay.upstream.finish_fault = ValueError("a fault")
    assert await relay.send(A) == QUEUED
    assert set(relay.reporter.faults) <= {"transaction", "finish"}
    assert "finish" in relay.reporter.faults
    assert relay.outcomes() == {A: Outcome.FORWARDED}


async def test_a_message_that_is_cut_off_while_its_record_is_written_is_reported(relay: Relay) -> None:
    await relay.send(A)
    relay.records.hang = True
    sending = asyncio.ensure_future(relay.send(A))
    await relay.records.hangs.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert relay.outcomes() == {A: Outcome.SUPPRESSED}


# Judgements that take long


async def test_a_judgement_that_takes_too_long_is_given_up_and_the_message_is_forwarded() -> None:
    relay, never = Relay(judging_limit=0.02), threading.Event()
    judge = relay.judge

    def hang(content: bytes, reverse_path: bytes) -> MessageAnalysis:
        if len(content) > 100_000:
            never.wait()
        return judge(content, reverse_path)

    relay.judge = ScriptedJudge(hang)
    large = Content(MAIL.wire + b"x\r\n" * 40_000)
    for _ in range(2):  # the second one waits behind the first, in vain
        assert await relay.send(A, content=large) == QUEUED
    assert relay.upstream.sent == [(A,), (A,)]
    assert relay.reporter.timed_out == [len(large)] * 2
    assert [report.exempt for report in relay.reporter.reports] == [SLOW_JUDGEMENT] * 2
    assert relay.reporter.faults == []
    assert await relay.send(A) == QUEUED, "small messages need no thread"
    never.set()
    await close(relay)


@pytest.mark.parametrize(
    ("content", "thread"),
    [
        (MAIL, "MainThread"),
        (Content(MAIL.wire + b"x\r\n" * 40_000), "judging"),
        (Content(MAIL.wire + b"--b\r\n\r\n" * 3000), "judging"),
    ],
    ids=["small", "large", "many parts"],
)
async def test_a_message_that_takes_long_to_judge_leaves_the_event_loop(
    relay: Relay, content: Content, thread: str
) -> None:
    judge, threads = relay.judge, []

    def note_thread(*arguments: bytes) -> MessageAnalysis:
        threads.append(threading.current_thread().name)
        return judge(*arguments)

    relay.judge = ScriptedJudge(note_thread)
    assert await relay.send(A, content=content) == QUEUED
    assert threads == [thread]


@pytest.mark.parametrize(("rules", "recipients", "thread"), [(3, 10, "MainThread"), (300, 100, "judging")])
async def test_many_rules_for_many_recipients_leave_the_event_loop(rules: int, recipients: int, thread: str) -> None:
    relay = Relay(
        rules=[rule(Action.EXEMPT, f"^user{number}@", what=MatchTarget.RECIPIENT) for number in range(rules)],
        traces_all=False,
    )
    assert await relay.send(*(b"someone%d@example.test" % number for number in range(recipients))) == QUEUED
    assert relay.pseudonyms.threads == {thread}
    await close(relay)


async def test_a_heavy_pattern_leaves_the_event_loop_for_small_messages_too() -> None:
    judge = Judge([rule(Action.EXEMPT, "(?:(?:a{1,30}){1,30})b")], window=WINDOW)
    assert not judge.takes_long(b"a" * 10_000)
    many = Judge([rule(Action.EXEMPT, f"(?:(?:a{{1,30}}){{1,30}}){number}") for number in range(30)], window=WINDOW)
    assert many.takes_long(b"a" * 10_000)


# Twins


async def test_a_recipient_whose_claim_was_lost_meanwhile_gets_the_others_copy(relay: Relay) -> None:
    keys = []

    async def lose() -> None:
        # Our lease runs out; another process takes B over and delivers it.
        relay.clock.now += LEASE
        taken = relay.begin(book=relay.other)
        await taken.rcpt(B)
        await taken.data(MAIL)
        keys.append(1)

    relay.upstream.before_dot = lose
    assert await relay.send(A, B, C) == QUEUED
    assert keys
    assert relay.upstream.sent == [(B,), (A, C)]
    assert relay.outcomes() == {A: Outcome.FORWARDED, B: Outcome.SUPPRESSED, C: Outcome.FORWARDED}
    assert relay.lost == [1]


async def test_when_all_claims_were_lost_nothing_is_sent(relay: Relay) -> None:
    async def lose() -> None:
        relay.clock.now += LEASE
        await relay.send(A, B, book=relay.other)

    relay.upstream.before_dot = lose
    assert (await relay.send(A, B)).text.startswith("2.0.0 Ok: duplicate, ")
    assert relay.upstream.sent == [(A, B)]
    assert relay.lost == [2]


async def test_a_waiter_takes_over_what_fails_and_holds_nothing_meanwhile(relay: Relay) -> None:
    first_waits, gate = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        first_waits.set()
        await gate.wait()

    relay.upstream.before_dot = hold
    relay.upstream.dots = [BUSY]
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        first = group.create_task(relay.send(A, B))
        await first_waits.wait()
        finished = relay.upstream.finished
        second = group.create_task(relay.send(B, A))
        while relay.upstream.finished == finished:  # noqa: ASYNC110 - what it gives back is not an event
            await asyncio.sleep(0)
        assert not second.done()
        gate.set()
    assert first.result() == BUSY
    assert second.result() == QUEUED
    assert relay.upstream.sent == [(B, A)]


async def test_a_wait_ends_with_451(relay: Relay) -> None:
    relay = Relay(wait=0.01)
    first = relay.begin(book=relay.other)
    await first.rcpt(A)
    terms = {relay.judge(MAIL.plain, b"sender@example.test").fingerprint(fold(A)): ClaimTerms(WINDOW)}
    await relay.other.claim(terms, first._token)
    assert await relay.send(A, B) == FIRST_COPY_IN_PROGRESS
    assert relay.outcomes() == {B: Outcome.FORWARDED, A: Outcome.DEFERRED}
    await close(relay)


async def test_when_the_wait_is_over_the_claims_are_asked_for_once_more(relay: Relay) -> None:
    holder = relay.begin(book=relay.other)
    await holder.rcpt(A)
    terms = {relay.judge(MAIL.plain, b"sender@example.test").fingerprint(fold(A)): ClaimTerms(WINDOW)}
    await relay.other.claim(terms, holder._token)

    async def take_long() -> None:
        # B's delivery takes longer than A may be waited for, and meanwhile A's owner is done.
        relay.clock.now += relay.policy.wait + 1
        await relay.other.settle(holder._token, dict.fromkeys(terms, ORIGINAL), [], terms)

    relay.upstream.after_dot = take_long
    assert await relay.send(A, B) == QUEUED
    assert relay.outcomes() == {B: Outcome.FORWARDED, A: Outcome.SUPPRESSED}


async def cut_off(relay: Relay, where: str) -> None:
    """Let a message to A hang at a point of its delivery, and end it there."""
    reached, never = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        reached.set()
        await never.wait()

    setattr(relay.upstream, where, hang)
    sending = asyncio.ensure_future(relay.send(A))
    await reached.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending


@pytest.mark.parametrize("keep", [True, False])
async def test_a_message_that_is_cut_off_after_its_dot_is_uncertain_and_reported(relay: Relay, keep: bool) -> None:
    relay = Relay(keep_uncertain=keep)
    await cut_off(relay, "after_dot")
    assert relay.outcomes() == {A: Outcome.UNCERTAIN}
    again = await relay.send(A)
    assert again.text.startswith("2.0.0 Ok: duplicate, ") if keep else again == QUEUED
    await close(relay)


async def test_a_repeat_hears_what_the_first_copy_heard(relay: Relay) -> None:
    relay = Relay(explain_repeats=False)
    assert await relay.send(A, B) == QUEUED
    kept = Reply.of(250, relay.pseudonyms.redact(QUEUED.text, LONGEST_REPLY))
    assert await relay.send(A) == kept
    assert relay.outcomes() == {A: Outcome.SUPPRESSED}
    assert await relay.send(B, A) == kept
    assert relay.upstream.sent == [(A, B)]
    await close(relay)


async def test_a_repeat_of_an_unclear_outcome_that_counts_as_sent_hears_a_neutral_reply(relay: Relay) -> None:
    relay = Relay(keep_uncertain=True, explain_repeats=False)
    await cut_off(relay, "after_dot")
    assert await relay.send(A) == Reply.of(250, "2.0.0 Ok: queued")
    await close(relay)


async def test_a_message_that_is_cut_off_before_its_dot_is_deferred_and_reported(relay: Relay) -> None:
    await cut_off(relay, "before_dot")
    assert relay.outcomes() == {A: Outcome.DEFERRED}
    assert await relay.send(A) == QUEUED


async def test_an_upload_that_is_cut_off_before_its_dot_is_never_kept_as_sent() -> None:
    relay = Relay(keep_uncertain=True)
    await cut_off(relay, "during_upload")
    assert relay.outcomes() == {A: Outcome.DEFERRED}
    assert await relay.send(A) == QUEUED
    await close(relay)


async def test_a_fault_before_the_dot_is_tried_again_and_never_kept_as_sent() -> None:
    relay = Relay(keep_uncertain=True)

    async def fail() -> None:
        raise MemoryError

    relay.upstream.during_upload = fail
    assert await relay.send(A) == QUEUED
    assert relay.upstream.sent == [(A,)]
    assert relay.reporter.faults == ["send"]
    await close(relay)


async def test_a_recipient_that_was_refused_is_not_kept_as_sent_when_the_dot_is_cut_off() -> None:
    """The narrower transaction refuses B; then the service ends while C waits for the reply to its dot."""
    relay = Relay(keep_uncertain=True)
    await relay.send(A)
    relay.upstream.recipients[B] = [ACCEPTED, SPAM]
    reached, never = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        reached.set()
        await never.wait()

    relay.upstream.after_dot = hang
    sending = asyncio.ensure_future(relay.send(A, B, C))
    await reached.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert relay.outcomes() == {A: Outcome.SUPPRESSED, B: Outcome.DEFERRED, C: Outcome.UNCERTAIN}
    assert await relay.send(B) == QUEUED
    assert relay.upstream.sent[-1] == (B,)
    await close(relay)


async def test_what_is_found_out_of_a_message_that_was_cut_off_changes_nothing(relay: Relay) -> None:
    judge, begun, go_on = relay.judge, threading.Event(), threading.Event()

    def slow(content: bytes, reverse_path: bytes) -> MessageAnalysis:
        begun.set()
        assert go_on.wait(20)
        return judge(content, reverse_path)

    relay.judge = ScriptedJudge(slow)
    sending = asyncio.ensure_future(relay.send(A, content=Content(MAIL.wire + b"x\r\n" * 40_000)))
    assert await asyncio.to_thread(begun.wait, 20)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    [report] = relay.reporter.reports
    go_on.set()
    await relay.executors.judging.run(lambda: None)
    assert report.rulings == {}, "somebody may be reading it meanwhile"
    assert relay.outcomes() == {A: Outcome.DEFERRED}


async def test_observing_forwards_and_counts(relay: Relay) -> None:
    relay = Relay(observe=True)
    assert [await relay.send(A, B), await relay.send(B, C)] == [QUEUED, QUEUED]
    assert relay.upstream.sent == [(A, B), (B, C)]
    assert relay.outcomes() == {B: Outcome.WOULD_SUPPRESS, C: Outcome.FORWARDED}
    await close(relay)


# Rules


def rule(action: Action, pattern: str, *, what: MatchTarget = MatchTarget.SUBJECT, **more: Any) -> Rule:
    return Rule(f"{action} {pattern}", action, (Condition(what, (Pattern(pattern),)),), **more)


async def test_a_rule_has_its_own_window() -> None:
    relay = Relay(rules=[rule(Action.DEDUPE, "video", window=10.0)])
    assert await relay.send(A) == QUEUED
    relay.clock.now += 9.9
    assert (await relay.send(A)).text.startswith("2.0.0 Ok: duplicate, ")
    relay.clock.now += 0.1
    assert await relay.send(A) == QUEUED
    relay.clock.now += 20.0
    assert await relay.send(A, content=Content(b"Subject: Other\r\n\r\n.\r\n")) == QUEUED
    relay.clock.now += WINDOW - 0.1
    assert (await relay.send(A, content=Content(b"Subject: Other\r\n\r\n.\r\n"))).text.startswith("2.0.0 Ok: dup")
    await close(relay)


async def test_each_recipient_has_the_rule_that_takes_him_first() -> None:
    rules = [
        rule(Action.EXEMPT, "^a@", what=MatchTarget.RECIPIENT),
        rule(Action.OBSERVE, "^b@", what=MatchTarget.RECIPIENT),
        rule(Action.EXEMPT, "^b@", what=MatchTarget.RECIPIENT),
    ]
    relay = Relay(rules=rules)
    for _ in range(2):
        assert await relay.send(A, B, C) == QUEUED
    assert relay.upstream.sent == [(A, B, C), (A, B)]
    assert relay.outcomes() == {A: Outcome.FORWARDED, B: Outcome.WOULD_SUPPRESS, C: Outcome.SUPPRESSED}
    assert relay.reporter.reports[-1].exempt == ""
    ((record, copy),) = relay.records.noted
    assert {(repeat.recipient, repeat.outcome, repeat.rule) for repeat in record.repeats} == {
        ("B@EXAMPLE.TEST", Outcome.WOULD_SUPPRESS, "observe ^b@"),
        ("C@EXAMPLE.TEST", Outcome.SUPPRESSED, "default"),
    }
    assert copy
    assert copy.paths == (C,)
    await close(relay)


async def test_a_window_of_0_is_exempt() -> None:
    for relay, why in (
        (Relay(window=0.0), "window is 0"),
        (Relay(rules=[rule(Action.DEDUPE, "video", window=0.0)]), "dedupe video: window is 0"),
    ):
        assert [await relay.send(A), await relay.send(A)] == [QUEUED, QUEUED]
        assert relay.reporter.reports[-1].exempt == why
        await close(relay)


# Records


async def test_a_repeat_leaves_a_record_of_what_it_repeats(relay: Relay) -> None:
    await relay.send(A, B)
    relay.clock.now += 34.0
    again = Content(MAIL.wire.replace(b"<one@", b"<two@"))
    reply = await relay.send(B, content=again)
    first, second = relay.reporter.reports
    ((record, copy),) = relay.records.noted
    assert record.id == second.id
    assert f"record {record.id}," in reply.text
    assert record.message_id == "<two@tube.example.test>"
    assert record.sender == "SENDER@EXAMPLE.TEST"
    (repeat,) = record.repeats
    assert (repeat.recipient, repeat.rule, repeat.age) == ("B@EXAMPLE.TEST", "default", 34.0)
    assert repeat.original == Original(first.id, "<one@tube.example.test>", "said:" + QUEUED.text[5:], 1_700_000_000.0)
    assert [name.rpartition(" ")[0] for name in record.forms["default"]] == [
        *("Subject", "Date (missing)", "reverse-path", "part", "text"),
    ]
    assert decode(encode(record)) == without_idle_steps(record)
    assert copy == SuppressedCopy(b"sender@example.test", (B,), again)


async def test_a_date_is_compared_with_the_time_of_receipt(relay: Relay) -> None:
    dates = ("Tue, 14 Nov 2023 22:00:00 +0000", "Tue, 14 Nov 2023 22:01:00 +0000", "Thu, 1 Jan 1970 00:00:00 +0000")
    for date in dates:
        await relay.send(A, content=Content(f"Date: {date}\r\n".encode() + MAIL.wire))
    outcomes = [next(iter(report.results.values())).outcome for report in relay.reporter.reports]
    assert outcomes == [Outcome.FORWARDED, Outcome.SUPPRESSED, Outcome.FORWARDED]


async def test_of_a_long_reply_the_beginning_is_kept(relay: Relay) -> None:
    relay.upstream.dots = [Reply(250, (b"2.0.0 " + b"x" * 2000,))]
    await relay.send(A)
    await relay.send(A)
    ((record, _),) = relay.records.noted
    assert record.repeats[0].original.reply == "said: " + "x" * (LONGEST_REPLY - len("2.0.0 "))


async def test_a_reply_is_redacted_before_it_is_cut(relay: Relay) -> None:
    relay.upstream.dots = [Reply(250, (b"x" * (LONGEST_REPLY - 10) + b" <secret.name@example.test>",))]
    await relay.send(A)
    await relay.send(A)
    ((record, _),) = relay.records.noted
    assert record.repeats[0].original.reply == "x" * (LONGEST_REPLY - 10) + " <address>"


async def test_what_is_only_observed_leaves_a_record_and_no_copy() -> None:
    relay = Relay(observe=True)
    await relay.send(A)
    await relay.send(A)
    ((record, copy),) = relay.records.noted
    assert [repeat.outcome for repeat in record.repeats] == [Outcome.WOULD_SUPPRESS]
    assert copy is None
    await close(relay)


# Traces


def without_idle_steps(trace: Trace) -> Trace:
    """Returns the trace as a store gives it back."""
    return trace._replace(steps={step: seconds for step, seconds in trace.steps.items() if seconds})


async def test_a_forwarded_message_leaves_a_trace_with_the_reply_of_the_upstream(relay: Relay) -> None:
    relay.upstream.recipients[B] = [Reply.of(550, "5.1.1 <b@example.test> unknown")]
    assert await relay.send(A, B) == QUEUED
    (trace,) = relay.records.added
    report = relay.reporter.reports[-1]
    assert (trace.id, trace.at, trace.peer, trace.helo) == (
        report.id,
        1_700_000_000.0,
        "127.0.0.1",
        "tube.example.test",
    )
    assert (trace.host, trace.sender) == ("relay.example.test", "SENDER@EXAMPLE.TEST")
    assert (trace.message_id, trace.size) == ("<one@tube.example.test>", len(MAIL))
    assert (trace.upstream, trace.reply) == ("mta.example.test:25", "250 said: Ok: queued as 1X1")
    assert [(to.recipient, to.outcome, to.reply, to.rule) for to in trace.recipients] == [
        ("A@EXAMPLE.TEST", TraceOutcome.FORWARDED, "250 said: Ok: queued as 1X1", "default"),
        ("B@EXAMPLE.TEST", TraceOutcome.RCPT_REFUSED, "550 5.1.1 <address> unknown", ""),
    ]
    assert trace.steps.keys() == {Step.UPLOAD, Step.JUDGE, Step.CLAIM, Step.DELIVER}
    assert trace.subject == ""
    assert decode(encode(trace)) == without_idle_steps(trace)


async def test_a_trace_has_the_subject_if_that_is_wanted() -> None:
    relay = Relay(traces_subjects=True)
    await relay.send(A, content=Content(b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\n.\r\n"))
    await relay.send(A, content=Content(b"Subject: " + b"x" * 500 + b"\r\n\r\n.\r\n"))
    assert [trace.subject for trace in relay.records.added] == ["Grüße", "x" * 200]
    await close(relay)


async def test_with_traces_of_repeats_only_other_messages_leave_none() -> None:
    relay = Relay(traces_all=False)
    await relay.send(A)
    await relay.send(A)
    transaction = relay.begin()
    await transaction.rcpt(A)
    await transaction.abandon()
    assert (relay.records.added, relay.records.unfinished, len(relay.records.noted)) == ([], [], 1)
    await close(relay)


async def test_the_steps_of_a_message_are_timed(relay: Relay) -> None:
    async def pass_time() -> None:
        relay.clock.now += 5.0

    transaction = relay.begin()
    await transaction.rcpt(A)
    relay.clock.now += 3.0
    relay.upstream.after_dot = pass_time
    await transaction.data(MAIL)
    (trace,) = relay.records.added
    assert trace.steps == {Step.UPLOAD: 3.0, Step.JUDGE: 0.0, Step.CLAIM: 0.0, Step.DELIVER: 5.0}
    assert trace.seconds == 5.0


async def test_a_transaction_that_is_aborted_leaves_a_trace(relay: Relay) -> None:
    relay.upstream.recipients[B] = [Reply.of(450, "4.2.0 later")]
    transaction = relay.begin()
    await transaction.rcpt(A)
    await transaction.rcpt(B)
    transaction.refuse_recipient(fold(C), TOO_MANY_RECIPIENTS)
    await transaction.abandon()
    (trace,) = relay.records.unfinished
    assert [(to.recipient, to.outcome, to.reply) for to in trace.recipients] == [
        ("A@EXAMPLE.TEST", TraceOutcome.ABORTED, "250 2.1.5 Ok"),
        ("B@EXAMPLE.TEST", TraceOutcome.RCPT_REFUSED, "450 4.2.0 later"),
        ("C@EXAMPLE.TEST", TraceOutcome.RCPT_REFUSED, "452 4.5.3 Too many recipients"),
    ]
    assert (trace.reply, trace.size, trace.upstream) == ("", 0, "")
    assert decode(encode(trace)) == without_idle_steps(trace)


async def test_a_transaction_without_recipients_leaves_no_trace(relay: Relay) -> None:
    await relay.begin().abandon()
    assert relay.records.unfinished == []


async def test_a_trace_names_a_thousand_refused_recipients_at_most(relay: Relay) -> None:
    transaction = relay.begin()
    for number in range(1_500):
        transaction.refuse_recipient(fold(b"%d@example.test" % number), TOO_MANY_RECIPIENTS)
    await transaction.abandon()
    assert len(relay.records.unfinished[0].recipients) == 1_000


async def test_a_message_that_is_refused_unread_leaves_a_trace(relay: Relay) -> None:
    transaction = relay.begin()
    await transaction.rcpt(A)
    await transaction.refuse(MAIL_LOOP, 12)
    (trace,) = relay.records.added
    assert (trace.size, trace.reply) == (12, "554 5.4.6 Too many hops, this message goes round in circles")
    assert [to.outcome for to in trace.recipients] == [TraceOutcome.REFUSED]


# Exempt


@pytest.mark.parametrize(
    ("why", "content"),
    [
        ("null reverse-path", MAIL),
        ("loop mark", Content(b"Received: by relay (smtp-dedup-relay 0123456789abcdef)\r\n" + MAIL.wire)),
        ("loop mark", Content(b"Received: by relay (smtp-dedup-relay fedcba9876543210)\r\n" + MAIL.wire)),
        ("exempt Reset", Content(b"Subject: Reset\r\n\r\nhttps://t.example.test/reset?key=1\r\n")),
    ],
)
async def test_exempt_messages_are_forwarded_each_time(why: str, content: Content) -> None:
    relay = Relay(rules=[rule(Action.EXEMPT, "Reset")])
    reverse_path = b"" if why == "null reverse-path" else b"sender@example.test"
    for _ in range(2):
        assert await relay.send(A, content=content, reverse_path=reverse_path) == QUEUED
    assert relay.upstream.sent == [(A,), (A,)]
    assert [report.exempt for report in relay.reporter.reports] == [why, why]
    assert relay.records.noted == []
    await close(relay)


async def test_a_message_with_too_many_hops_goes_nowhere(relay: Relay) -> None:
    looping = Content(b"Received: from a by b\r\n" * 100 + MAIL.wire)
    assert await relay.send(A, B, content=looping) == MAIL_LOOP
    assert relay.upstream.prepared == []
    assert relay.outcomes() == {A: Outcome.REFUSED, B: Outcome.REFUSED}


async def test_a_large_message_is_judged_too(relay: Relay) -> None:
    large = Content(MAIL.wire + b"x\r\n" * 40_000)
    assert await relay.send(A, content=large) == QUEUED
    assert (await relay.send(A, content=large)).text.startswith("2.0.0 Ok: duplicate, ")


# Consecutive rules

FIRING, RESOLVED = (
    Content(b"Subject: [%s] DiskFull\r\nFrom: Alerts <am@example.test>\r\n\r\nThe disk of db1.\r\n" % state)
    for state in (b"FIRING:1", b"RESOLVED")
)
NOTE = Content(b"Subject: A note\r\nFrom: Alerts <am@example.test>\r\n\r\nNo rule knows this.\r\n")
FOREIGN = Content(b"Subject: A note\r\nFrom: Eve <eve@example.test>\r\n\r\nNo rule knows this.\r\n")


def consecutive(pattern: str = r"^\[", action: Action = Action.DEDUPE, **more: Any) -> Rule:
    return rule(action, pattern, repeats=Repeats.CONSECUTIVE, **more)


@pytest.fixture
async def alerts() -> AsyncIterator[Relay]:
    one = Relay(rules=[consecutive()])
    yield one
    await close(one)


async def outcomes(relay: Relay, *mails: Content, to: bytes = A) -> str:
    """Sends the mails one after the other. Returns a letter for each: f(orwarded) or s(uppressed)."""
    letters = ""
    for mail in mails:
        await relay.send(to, content=mail)
        letters += relay.outcomes()[to].value[0]
    return letters


async def test_a_mail_in_between_makes_a_copy_no_repeat(alerts: Relay) -> None:
    assert await outcomes(alerts, FIRING, RESOLVED, FIRING) == "fff"
    assert [list(report.not_suppressed) for report in alerts.reporter.reports] == [[], [], ["a@example.test"]]
    assert await outcomes(alerts, FIRING, FIRING, RESOLVED, RESOLVED) == "ssfs"
    assert [bool(report.not_suppressed) for report in alerts.reporter.reports[3:]] == [False, False, True, False]


async def test_without_such_a_rule_a_mail_in_between_changes_nothing(relay: Relay) -> None:
    assert await outcomes(relay, FIRING, RESOLVED, FIRING) == "ffs"


async def test_other_recipients_and_senders_do_not_come_in_between(alerts: Relay) -> None:
    assert await outcomes(alerts, FIRING) == "f"
    assert await outcomes(alerts, RESOLVED, to=B) == "f"
    assert await outcomes(alerts, FOREIGN) == "f"
    assert await outcomes(alerts, FIRING) == "s"


async def test_a_mail_without_a_rule_comes_in_between_once_the_sequence_is_known(alerts: Relay) -> None:
    assert await outcomes(alerts, NOTE, FIRING, NOTE, FIRING) == "ffsf"
    assert await outcomes(alerts, NOTE) == "s", "the note itself has the window of the default rule"


async def test_an_exempt_mail_comes_in_between() -> None:
    relay = Relay(rules=[rule(Action.EXEMPT, "note"), consecutive()])
    assert await outcomes(relay, FIRING, NOTE, FIRING, FIRING) == "fffs"
    await relay.send(A, content=RESOLVED, reverse_path=b"")
    assert await outcomes(relay, FIRING) == "f", "a bounce is exempt before any rule"
    await close(relay)


async def test_display_names_do_not_count(alerts: Relay) -> None:
    closed, reopened = (
        Content(b"Subject: [#4] %s\r\nFrom: %s <tracker@example.test>\r\n\r\n" % (what, who))
        for what, who in ((b"closed", b"Alice"), (b"reopened", b"=?utf-8?q?B=C3=B6b?="))
    )
    assert await outcomes(alerts, closed, reopened, closed) == "fff"


async def test_another_process_knows_what_came_in_between(alerts: Relay) -> None:
    await alerts.send(A, content=FIRING)
    await alerts.send(A, content=RESOLVED, book=alerts.other)
    assert await outcomes(alerts, FIRING, FIRING) == "fs"
    await alerts.send(A, content=FIRING, book=alerts.other)
    assert alerts.outcomes() == {A: Outcome.SUPPRESSED}


@pytest.mark.parametrize("what", [MatchTarget.FROM, MatchTarget.RECIPIENT, MatchTarget.REVERSE_PATH])
async def test_in_another_process_the_scope_of_a_rule_makes_any_mail_come_in_between(what: MatchTarget) -> None:
    pattern = {MatchTarget.FROM: "am@", MatchTarget.RECIPIENT: "^a@", MatchTarget.REVERSE_PATH: "^sender@"}[what]
    scoped = consecutive()
    scoped = Rule(scoped.name, scoped.action, (*scoped.conditions, Condition(what, (Pattern(pattern),))))
    relay = Relay(rules=[dataclasses.replace(scoped, repeats=Repeats.CONSECUTIVE)])
    await relay.send(A, content=FIRING)
    await relay.send(A, content=NOTE, book=relay.other)
    assert await outcomes(relay, FIRING) == "f"
    await close(relay)


async def test_a_retry_is_not_suppressed_against_the_mail_before_the_one_in_between(alerts: Relay) -> None:
    assert await outcomes(alerts, FIRING, RESOLVED) == "ff"
    alerts.upstream.dots = [BUSY]
    assert await outcomes(alerts, FIRING, FIRING, FIRING) == "dfs"


async def test_a_mail_that_arrives_while_another_is_in_flight_is_no_repeat(alerts: Relay) -> None:
    async def alarm() -> None:
        assert await outcomes(alerts, FIRING) == "f"

    assert await outcomes(alerts, FIRING) == "f"
    alerts.upstream.after_dot = alarm
    assert await outcomes(alerts, RESOLVED) == "f"
    assert await outcomes(alerts, FIRING) == "f", "RESOLVED was accepted after it"


async def test_a_mail_of_no_rule_that_was_in_flight_when_the_sequence_began(alerts: Relay) -> None:
    async def alarm() -> None:
        assert await outcomes(alerts, FIRING) == "f"

    alerts.upstream.after_dot = alarm
    assert await outcomes(alerts, NOTE, FIRING) == "ff"


async def test_twins_wait_for_each_other(alerts: Relay) -> None:
    waits: list[asyncio.Task[Reply]] = []

    async def twin() -> None:
        waits.append(asyncio.ensure_future(alerts.send(A, B, content=FIRING)))
        await until(lambda: alerts.claims.waiting == 1, "the twin waiting")

    alerts.upstream.after_dot = twin
    assert await alerts.send(A, B, content=FIRING) == QUEUED
    assert (await waits[0]).code == 250
    assert alerts.upstream.sent == [(A, B)]


async def test_observing_counts_what_a_consecutive_rule_would_suppress() -> None:
    for relay in Relay(rules=[consecutive(action=Action.OBSERVE)]), Relay(rules=[consecutive()], observe=True):
        assert await outcomes(relay, FIRING, RESOLVED, FIRING, FIRING) == "fffw"
        await close(relay)


async def test_a_fault_in_following_forwards(alerts: Relay) -> None:
    await alerts.send(A, content=FIRING)
    alerts.claims.fault = "follow"
    assert await alerts.send(A, content=FIRING) == QUEUED
    assert alerts.upstream.sent == [(A,), (A,)]
    assert set(alerts.reporter.faults) == {"follow"}


async def test_a_message_that_no_consecutive_rule_concerns_asks_the_store_for_nothing_more(alerts: Relay) -> None:
    asked: list[Command] = []
    execute = alerts.store.execute

    async def ask(commands: Sequence[Command]) -> list[Answer]:
        asked.extend(commands)
        return await execute(commands)

    alerts.store.ask = ask  # type: ignore[method-assign]
    await alerts.send(A, content=FOREIGN)
    kinds = [type(command).__name__ for command in asked]
    assert kinds == ["AskGeneration", "Claim", "Confirm"]
    await alerts.send(A, content=FIRING)
    assert [type(command).__name__ for command in asked[3:]] == ["Follow", *kinds[:2], "Follow", "Confirm"]
