"""Operators' patterns: where they match in octets, and that every pattern takes linear time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from relay.judge.rules.pattern import Pattern


def test_a_pattern_matches_anywhere_and_its_anchors_are_the_ends_of_the_text() -> None:
    assert Pattern("voice").search(b"an invoice")
    assert not Pattern("^voice").search(b"an invoice")
    assert not Pattern("^b$").search(b"a\nb\nc")
    assert Pattern("(?i)^RÉSUMÉ$").search("résumé".encode())


def test_a_pattern_can_match_the_whole_text() -> None:
    assert Pattern("[0-9]{10}|x").fullmatch(b"1741234567")
    assert not Pattern("[0-9]{10}|x").fullmatch(b"17412345678")
    assert not Pattern("[0-9]{10}|x").fullmatch(b"1741234567\n")


def test_spans_are_octet_offsets_and_never_empty() -> None:
    assert list(Pattern("[0-9]*").spans("é1 23".encode())) == [(2, 3), (4, 6)]
    assert list(Pattern("x*").spans(b"abc")) == []


def test_octets_that_are_not_utf_8_can_be_searched() -> None:
    assert Pattern("token=[^&]").search(b"\xff\x80?token=1\xfe")


def test_patterns_with_equal_texts_are_equal() -> None:
    assert Pattern("a") == Pattern("a")
    assert len({Pattern("a"), Pattern("a"), Pattern("b")}) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(?i)(foo", 'missing ) at "(?i)(foo"'),
        ("a(?=b)", 'invalid perl operator at "(?="'),
        (r"(a)\1", r'invalid escape sequence at "\1"'),
        ("é[", 'missing ] at "["'),
        ("a\\", "trailing \\"),
        ("((a{100}){100}){100}", "repetition|too large"),
    ],
)
def test_the_error_names_the_fault_and_quotes_the_part(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message if "|" in message else None) as error:
        Pattern(text)
    assert "|" in message or str(error.value) == message


@pytest.mark.parametrize(
    ("text", "light"),
    [
        ("[^x]{1000}y", False),
        ("(?:.?){900}a", False),
        ("(?i)(?:[a-z]+ ){1,900}z", False),
        (r"(?:\w+\s*){1,300}!", False),
        ("a{1000}a*", True),
        (r"\pL{50}!", True),
        ("(?i)unsubscribe.{0,200}here", True),
        ("(?i)(?:new|old) video: .*", True),
    ],
)
def test_a_pattern_weighs_what_it_can_cost(text: str, light: bool) -> None:
    assert (Pattern(text).weight <= 2000) == light


@hypothesis_settings(deadline=None)
@given(st.text(max_size=20))
def test_every_text_is_a_pattern_or_raises_a_value_error(text: str) -> None:
    try:
        Pattern(text).search(b"something")
    except ValueError as error:
        assert str(error)  # noqa: PT017 - both outcomes are right


def test_patterns_that_stall_backtracking_engines_take_linear_time() -> None:
    began = time.process_time()
    for text in ("(a+)+$", "(a|aa)+$", "(.*)*x", "(a|a?)+b"):
        assert not Pattern(text).fullmatch(b"a" * 50_000 + b"!")
    assert time.process_time() - began < 2
