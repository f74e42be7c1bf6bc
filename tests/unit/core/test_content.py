"""The transparent form of content, and dots that must not end it."""

from __future__ import annotations

import random
import re
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.content import Content

_OCTETS = st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"x", b"\0", b"\xff"]), max_size=30).map(b"".join)


def with_end(plain: bytes) -> bytes:
    return plain if not plain or plain.endswith(b"\r\n") else plain + b"\r\n"


@given(_OCTETS)
def test_the_transparent_form_can_be_reversed(plain: bytes) -> None:
    content = Content.from_plain(plain)
    if content.safe_wire == content.wire:
        assert content.plain == with_end(plain)
    assert len(content) == len(content.wire)
    assert not re.search(rb"(?:\A|\r\n)\.\r\n", content.wire)


@given(_OCTETS)
def test_no_receiver_finds_an_end_of_data_in_the_safe_form(plain: bytes) -> None:
    wire = Content.from_plain(plain).safe_wire
    assert not re.search(rb"(?:\A|[\r\n\0])\.[\r\n\0]", wire)
    assert not re.search(rb"(?:\A|[\r\n])\.[\r\n]", wire.replace(b"\0", b"")), "for a receiver that drops NULs"


@given(_OCTETS)
def test_the_judged_content_is_the_forwarded_content(plain: bytes) -> None:
    content = Content.from_plain(plain)
    assert content.plain == re.sub(rb"(\A|\r\n)\.", rb"\1", content.safe_wire)
    unstuffed = Content(b"win\r\n.\nlose\r\n")
    assert unstuffed.plain == b"win\r\n.\nlose\r\n"


@given(_OCTETS)
def test_lone_dots_are_doubled(wire: bytes) -> None:
    assert Content(wire).safe_wire == re.sub(rb"\.(?=[\r\n\0])(?<![^\r\n\0]\.)", b"..", wire)


@pytest.mark.parametrize("unit", [b"\n.", b"\r.", b"\r\n.", b".", b"\n.\r.", b"Lorem ipsum.\r\n"])
def test_doubling_takes_linear_time(unit: bytes) -> None:
    content = Content(unit * (48_000_000 // len(unit)))
    start = time.process_time()
    assert content.safe_wire
    assert time.process_time() - start < 5


@pytest.mark.parametrize("seed", range(3))
def test_large_content_is_changed_where_small_content_is(seed: int) -> None:
    units = [b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"x", b"\0"]
    wire = b"".join(random.Random(seed).choices(units, k=600_000))
    safe = re.sub(rb"\.(?=[\r\n\0])(?<![^\r\n\0]\.)", b"..", wire)
    content = Content(wire)
    assert content.safe_wire == safe
    assert content.plain == re.sub(rb"(\A|\r\n)\.", rb"\1", safe)


def test_large_content_in_a_thread_does_not_hold_up_small_content() -> None:
    begun, longest = threading.Event(), 0.0
    large = Content(b"\n." * 20_000_000)

    def double() -> None:
        begun.set()
        assert large.plain

    thread = threading.Thread(target=double)
    thread.start()
    begun.wait()
    while thread.is_alive():
        start = time.perf_counter()
        assert Content(b".\n.\r\n").plain
        longest = max(longest, time.perf_counter() - start)
    assert longest < 3 * 0.25, "users are promised 0.25 s"


def test_content_without_lone_dots_is_not_copied() -> None:
    wire = b"a.\r\n..b\r\n"
    assert Content(wire).safe_wire is wire


@given(_OCTETS)
def test_only_lone_dots_beside_bare_line_ends_are_doubled(plain: bytes) -> None:
    content = Content.from_plain(plain)
    undone = re.sub(rb"(?:\A|(?<=[\r\n\0]))\.\.(?=[\r\n\0])", b".", content.safe_wire)
    assert undone == re.sub(rb"(?:\A|(?<=[\r\n\0]))\.\.(?=[\r\n\0])", b".", content.wire)
    if not re.search(rb"\0|\r(?!\n)|(?<!\r)\n", plain):
        assert content.safe_wire == content.wire


@pytest.mark.parametrize(
    ("wire", "safe"),
    [
        (b"a\n.\nb\r\n", b"a\n..\nb\r\n"),
        (b"a\r.\rb\r\n", b"a\r..\rb\r\n"),
        (b"a\r\n.\nb\r\n", b"a\r\n..\nb\r\n"),
        (b"a\n.\r\nb\r\n", b"a\n..\r\nb\r\n"),
        (b"a\r\n.\rb\r\n", b"a\r\n..\rb\r\n"),
        (b".\nb\r\n", b"..\nb\r\n"),
        (b"\n.\n.\n.\r.\r\n", b"\n..\n..\n..\r..\r\n"),
        (b"a.\r\nb\n.c\n..\n\r\n", b"a.\r\nb\n.c\n..\n\r\n"),
        (b"..\r\n...\r\n", b"..\r\n...\r\n"),
        (b"a\r\n\0.\0\r\n.\0b\r\n", b"a\r\n\0..\0\r\n..\0b\r\n"),
        (b".\0\r\n\0.b\r\n", b"..\0\r\n\0.b\r\n"),
    ],
)
def test_the_dot_of_a_smuggled_end_of_data_is_doubled(wire: bytes, safe: bytes) -> None:
    assert Content(wire).safe_wire == safe


def test_added_dots_are_removed_at_line_starts_only() -> None:
    assert Content(b"..\r\n...a\r\n.b\r\n\r\n..\r\na.\n..c\r\n").plain == b".\r\n..a\r\nb\r\n\r\n.\r\na.\n..c\r\n"
