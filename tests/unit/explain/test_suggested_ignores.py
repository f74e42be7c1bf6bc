"""Ignores that are suggested for two messages, and the rule for the kind of a message."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from relay.core.envelope import Recipient
from relay.explain.message_file import analyse_content
from relay.explain.suggested_ignores import Suggestion, suggest_ignores
from relay.explain.suggested_rule import conditions_of_content, exempting_rule
from relay.settings import Settings
from relay.settings.render import table_lines
from relay.settings.rules import build_judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.explain.message_file import ExplainedMessage
    from relay.settings.tables import IgnoreTable

HEADER = b"From: Shop <shop@example.com>\r\nSubject: Your digest\r\n"
HTML = b"Content-Type: text/html; charset=utf-8\r\n"


def suggest(first: bytes, second: bytes) -> Suggestion:
    def analyse(ignores: Sequence[IgnoreTable]) -> list[ExplainedMessage]:
        judge = build_judge(Settings().model_copy(update={"ignore": tuple(ignores)}))
        return [analyse_content(Path("a"), each, judge, recipient=None, reverse_path=None) for each in (first, second)]

    return suggest_ignores(analyse)


def toml(suggestion: Suggestion) -> list[str]:
    return [", ".join(table_lines(each)) for each in suggestion.ignores]


def mail(body: bytes, header: bytes = b"") -> bytes:
    return HEADER + header + b"\r\n" + body + b"\r\n"


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        (
            mail(b"Hello", b"X-Campaign: 17\r\n"),
            mail(b"Hello", b"X-Campaign: 18\r\n"),
            ['header = "x-campaign"'],
        ),
        (
            mail(b"This page was generated at 10:01 by us."),
            mail(b"This page was generated at 10:02 by us."),
            [r"text = 'page\s+was\s+generated\s+at\s+(?P<ignored>[0-9:]+)'"],
        ),
        (
            mail(b"See http://shop.example/a?id=7&utm_id=aa1 now"),
            mail(b"See http://shop.example/a?id=7&utm_id=bb22 now"),
            ['parameter = "utm_id", value = "[0-9a-z]*"'],
        ),
        (
            mail(b"<p>Hi</p><img src='http://shop.example/p.gif?t=1700000001'>", HTML),
            mail(b"<p>Hi</p><img src='http://shop.example/p.gif?t=1700000002'>", HTML),
            ['parameter = "t", value = "[0-9]*"'],
        ),
        (
            mail(b"<p data-run='17'>Hello</p>", HTML),
            mail(b"<p data-run='18'>Hello</p>", HTML),
            ['attribute = "data-run", value = "[0-9]+"'],
        ),
    ],
)
def test_ignores_make_two_messages_equal(first: bytes, second: bytes, found: list[str]) -> None:
    suggestion = suggest(first, second)
    assert toml(suggestion) == found
    assert suggestion.comparison.equal


def test_only_those_that_are_needed_are_suggested() -> None:
    both = b"Content-Type: multipart/alternative; boundary=b\r\n"
    body = (
        b"--b\r\nContent-Type: text/plain\r\n\r\nYour ticket number is %d today.\r\n"
        b"--b\r\nContent-Type: text/html\r\n\r\n<p>Your <b>ticket number is %d</b> today.</p>\r\n--b--"
    )
    suggestion = suggest(mail(body % (1, 1), both), mail(body % (2, 2), both))
    assert toml(suggestion) == [r"text = 'ticket\s+number\s+is\s+(?P<ignored>[0-9]+)'"]
    assert suggestion.comparison.equal


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (mail(b"x"), mail(b"x").replace(b"Your digest", b"Your invoice")),
        (mail(b"x"), mail(b"x").replace(b"shop@", b"spam@")),
        (mail(b"17"), mail(b"18")),
        (mail(b"<a href='http://a.example/1'>x</a>", HTML), mail(b"<a href='http://a.example/2'>x</a>", HTML)),
    ],
)
def test_nothing_is_suggested_for_what_people_act_on(first: bytes, second: bytes) -> None:
    suggestion = suggest(first, second)
    assert suggestion.ignores == ()
    assert not suggestion.comparison.equal


def test_many_differences_end_the_search() -> None:
    first = b" ".join(b"word number %d is here." % number for number in range(60))
    suggestion = suggest(mail(first), mail(first.replace(b"number", b"numeral").replace(b"here", b"there")))
    assert len(suggestion.ignores) <= 8


# The rule


def test_the_rule_has_exact_conditions_and_matches_its_message() -> None:
    content = mail(b"x").replace(b"Your digest", b"=?utf-8?q?Your_digest_=28caf=C3=A9=29?=")
    rule = exempting_rule(conditions_of_content(content))
    assert rule
    assert [*table_lines(rule)] == [
        'name = "no repeats: Your digest (café)"',
        r"""subject = '^Your digest \(café\)$'""",
        r"""from = '^Shop <shop@example\.com>$'""",
        'action = "exempt"',
    ]
    judge = build_judge(Settings().model_copy(update={"rules": (rule,)}))
    assert judge(content, b"").rule(Recipient("ada@example.org")).name == rule.name
    assert judge(mail(b"x"), b"").rule(Recipient("ada@example.org")).name != rule.name


def test_the_sender_in_a_trace_matches_that_of_the_message_in_any_case() -> None:
    rule = exempting_rule({"reverse_path": "bounces@shop.example", "subject": "Your digest"})
    assert rule
    judge = build_judge(Settings().model_copy(update={"rules": (rule,)}))
    to = Recipient("ada@example.org")
    assert judge(mail(b"x"), b"Bounces@Shop.example").rule(to).name == rule.name
    assert judge(mail(b"x"), b"xbounces@shop.example").rule(to).name != rule.name


def test_octets_that_are_no_text_are_in_no_condition() -> None:
    content = mail(b"x").replace(b"Your digest", b"caf\xe9")
    assert conditions_of_content(content).get("subject", "\ufffd").count("\ufffd") == 1
    assert exempting_rule(conditions_of_content(content)) is None


@pytest.mark.parametrize(
    ("known", "conditions"),
    [
        ({"reverse_path": "a@b.example", "subject": "Hi"}, {"reverse_path", "subject"}),
        ({"reverse_path": "a@b.example", "recipient": "c@d.example"}, {"reverse_path", "recipient"}),
        ({"from": "A <a@b.example>", "reverse_path": "x@b.example", "subject": "Hi"}, {"from_", "subject"}),
        ({"reverse_path": "h:0123456789abcdef", "subject": "Hi"}, None),
        ({"reverse_path": "a@b.example", "recipient": "h:0123456789abcdef"}, None),
        ({"reverse_path": "a@b.example", "subject": "x\x1b[31m\u202e"}, None),
        ({"reverse_path": "a@b.example", "subject": "s" * 201}, None),
        ({"reverse_path": "a@b.example", "subject": "s" * 200}, None),
        ({"reverse_path": "a@b.example", "subject": "caf\ufffd"}, None),
        ({"subject": "Hi"}, None),
        ({}, None),
    ],
)
def test_a_rule_needs_a_sender_and_what_narrows_it(known: dict[str, str], conditions: set[str] | None) -> None:
    rule = exempting_rule(known)
    found = rule and {name for name in ("from_", "reverse_path", "subject", "recipient") if getattr(rule, name)}
    assert found == conditions
