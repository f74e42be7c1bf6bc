"""Addresses are removed from foreign text in linear time, and before the text is cut."""

from __future__ import annotations

import time

import pytest

from relay.core.redact import LONGEST, without_addresses

BOUND = 0.1
"""Seconds for the longest text. The slowest one below takes some 0.02 s."""


@pytest.mark.parametrize(
    "unit",
    ["a", "@", "a@", "@[", "a@[x:", '"', '"a', '"@', 'a"@', "<", "<a", "a,", "@,", "a ", '"a" ', '"a"@b,', "a@b,c"],
)
@pytest.mark.parametrize(("start", "end"), [("", ""), ("@", ""), ("", "@"), ('"', ""), ('"a"@b,', "")])
def test_no_text_takes_quadratic_time(unit: str, start: str, end: str) -> None:
    text = start + (unit * LONGEST)[: LONGEST - len(start) - len(end)] + end
    begun = time.process_time()
    without_addresses(text)
    assert time.process_time() - begun < 3 * BOUND


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("ask a@b,c@d; or e@f", "ask <address>; or <address>"),
        ('"odd, name"@a,x@b: gone', "<address>: gone"),
        ('"odd name"@a: no <x@b>', "<address>: no <address>"),
        ("a@[b<c@d> e@f", "<address><address> <address>"),
        ("@ @a a@ a@,b@", "@ @a a@ a@,b@"),
    ],
)
def test_no_address_is_left_in_a_word_that_has_several(text: str, left: str) -> None:
    assert without_addresses(text) == left


@pytest.mark.parametrize("most", range(5, 40))
def test_a_text_is_cut_after_its_addresses_are_removed(most: int) -> None:
    text = "no such user: <somebody@example.test>, sorry"
    assert without_addresses(text, most) == "no such user: <address>, sorry"[:most]


@pytest.mark.parametrize("address", ["<somebody@example.test>", '"some body"@example.test'])
@pytest.mark.parametrize("beyond", range(1, 20))
def test_an_address_that_reaches_beyond_the_longest_text_leaves_nothing(address: str, beyond: int) -> None:
    text = ("x " * LONGEST)[: LONGEST - beyond - beyond % 2] + address
    assert "some" not in without_addresses(text)


def test_of_one_endless_word_nothing_is_left() -> None:
    assert without_addresses("a" * LONGEST + "@example.test") == ""
