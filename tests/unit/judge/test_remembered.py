"""Caches of small bodies: equal bodies are decoded once, and a cached result is never used for another body."""

from __future__ import annotations

import tracemalloc

import pytest
from parts.avideo import Sending, notification

from relay.core.envelope import Recipient
from relay.core.ruling import Action
from relay.judge.fingerprint.decoded import DecodedBody, decode_message
from relay.judge.judge import Judge
from relay.judge.mime.headers import decode_value
from relay.judge.mime.parser import parse
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


def test_the_body_of_the_next_bulk_mail_is_not_decoded_again() -> None:
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
def test_equal_octets_under_different_part_headers_are_different_bodies(others: list[bytes]) -> None:
    found = [judge(content, b"").fingerprint(BOB) for content in others * 2]
    assert len(set(found)) == len(others)


def test_only_content_fields_of_the_message_describe_the_topmost_part() -> None:
    form, other = (judge(single(field), b"").normal_form(NO_RULE).fields for field in ("", "Contents: 1\r\n"))
    assert [field for field in other if field not in form] == [("Contents", b"1")]


def test_each_rule_ignores_its_own_parts_of_a_cached_body() -> None:
    def ignoring(name: str, pattern: str) -> Rule:
        to = Condition(MatchTarget.RECIPIENT, (Pattern(name),))
        return Rule(name, Action.DEDUPE, (to,), ignore=(Text(name, Pattern(pattern)),))

    rules = [ignoring("anna", "[0-9]"), ignoring("bob", "[a-z]")]
    for order in (rules, rules[::-1]):
        analysis = Judge(order, window=600)(single("", "a1b2"), b"")
        texts = [dict(analysis.normal_form(rule).fields)["text"] for rule in (*rules, NO_RULE)]
        assert texts == [b"a\0b\0", b"\x001\x002", b"a1b2"]


def test_a_cached_value_of_an_unstructured_field_is_not_used_for_a_structured_field() -> None:
    for structured in (False, True, False):
        assert decode_value(b"=?utf-8?q?=3Ca=40b=3E?=", structured=structured) == (None if structured else b"<a@b>")


def test_large_bodies_are_not_cached() -> None:
    few, many = (parts(number, "") for number in (50, 51))
    small, large = (single("", "x" * size) for size in (60_000, 70_000))
    for content in (small, few):
        assert body(content) is body(content)
    for content in (large, many, parts(2, "X: " + "y" * 40_000 + "\r\n")):
        assert body(content) is not body(content)


def test_the_memory_of_the_caches_is_bounded() -> None:
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
