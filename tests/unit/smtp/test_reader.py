"""Lines and content do not depend on how the network cuts them."""

from __future__ import annotations

import asyncio
import itertools
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.smtp.reader import ClientGone, ContentTooLarge, LineTooLong, Reader, TimedOut

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LONGEST = 12
"""Bytes of a line and of content in these tests."""
# Few different octets, so that ends of lines and of content are frequent.
_OCTETS = st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.\r\n", b"x", b"\0"]), max_size=40).map(b"".join)


def reader(idle: float = 60.0) -> Reader:
    return Reader(lambda: None, lambda: None, idle)


def cut(octets: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(octets) + 1) for place in places), len(octets)]
    return [octets[a:b] for a, b in itertools.pairwise(edges)]


def run(pieces: Sequence[bytes], read: Callable[[Reader], object]) -> list[object]:
    """Feeds pieces, lets the reader run after each, and returns what it read until the client is gone."""

    async def collect() -> list[object]:
        source = reader()
        found: list[object] = []

        async def consume() -> None:
            while True:
                try:
                    found.append(await read(source))  # type: ignore[misc]
                except LineTooLong:
                    found.append("line too long")
                except ContentTooLarge as error:
                    found.append(("too large", error.size))
                except ClientGone:
                    return

        task = asyncio.create_task(consume())
        for piece in pieces:
            source.feed(piece)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        source.end()
        async with asyncio.timeout(5):
            await task
        return found

    with asyncio.Runner() as runner:
        return runner.run(collect())


def lines_of(octets: bytes) -> list[object]:
    """Returns the expected lines, by a simpler method."""
    whole = octets.split(b"\n")[:-1]
    return ["line too long" if len(line) > LONGEST else line.removesuffix(b"\r") for line in whole]


def contents_of(octets: bytes) -> list[object]:
    found: list[object] = []
    while end := re.search(rb"(?:\A|\r\n)\.\r\n", octets):
        content, octets = octets[: end.start()], octets[end.end() :]
        content += b"\r\n" if end[0] != b".\r\n" else b""
        found.append(("too large", len(content)) if len(content) > LONGEST else content)
    return found


@settings(max_examples=200, deadline=None)
@given(octets=_OCTETS, places=st.lists(st.integers(0, 200), max_size=12))
def test_lines_do_not_depend_on_how_they_are_cut(octets: bytes, places: list[int]) -> None:
    assert run(cut(octets, places), lambda source: source.line(LONGEST)) == lines_of(octets)


@settings(max_examples=300, deadline=None)
@given(octets=_OCTETS, places=st.lists(st.integers(0, 200), max_size=12))
def test_content_does_not_depend_on_how_it_is_cut(octets: bytes, places: list[int]) -> None:
    assert run(cut(octets, places), lambda source: source.content(LONGEST)) == contents_of(octets)


@pytest.mark.parametrize(
    "octets", [b"line\r\n" * 3 + b"x" * 30 + b"\r\nline\n", b"..a\r\n.\r\n.\r\n" + b"x" * 40 + b"\r\n.\r\n"]
)
def test_lines_and_content_in_single_octets(octets: bytes) -> None:
    single = [bytes([octet]) for octet in octets]
    assert run(single, lambda source: source.line(LONGEST)) == lines_of(octets)
    assert run(single, lambda source: source.content(LONGEST)) == contents_of(octets)


async def test_a_line_may_be_as_long_as_its_limit() -> None:
    source = reader()
    source.feed(b"x" * LONGEST + b"\n" + b"x" * (LONGEST - 1) + b"\r\n" + b"x" * LONGEST + b"\r\nnext\r\n")
    assert await source.line(LONGEST) == b"x" * LONGEST
    assert await source.line(LONGEST) == b"x" * (LONGEST - 1)
    with pytest.raises(LineTooLong):
        await source.line(LONGEST)
    assert await source.line(LONGEST) == b"next"


@pytest.mark.parametrize("size", [LONGEST - 1, LONGEST])
def test_the_final_dot_does_not_count_towards_the_size(size: int) -> None:
    octets = b"x" * (size - 2) + b"\r\n.\r\n"
    for place in range(len(octets)):
        assert run(cut(octets, [place]), lambda source: source.content(LONGEST)) == [octets[:-3]]


async def test_skipped_input_is_not_buffered() -> None:
    source = reader()
    task = asyncio.create_task(source.line(LONGEST))
    for _ in range(50):
        await asyncio.sleep(0)
        source.feed(b"x" * 10_000)
        await asyncio.sleep(0)
        assert len(source._buffer) <= 20_000
    source.feed(b"\n")
    with pytest.raises(LineTooLong):
        await task
    task2 = asyncio.create_task(source.content(LONGEST))
    for _ in range(50):
        await asyncio.sleep(0)
        source.feed(b"x" * 10_000)
        await asyncio.sleep(0)
        assert len(source._buffer) <= 20_000
    source.feed(b"\r\n.\r\n")
    with pytest.raises(ContentTooLarge) as error:
        await task2
    assert error.value.size == 500_002


async def test_reading_pauses_while_a_client_sends_ahead() -> None:
    calls: list[str] = []
    source = Reader(lambda: calls.append("pause"), lambda: calls.append("resume"), 60)
    source.feed(b"one\r\n" + b"x" * 100_000)
    source.feed(b"y")
    assert calls == ["pause"]
    assert await source.line(LONGEST) == b"one"
    assert calls == ["pause"]
    task = asyncio.create_task(source.content(1_000_000))
    await asyncio.sleep(0)
    assert calls == ["pause", "resume"]
    source.feed(b"\r\n.\r\n")
    assert len(await task) == 100_003


async def test_the_idle_limit_restarts_with_each_octet_and_applies_only_while_reading() -> None:
    source = reader(idle=0.05)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    task = asyncio.create_task(source.line(LONGEST))
    loop.call_at(begun + 0.04, source.feed, b"x")
    with pytest.raises(TimedOut):
        await task
    assert loop.time() - begun >= 0.085
    source.feed(b"\n")
    assert await source.line(LONGEST) == b"x"


async def test_the_end_follows_what_was_sent_before_it() -> None:
    source = reader()
    source.feed(b"one\r\ntwo")
    source.end()
    assert source._ended
    assert await source.line(LONGEST) == b"one"
    with pytest.raises(ClientGone):
        await source.line(LONGEST)
    with pytest.raises(ClientGone):
        await source.content(LONGEST)
