"""Which header fields count, what an ignore or a key makes of them, and the exemption of delivered mail."""

from __future__ import annotations

import datetime as dt
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.envelope import Recipient, fold
from relay.core.ruling import Action, Ruling
from relay.judge.fingerprint.header import counted_fields, why_counted
from relay.judge.judge import Judge
from relay.judge.judgement import judge_recipients
from relay.judge.mime.parser import parse
from relay.judge.rules.ignore import Header
from relay.judge.rules.pattern import Pattern
from relay.judge.rules.rule import NO_RULE, Condition, MatchTarget, Rule

if TYPE_CHECKING:
    from relay.judge.fingerprint.normal_form import NormalForm

BOB = Recipient("bob@example.org")
SENDER = b"news@shop.example"
NOW = dt.datetime(2026, 3, 1, 10, 57, tzinfo=dt.UTC)
HEAD = ("Date: Sun, 1 Mar 2026 10:57:00 +0000", "From: Shop <news@shop.example>", "Subject: Hello")
KEY = "X-Idempotency-Key"
plain_judge = Judge(window=600)


def content(*fields: str | bytes, head: tuple[str, ...] = HEAD, body: str = "Hello") -> bytes:
    lines = [line.encode() if isinstance(line, str) else line for line in (*head, *fields, "", body)]
    return b"\r\n".join(lines) + b"\r\n"


def form(octets: bytes, judge: Judge = plain_judge, at: dt.datetime | None = NOW) -> NormalForm:
    return judge(octets, SENDER, received_at=at.timestamp() if at else None).normal_form(NO_RULE)


def equal(first: bytes, second: bytes, judge: Judge = plain_judge) -> bool:
    one, other = (judge(octets, SENDER, received_at=NOW.timestamp()).fingerprint(BOB) for octets in (first, second))
    return one == other


@pytest.mark.parametrize(
    "field",
    [
        *("Cc: carl@example.org", "Bcc: carl@example.org", "Sender: robot@example.org", "Reply-To: a@example.org"),
        *("In-Reply-To: <1@example.org>", "References: <1@example.org>", "Resent-From: a@example.org"),
        *("X-Spam-Flag: YES", "Authentication-Results: mx; dkim=fail", "X-PHP-Originating-Script: 33:mail.php"),
        *("Thread-Index: AdABC1", "List-Unsubscribe: <https://x.example/1>", "X-Entity-Ref-ID: 1", "Feedback-ID: 1"),
        *("X-SES-Configuration-Set: a", "Precedence: bulk", "Auto-Submitted: auto-generated", "Text: x", "Part: x"),
        *("Reverse-Path: <a@example.org>", "Delivered-To: bob@example.org", "X-Loop: a", "ARC-Other: 1", "DKIM: 1"),
        *("Importance: high", "Content-Language: de", "Resend-Idempotency-Key: 1"),
    ],
)
def test_a_field_that_is_not_on_the_short_list_counts_with_its_value_and_its_number(field: str) -> None:
    assert not equal(content(), content(field))
    assert not equal(content(field), content(f"{field}7"))
    assert not equal(content(field), content(field, field))
    assert equal(content(field), content(field.replace(": ", ":\r\n ")))


@pytest.mark.parametrize(
    "field",
    [
        *("Message-ID: <1@x.example>", "Received: by mx", "Return-Path: <a@b.example>", "To: bob@example.org"),
        *("X-Mailer: PHPMailer", "User-Agent: x", "MIME-Version: 1.0", "DKIM-Signature: v=1", "ARC-Seal: i=1"),
        *("ARC-Message-Signature: i=1", "ARC-Authentication-Results: i=1; mx"),
    ],
)
def test_a_field_of_the_short_list_counts_only_if_somebody_may_act_on_it(field: str) -> None:
    assert equal(content(), content(field))
    for odd in (f"{field}\x01", f"{field}é", f"{field}{'x' * 999}"):
        if not field.startswith("MIME-Version"):
            assert not equal(content(), content(odd))
    assert not equal(content(), content(*[field] * 51))
    name = field.partition(":")[0]
    assert not equal(content(), content(field, f"{name}: {'x' * 900}", *[f" {'y' * 900}"] * 11))


def test_of_a_field_that_is_written_once_two_count() -> None:
    for name in ("Message-ID", "To", "X-Mailer", "User-Agent", "Return-Path", "Date"):
        assert not equal(content(f"{name}: <1@x>"), content(f"{name}: <1@x>", f"{name}: <1@x>"))
    assert equal(content(), content(*["Received: by mx"] * 10))
    assert not equal(content(), content(*["Received: by mx"] * 11))


def test_order_counts_within_a_name_only() -> None:
    assert equal(content("X-A: 1", "X-B: 2"), content("X-B: 2", "X-A: 1", head=HEAD[::-1]))
    assert not equal(content("X-A: 1", "X-A: 2"), content("X-A: 2", "X-A: 1"))
    labels = [label for label, _ in form(content("X-B: 2", "Cc: a@b", "X-A: 1")).fields]
    assert labels == ["Subject", "From", "Cc", "X-A", "X-B", "reverse-path domain", "part", "text"]


def test_a_field_counts_decoded_where_that_is_certain() -> None:
    assert equal(content("X-Note: =?utf-8?q?Gr=C3=BC=C3=9Fe?="), content("X-Note: =?utf-8?b?R3LDvMOfZQ==?="))
    # Readers guess the charset of raw octets (ADR 24).
    assert not equal(content("X-Note: =?utf-8?q?Gr=C3=BC=C3=9Fe?="), content("X-Note: Grüße"))
    assert not equal(content("Cc: =?utf-8?q?a=40b=2Eexample?= <x@y>"), content("Cc: a@b.example <x@y>"))
    assert ("X-Note (raw)", b" =?x-none?q?a?=") in form(content("X-Note: =?x-none?q?a?=")).fields


@pytest.mark.parametrize(
    ("date", "near"),
    [
        *((format_datetime(NOW + dt.timedelta(hours=hours)), True) for hours in (-3, -1, 0, 1)),
        *((format_datetime(NOW + dt.timedelta(hours=hours)), False) for hours in (-3.1, 1.1, 24, -24, -400_000)),
        *((f"Sun, 1 Mar 2026 {text}", True) for text in ("10:57 GMT", "10:57:59 UT", "02:57:00 -0800 (PST)")),
        *((f"1 Mar 2026 {text}", True) for text in ("16:27:00 +0530", "10:57:00 Z", "06:27 -0430")),
        *(("Sun,\r\n 1 Mar 2026 10:57:00\r\n +0000", True), ("Sun, 1 Mar 26 10:57:00 +0000", False)),
        *(("Sun, 1 Mar 2026 10:57:00", False), ("Sun, 1 Mar 2026 10:57:00 EST", False), ("", False), ("now", False)),
        *(("Sun, 31 Feb 2026 10:57:00 +0000", False), ("Sun, 1 Mar 2026 10:57:00 +2359", False)),
        *(("Sun, 1 Mrz 2026 10:57:00 +0000", False), ("Sun, 1 Mar 2026 24:00:00 +0000", False)),
    ],
)
def test_a_date_counts_as_written_unless_it_is_near_the_time_of_receipt(date: str, near: bool) -> None:
    found = form(content(f"Date: {date}", head=HEAD[1:])).fields
    assert [value for label, value in found if label.startswith("Date")] == ([] if near else [f" {date}".encode()])


def test_without_a_time_of_receipt_any_valid_date_is_near_and_a_missing_one_counts() -> None:
    assert "Date (raw)" not in dict(form(content(), at=None).fields)
    assert "Date (raw)" in dict(form(content("Date: then", head=HEAD[1:]), at=None).fields)
    assert "Date (missing)" in dict(form(content(head=HEAD[1:]), at=None).fields)


# Ignores


def test_of_an_ignored_field_neither_value_nor_presence_counts() -> None:
    judge = Judge(ignore=[Header("campaigns", "x-campaign"), Header("dates", "date")], window=600)
    assert equal(content(), content("X-Campaign: 1"), judge)
    assert equal(content("X-Campaign: 1"), content("X-CAMPAIGN: 2", "x-campaign: =?x?q?a?="), judge)
    assert equal(content(head=HEAD[1:]), content("Date: 1970", head=HEAD[1:]), judge)
    assert not equal(content("X-Campaign: 1"), content("X-Campaigns: 1"), judge)
    found = form(content("X-Campaign: 1", "Date: 1970", head=HEAD[1:]), judge)
    assert found.ignored == (("campaigns", b"X-Campaign: 1"), ("dates", b"Date (raw):  1970"))


def test_an_ignored_field_of_a_broken_message_and_of_the_reverse_path_name() -> None:
    judge = Judge(ignore=[Header("a", "x-a"), Header("r", "reverse-path")], window=600)
    broken = "Content-Type: multipart/mixed"
    assert equal(content(broken), content("X-A: 1", broken), judge)
    prints = {
        judge(content(), path, received_at=NOW.timestamp()).fingerprint(BOB)
        for path in (b"a@b.example", b"a@c.example")
    }
    assert len(prints) == 2


def test_a_field_ignored_by_a_rule_counts_elsewhere() -> None:
    news = Rule(
        "news", Action.DEDUPE, (Condition(MatchTarget.SUBJECT, (Pattern("^News"),)),), ignore=(Header("a", "x-a"),)
    )
    judge = Judge([news], window=600)
    for subject, same in (("News", True), ("Other", False)):
        head = (*HEAD[:2], f"Subject: {subject}")
        assert equal(content("X-A: 1", head=head), content("X-A: 2", head=head), judge) is same


# Keys

key_judge = Judge(window=600, key_headers=[KEY.lower(), "resend-idempotency-key"])


def test_a_key_replaces_the_content_but_not_recipient_and_sender() -> None:
    mail = content(f"{KEY}: order-7")
    again = content(f"{KEY}:  order-7 ", "X-A: 1", head=(HEAD[1], "Subject: Changed"), body="Changed")
    assert equal(mail, again, key_judge)
    assert not equal(mail, content(f"{KEY}: order-8"), key_judge)
    assert not equal(mail, content("Resend-Idempotency-Key: order-7"), key_judge)
    assert not equal(mail, content(f"{KEY}: order-7", head=("From: other@shop.example",)), key_judge)
    first, domain = (key_judge(mail, path).fingerprint(BOB) for path in (SENDER, b"news@other.example"))
    assert first != domain
    assert key_judge(mail, SENDER).fingerprint(Recipient("anna@example.org")) != first
    assert key_judge(mail, b"bounce-17@shop.example").fingerprint(BOB) == first
    assert form(mail, key_judge).fields == (
        (f"key {KEY}", b"order-7"),
        ("From", b"Shop <news@shop.example>"),
        ("reverse-path domain", b"shop.example"),
    )


@pytest.mark.parametrize(
    "fields",
    [
        [f"{KEY}:"],
        [f"{KEY}: a", f"{KEY}: a"],
        [f"{KEY}: a", "Resend-Idempotency-Key: a"],
        [f"{KEY}: {'x' * 257}"],
        [f"{KEY}: é"],
        [f"{KEY}: a\x07"],
        [f"{KEY}: a\tb"],
    ],
    ids=range(7),
)
def test_of_several_keys_or_a_malformed_one_the_content_counts(fields: list[str]) -> None:
    assert not equal(content(*fields), content(*fields, body="Changed"), key_judge)
    assert equal(content(*fields), content(*fields), key_judge)


def test_without_the_setting_a_key_is_a_field_like_any_other() -> None:
    assert not equal(content(f"{KEY}: a"), content(f"{KEY}: a", body="Changed"))
    assert not equal(content(f"{KEY}: a"), content(f"{KEY}: b"))
    assert equal(content(f"{KEY}: {'x' * 256}"), content(f"{KEY}: {'x' * 256}", body="Changed"), key_judge)


def test_a_rule_applies_before_the_key() -> None:
    never = Rule("never", Action.EXEMPT, (Condition(MatchTarget.SUBJECT, (Pattern("Hello"),)),))
    judge = Judge([never], window=600, key_headers=[KEY.lower()])
    assert judge(content(f"{KEY}: a"), SENDER).ruling(BOB) == Ruling.exempt("never")


# The exemption


@pytest.mark.parametrize(
    ("field", "reason"), [("Delivered-To: bob@example.org", "Delivered-To field"), ("X-Original-To: bob", "default")]
)
def test_mail_that_was_delivered_before_is_exempt(field: str, reason: str) -> None:
    analysis = plain_judge(content(field), SENDER)
    bob = fold(BOB.encode())
    judgement = judge_recipients(analysis, [bob], SENDER, loop_ids=(), pseudonym=str)
    assert judgement.rulings[bob].rule == reason
    assert bool(judgement.fingerprints) == (reason == "default")


@pytest.mark.parametrize("value", ["1", "<>", "<1>", "1@x.example", "<1@x.example> <2@x.example>", "<1 2@x.example>"])
def test_a_message_id_that_receivers_refuse_counts(value: str) -> None:
    assert not equal(content("Message-ID: <1@x.example>"), content(f"Message-ID: {value}"))
    assert equal(content("Message-ID:\r\n <1@x.example>"), content("Message-ID: <2=3@[192.0.2.1]>"))


@pytest.mark.parametrize("name", ["X-Campaign", "Subject", "Content-Type", "Content-Language"])
def test_white_space_that_makes_a_header_section_long_counts(name: str) -> None:
    head = HEAD[:2] if name == "Subject" else HEAD
    value = "text/plain" if name == "Content-Type" else "a"
    padding = f"\r\n {' ' * 500}" * 2 if name != "Content-Type" else " " * 1000
    assert not equal(content(f"{name}: {value}", head=head), content(f"{name}: {value};{padding}b=c", head=head))
    one, other = (content(f"{name}: {value};{pad}b=c", head=head) for pad in (" ", padding))
    assert not equal(one, other)


def test_much_white_space_in_many_fields_counts() -> None:
    fields = [f"X-{number}:{{}}a" for number in range(20)]
    short, long = (content(*(field.format(pad) for field in fields)) for pad in (" ", " " * 900))
    assert not equal(short, long)


_DATE = b" Sun, 1 Mar 2026 10:57:00 +0000"
_ODD_VALUES = st.sampled_from([b" <a@b>", b" <ab>", b" \xff", b" x\x01", b" " + b"y" * 998, _DATE, b" z" * 900])
_SHORT_LIST = st.sampled_from(["date", "message-id", "to", "received", "x-mailer", "dkim-signature", "content-type"])


@given(st.lists(st.tuples(_SHORT_LIST, _ODD_VALUES), max_size=14))
def test_a_reason_is_known_for_exactly_the_fields_that_count_as_written(fields: list[tuple[str, bytes]]) -> None:
    labels = {field.label for field in counted_fields(tuple(fields), b"", None)}
    assert {f"{name} (raw)" for name, _ in why_counted(tuple(fields))} == {
        label for label in labels if label.endswith("(raw)")
    }


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["Message-ID: <x>"], "its value is no valid one"),
        (["Date: soon"], "its value is no valid one, or far from the time of receipt"),
        (["To: a@b.example", "To: c@d.example"], "there are 2 such fields"),
        (["X-Mailer: \x01"], "it has a control, an octet outside ASCII or a line of 998 octets or more"),
        (["Received: " + "x " * 6000], "the fields that usually do not count have more than 10,240 bytes together"),
    ],
)
def test_the_reason_why_a_field_counts_as_written(lines: list[str], reason: str) -> None:
    name = lines[0].partition(":")[0]
    assert (name, reason) in why_counted(parse(content(*lines, head=HEAD[2:])).fields)
