"""The plan for each recipient, and the reply to the client: the table of replies, row by row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.core.claim import Held, Original, Sent, Won
from relay.core.decision import Plan, answered, plan, reply_for, suppressed
from relay.core.envelope import Recipient
from relay.core.outcome import Outcome, Result
from relay.core.reply import (
    FIRST_COPY_IN_PROGRESS,
    MAIL_LOOP,
    NO_VALID_RECIPIENTS,
    OUTCOME_UNKNOWN,
    TOO_LARGE,
    UNREACHABLE,
    Reply,
)

A, B, C = (Recipient(f"{name}@example.test") for name in "abc")
ORIGINAL = Original("4f1d", "<one@example.test>", "2.0.0 Ok: queued as 1X1", 1_700_000_000.0)
SENT = Sent(ORIGINAL, 34.4)
HELD = Held(20.0)

QUEUED = Reply(250, (b"2.0.0 Ok: queued as 7X7",))
BUSY = Reply(450, (b"4.2.1 Mailbox busy",))
UNKNOWN = Reply(550, (b"5.1.1 No such user",))
SPAM = Reply(554, (b"5.7.1 Looks like spam",))

FORWARDED = answered(QUEUED)
SUPPRESSED = suppressed("77aa", SENT, explain=True)
WOULD = answered(QUEUED, SENT)
DEFERRED = answered(BUSY)
REFUSED = answered(UNKNOWN)
UNCERTAIN = Result(Outcome.UNCERTAIN, OUTCOME_UNKNOWN)
WAITED = Result(Outcome.DEFERRED, FIRST_COPY_IN_PROGRESS)
DUPLICATE = Reply(250, (b"2.0.0 Ok: duplicate, record 77aa, first sent 34 s ago",))


def test_the_claim_decides_the_plan() -> None:
    assert plan({A: Won(), B: SENT, C: HELD}) == Plan(forward=(A,), suppress={B: SENT}, wait=(C,), observed={})


def test_the_plan_without_recipients_is_empty() -> None:
    assert plan({}) == Plan(forward=(), suppress={}, wait=(), observed={})


def test_observed_recipients_are_forwarded_in_order_and_never_wait() -> None:
    observing = plan({A: HELD, B: Won(), C: SENT}, {A, B, C})
    assert observing == Plan(forward=(A, B, C), suppress={}, wait=(), observed={A: HELD, C: SENT})


def test_only_some_recipients_may_be_observed() -> None:
    some = plan({A: SENT, B: SENT, C: HELD}, {A})
    assert some == Plan(forward=(A,), suppress={B: SENT}, wait=(C,), observed={A: SENT})


@pytest.mark.parametrize(
    ("results", "reply"),
    [
        # Every recipient is accepted now, or a repeat of an accepted copy.
        ([FORWARDED], QUEUED),
        ([SUPPRESSED, FORWARDED, SUPPRESSED], QUEUED),
        ([SUPPRESSED, SUPPRESSED], DUPLICATE),
        ([WOULD], QUEUED),
        # Some were not accepted: a retry sends only the rest.
        ([FORWARDED, DEFERRED], BUSY),
        ([SUPPRESSED, REFUSED, DEFERRED], BUSY),
        ([REFUSED, WAITED], FIRST_COPY_IN_PROGRESS),
        # 5yz only if all of those were refused permanently.
        ([FORWARDED, REFUSED], UNKNOWN),
        ([SUPPRESSED, REFUSED, answered(SPAM)], UNKNOWN),
        # Upstream unreachable, a wait that ended, an unclear outcome.
        ([answered(UNREACHABLE)], UNREACHABLE),
        ([FORWARDED, WAITED], FIRST_COPY_IN_PROGRESS),
        ([SUPPRESSED, UNCERTAIN], OUTCOME_UNKNOWN),
        ([REFUSED, UNCERTAIN], OUTCOME_UNKNOWN),
        # 421 in a transaction.
        ([answered(Reply(421, (b"4.3.2 Closing",)))], Reply(451, (b"4.3.2 Closing",))),
        # Too large, a mail loop, no recipients.
        ([Result(Outcome.REFUSED, TOO_LARGE)] * 2, TOO_LARGE),
        ([Result(Outcome.REFUSED, MAIL_LOOP)], MAIL_LOOP),
        ([], NO_VALID_RECIPIENTS),
    ],
)
def test_one_reply_for_all_recipients(results: list[Result], reply: Reply) -> None:
    assert reply_for(results) == reply


@pytest.mark.parametrize("code", [250, 251, 252, 299])
def test_any_acceptance_of_the_upstream_is_250(code: int) -> None:
    assert answered(Reply(code, (b"2.0.0 \xff",))) == Result(Outcome.FORWARDED, Reply(250, (b"2.0.0 \xff",)))


@pytest.mark.parametrize(
    ("upstream_code", "outcome", "client_code"),
    [
        (450, Outcome.DEFERRED, 450),
        (421, Outcome.DEFERRED, 451),
        (550, Outcome.REFUSED, 550),
        (521, Outcome.REFUSED, 521),
    ],
)
def test_refusals_are_passed_on(upstream_code: int, outcome: Outcome, client_code: int) -> None:
    assert answered(Reply(upstream_code, (b"x", b"y"))) == Result(outcome, Reply(client_code, (b"x", b"y")))


def test_3yz_to_the_dot_is_451() -> None:
    # 354 would make the client send its content again, and no metric counts 3yz.
    assert answered(Reply(354, (b"Go on",))) == Result(Outcome.DEFERRED, Reply(451, (b"Go on",)))


def test_a_suppression_names_the_message_that_it_repeats() -> None:
    assert suppressed("77aa", SENT, explain=True) == Result(Outcome.SUPPRESSED, DUPLICATE, ORIGINAL, 34.4)


@pytest.mark.parametrize(
    ("kept", "text"),
    [
        ("2.0.0 Ok: queued as 1X1", b"2.0.0 Ok: queued as 1X1"),
        ("Ok, J\u00fcrgen", b"Ok, J\xc3\xbcrgen"),
        # A fault lost the text, or it is that of an unclear outcome that counts as sent.
        ("", b"2.0.0 Ok: queued"),
        (OUTCOME_UNKNOWN.text, b"2.0.0 Ok: queued"),
        ("5.7.1 Spam", b"2.0.0 Ok: queued"),
        # A store that others can write to.
        ("2.0.0 Ok\r\n421 4.3.2 Closing", b"2.0.0 Ok: queued"),
        ("2.0.0 \ud800", b"2.0.0 Ok: queued"),
        ("2" * 1000, b"2" * 500),
    ],
)
def test_a_repeat_hears_the_words_of_the_first_copy(kept: str, text: bytes) -> None:
    original = replace(ORIGINAL, reply=kept)
    result = suppressed("77aa", Sent(original, 34.4), explain=False)
    assert result == Result(Outcome.SUPPRESSED, Reply(250, (text,)), original, 34.4)


def test_an_observed_repeat_counts_only_if_the_upstream_accepted_it() -> None:
    assert answered(QUEUED, SENT) == Result(Outcome.WOULD_SUPPRESS, QUEUED, ORIGINAL, 34.4)
    assert answered(QUEUED, HELD) == Result(Outcome.WOULD_SUPPRESS, QUEUED)
    assert answered(BUSY, SENT) == DEFERRED
