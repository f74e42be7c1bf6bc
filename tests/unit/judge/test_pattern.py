"""Operators' patterns: what they find in octets, and that none of them can take long."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from relay.judge.rules.pattern import Pattern


def test_a_pattern_is_searched_anywhere_and_its_ends_are_those_of_the_text() -> None:
    assert Pattern("voice").search(b"an invoice")
    assert not Pattern("^voice").search(b"an invoice")
    assert not Pattern("^b$").search(b"a\nb\nc")
    assert Pattern("(?i)^RÉSUMÉ$").search("résumé".encode())


def test_a_pattern_can_match_the_whole() -> None:
    assert Pattern("[0-9]{10}|x").fullmatch(b"1741234567")
    assert not Pattern("[0-9]{10}|x").fullmatch(b"17412345678")
    assert not Pattern("[0-9]{10}|x").fullmatch(b"1741234567\n")


def test_spans_are_offsets_of_octets_and_never_empty() -> None:
    assert list(Pattern("[0-9]*").spans("é1 23".encode())) == [(2, 3), (4, 6)]
    assert list(Pattern("x*").spans(b"abc")) == []


def test_octets_that_are_no_text_can_be_searched() -> None:
    assert Pattern("token=[^&]").search(b"\xff\x80?token=1\xfe")


def test_patterns_of_one_text_are_equal() -> None:
    assert Pattern("a") == Pattern("a")
    assert len({Pattern("a"), Pattern("a"), Pattern("b")}) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(?i)(foo", 'missing ) at "(?i)(foo"'),
        ("a(?=b)", 'invalid perl operator at "(?="'),
        (r"(a)\1", r'invalid escape sequence at "\1"'),
        ("é[", 'missing ] at "["'),
        ("a\\", "trailing \\"),
        ("((a{100}){100}){100}", "repetition|too large"),
    ],
)
def test_a_wrong_pattern_says_what_is_wrong_and_where(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said if "|" in said else None) as error:
        Pattern(text)
    assert "|" in said or str(error.value) == said


@hypothesis_settings(deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_a_pattern_or_a_value_error(text: str) -> None:
    try:
        Pattern(text).search(b"something")
    except ValueError as error:
        assert str(error)  # noqa: PT017 - both ways are right


def test_no_pattern_takes_long() -> None:
    """Each of these takes a backtracking engine longer than anybody waits."""
    began = time.process_time()
    for text in ("(a+)+$", "(a|aa)+$", "(.*)*x", "(a|a?)+b"):
        assert not Pattern(text).fullmatch(b"a" * 50_000 + b"!")
    assert time.process_time() - began < 2
