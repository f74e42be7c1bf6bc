"""Edits between two texts: they lead from one to the other, and are found in bounded time."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from relay.explain.edits import common_prefix_length, find_edits

ALL = 1 << 30
WORDS = st.lists(st.sampled_from(["a", "b", "cd", " ", "=", "\n", "ü", "x" * 70]), max_size=600).map("".join)


@given(WORDS, WORDS)
def test_edits_lead_from_one_text_to_the_other(first: str, second: str) -> None:
    made, done = "", 0
    for edit in find_edits(first, second, limit=ALL).edits:
        made += first[done : edit.at]
        assert len(made) == edit.other_at
        assert first.startswith(edit.first, edit.at)
        assert edit.first != edit.second
        made += edit.second
        done = edit.at + len(edit.first)
    assert made + first[done:] == second


@given(WORDS, WORDS)
def test_the_common_prefix_is_common_and_as_long_as_possible(first: str, second: str) -> None:
    length = common_prefix_length(first, second)
    assert first[:length] == second[:length]
    assert first[length : length + 1] != second[length : length + 1] or not first[length : length + 1]


def test_one_word_is_one_edit_with_what_stands_around_it() -> None:
    (edit,) = find_edits("one two three", "one 2 three", limit=ALL).edits
    assert (edit.before, edit.first, edit.second, edit.after) == ("one ", "two", "2", " three")


def test_a_token_is_one_edit_whatever_its_letters() -> None:
    (edit,) = find_edits("?token=ab-12&x=1", "?token=cd-77&x=1", limit=ALL).edits
    assert (edit.first, edit.second) == ("ab-12", "cd-77")


def test_edits_far_from_each_other_are_found_in_a_large_text() -> None:
    text = "lorem ipsum dolor " * 50_000
    began = time.process_time()
    found = find_edits(text, f"X{text[:400_000]}Y{text[400_000:]}Z", limit=ALL)
    assert time.process_time() - began < 5
    assert len(found.edits) == 3
    assert not found.more


def test_no_more_edits_are_given_than_wanted() -> None:
    found = find_edits("a b " * 300, "a c " * 300, limit=7)
    assert (len(found.edits), found.more) == (7, True)
    assert not find_edits("a b", "a c", limit=1).more
    began = time.process_time()
    assert find_edits("a b " * 250_000, "a c " * 250_000, limit=7).more
    assert time.process_time() - began < 5


def test_two_texts_with_nothing_in_common_are_one_edit() -> None:
    first, second = "".join(map(chr, range(0x400, 0x1400))), "".join(map(chr, range(0x4E00, 0x6E00)))
    (edit,) = find_edits(first, second, limit=ALL).edits
    assert (edit.first, edit.second) == (first, second)
