"""Two normalised forms beside each other: which part a difference stands in, and that none is forgotten."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.explain.field_pairs import NumberedField, number_fields, pair_different_fields
from relay.judge.fingerprint.normal_form import Field, NormalForm

SUBJECT = Field("Subject", b"Hello")
HTML = (Field("part", b"text/html"), Field("text", b"<p>"))
END = Field("end of parts", b"")


def form(*fields: Field) -> NormalForm:
    return NormalForm(fields)


def plain(text: bytes) -> tuple[Field, ...]:
    return (Field("part", b"text/plain"), Field("text", text))


def mixed(*fields: Field) -> tuple[Field, ...]:
    return (Field("parts", b"multipart/mixed"), *fields, END)


def test_parts_have_the_numbers_of_imap() -> None:
    fields = number_fields(form(SUBJECT, *mixed(*plain(b"a"), *mixed(*plain(b"b"), *HTML), *plain(b"c"))))
    assert [field.part for field in fields if field.label != "text"] == [
        *("", "-", "1", "2", "2.1", "2.2", "2", "3", "-"),
    ]
    assert [field.part for field in number_fields(form(*plain(b"a")))] == ["1", "1"]


def test_equal_forms_do_not_differ() -> None:
    assert pair_different_fields(form(SUBJECT, *plain(b"a")), form(SUBJECT, *plain(b"a"))) == []


def test_a_text_stands_beside_the_text_of_the_same_part() -> None:
    first, second = form(SUBJECT, *mixed(*plain(b"a"), *HTML)), form(SUBJECT, *mixed(*plain(b"b"), *HTML))
    assert pair_different_fields(first, second) == [
        (NumberedField("1", "text", b"a"), NumberedField("1", "text", b"b"))
    ]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_part_that_only_one_has_does_not_shift_the_others(at: int) -> None:
    parts = [plain(b"a"), plain(b"b")]
    more = [*parts[:at], plain(b"new"), *parts[at:]]
    first, second = (form(*mixed(*(field for part in each for field in part))) for each in (parts, more))
    part = str(at + 1)
    assert pair_different_fields(first, second) == [
        (None, NumberedField(part, "part", b"text/plain")),
        (None, NumberedField(part, "text", b"new")),
    ]


FIELDS = st.lists(
    st.builds(
        Field, st.sampled_from(["Subject", "part", "parts", "text", "end of parts"]), st.sampled_from([b"a/b", b"c"])
    ),
    max_size=30,
)


@given(FIELDS, FIELDS)
def test_what_differs_is_found_and_nothing_else(first: list[Field], second: list[Field]) -> None:
    pairs = pair_different_fields(form(*first), form(*second))
    assert bool(pairs) == (first != second)
    assert all(one is None or other is None or one[1:] != other[1:] for one, other in pairs)
    # What is only in one, and nothing else, explains how many there are.
    assert len(first) - sum(one is not None for one, _ in pairs) == len(second) - sum(
        other is not None for _, other in pairs
    )


def test_many_parts_take_little_time() -> None:
    first = form(*mixed(*(field for number in range(10_000) for field in plain(b"%d" % number))))
    second = form(*mixed(*(field for number in range(10_000) for field in plain(b"%d" % (number + number % 2)))))
    began = time.process_time()
    assert len(pair_different_fields(first, second)) == 5_000
    assert time.process_time() - began < 5
