"""What was made of a small body is remembered, and never taken for what would be made of another one."""

from __future__ import annotations

import tracemalloc

import pytest
from parts.avideo import Sending, notification

from relay.core.envelope import Recipient
from relay.core.ruling import Action
from relay.judge.fingerprint.decoded import DecodedBody, decode_message
from relay.judge.judge import Judge
from relay.judge.mime.headers import decode_value
from relay.judge.mime.message import parse
from relay.judge.rules.ignore import Text
from relay.judge.rules.pattern import Pattern
from relay.judge.rules.rule import NO_RULE, Condition, MatchTarget, Rule

BOB = Recipient("bob@example.org")
judge = Judge(window=600)


def body(content: bytes) -> DecodedBody:
    return decode_message(parse(content), b"").body


def single(fields: str, text: str = "a=c3=a4 b") -> bytes:
    return f"Subject: x\r\nMIME-Version: 1.0\r\n{fields}\r\n{text}\r\n".encode()


def related(parameter: str, inner: str = "") -> bytes:
    return (
        f"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=b{parameter}\r\n\r\n--b\r\n"
        "Content-Type: text/html\r\n\r\n<img src='cid:a'>\r\n--b\r\n"
        f"Content-Type: image/png\r\nContent-ID: <a>\r\n{inner}\r\nx\r\n--b--\r\n"
    ).encode()


def parts(number: int, fields: str) -> bytes:
    head = "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    return (head + f"--b\r\n{fields}\r\nx\r\n" * number + "--b--\r\n").encode()


def test_the_next_mail_of_a_bulk_is_decoded_no_more() -> None:
    first, second = (notification(sending=Sending(seed=str(seed))) for seed in range(2))
    assert first != second
    assert body(first) is body(second)
    assert judge(first, b"").fingerprint(BOB) == judge(second, b"").fingerprint(BOB)
    other = first.replace(b"Subject: ", b"Subject: Re: ")
    assert body(first) is body(other)
    assert judge(first, b"").fingerprint(BOB) != judge(other, b"").fingerprint(BOB)


@pytest.mark.parametrize(
    "others",
    [
        [single("Content-Type: text/plain; charset=utf-8\r\n"), single("Content-Type: text/html; charset=utf-8\r\n")],
        [single("Content-Type: text/plain; charset=utf-8\r\n"), single("Content-Type: text/plain; charset=x\r\n")],
        [single("Content-Transfer-Encoding: 8bit\r\n"), single("Content-Transfer-Encoding: quoted-printable\r\n")],
        [single("Content-Type: text/plain\r\n"), single("Content-Type: text/plain; name=x\r\n")],
        [single("Content-Disposition: inline\r\n"), single("Content-Disposition: attachment\r\n")],
        [single("Content-Description: one\r\n"), single("Content-Description: two\r\n")],
        [related(""), related("; start=a"), related("", "Content-Description: one\r\n")],
    ],
)
def test_the_same_octets_under_another_header_are_another_body(others: list[bytes]) -> None:
    found = [judge(content, b"").fingerprint(BOB) for content in others * 2]
    assert len(set(found)) == len(others)


def test_of_the_header_section_only_content_fields_describe_the_topmost_part() -> None:
    assert judge(single("Contents: 1\r\n"), b"").fingerprint(BOB) == judge(single(""), b"").fingerprint(BOB)


def test_what_is_left_out_of_one_body_depends_on_the_rule() -> None:
    def ignoring(name: str, pattern: str) -> Rule:
        to = Condition(MatchTarget.RECIPIENT, (Pattern(name),))
        return Rule(name, Action.DEDUPE, (to,), ignore=(Text(name, Pattern(pattern)),))

    rules = [ignoring("anna", "[0-9]"), ignoring("bob", "[a-z]")]
    for order in (rules, rules[::-1]):
        judged = Judge(order, window=600)(single("", "a1b2"), b"")
        texts = [dict(judged.normal_form(rule).fields)["text"] for rule in (*rules, NO_RULE)]
        assert texts == [b"a\0b\0", b"\x001\x002", b"a1b2"]


def test_one_value_means_one_thing_in_a_subject_and_another_in_an_address() -> None:
    for structured in (False, True, False):
        assert decode_value(b"=?utf-8?q?=3Ca=40b=3E?=", structured=structured) == (None if structured else b"<a@b>")


def test_what_is_large_is_not_remembered() -> None:
    few, many = (parts(number, "") for number in (50, 51))
    small, large = (single("", "x" * size) for size in (60_000, 70_000))
    for content in (small, few):
        assert body(content) is body(content)
    for content in (large, many, parts(2, "X: " + "y" * 40_000 + "\r\n")):
        assert body(content) is not body(content)


def test_what_is_remembered_is_bounded() -> None:
    head = "Content-Type: text/html\r\n"
    tracemalloc.start()
    try:
        for number in range(60):
            judge(single(head, f"<p>{number}" + "x <b>y</b>" * 6_000), b"").fingerprint(BOB)
        for number in range(20):
            judge(single(head, f"<p>{number}" + "x <b>y</b>" * 90_000), b"").fingerprint(BOB)
            judge(single(head, f"<style>{number}" + "b {}" * 200_000 + "</style>"), b"").fingerprint(BOB)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 8 << 20
