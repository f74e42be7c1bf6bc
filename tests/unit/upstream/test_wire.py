"""How replies of an upstream are parsed, however they are cut and however invalid they are."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.core.reply import Reply
from relay.upstream.wire import LONGEST_REPLY, ConnectionEnded, NoReply, Wire

if TYPE_CHECKING:
    from collections.abc import Iterable


class Transport(asyncio.Transport):
    """Keeps a list of the writes."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.ended = ""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def abort(self) -> None:
        self.ended = self.ended or "abort"

    def close(self) -> None:
        self.ended = self.ended or "close"


async def start(wire: Wire, *commands: bytes, limit: float = 20.0) -> asyncio.Task[list[Reply]]:
    """Starts a task that executes commands, and lets it write them."""
    task = asyncio.create_task(wire.execute(commands, limit))
    await asyncio.sleep(0)
    return task


async def test_commands_are_one_write_and_replies_follow_their_order() -> None:
    wire = Wire(transport := Transport())
    task = await start(wire, b"A\r\n", b"B\r\n", b"C\r\n")
    assert transport.written == [b"A\r\nB\r\nC\r\n"]
    wire.data_received(b"250-one\r\n250-\r\n250 more\r\n550 \xff\xfe\r\n354\r\n")
    assert await task == [Reply(250, (b"one", b"", b"more")), Reply(550, (b"\xff\xfe",)), Reply(354, (b"",))]


@settings(max_examples=60, deadline=None)
@given(places=st.lists(st.integers(0, 60), max_size=60))
def test_replies_do_not_depend_on_how_they_are_cut(places: list[int]) -> None:
    octets = b"250-one\r\n250-two\r\n250 \xff three\r\n451 4.3.0 later\n250\r\n"
    edges = [0, *sorted(place % len(octets) for place in places), len(octets)]

    async def execute() -> list[Reply]:
        wire = Wire(Transport())
        task = await start(wire, b"A\r\n", b"B\r\n", b"C\r\n")
        for begin, end in itertools.pairwise(edges):
            wire.data_received(octets[begin:end])
        return await task

    with asyncio.Runner() as runner:
        assert [reply.encode() for reply in runner.run(execute())] == [
            b"250-one\r\n250-two\r\n250 \xff three\r\n",
            b"451 4.3.0 later\r\n",
            b"250 \r\n",
        ]


@pytest.mark.parametrize(
    "line",
    [b"hello", b"", b"99 x", b"150 x", b"600 x", b"2500 x", b"250x", b"250-a\r\n251 b", b"\xff\x00", b"250-a\r\nb"],
)
async def test_an_invalid_reply_ends_the_connection(line: bytes) -> None:
    wire = Wire(transport := Transport())
    task = await start(wire, b"A\r\n", b"B\r\n")
    wire.data_received(line + b"\r\n250 ok\r\n")
    with pytest.raises(ConnectionEnded, match="not an SMTP reply"):
        await task
    assert transport.ended == "abort"
    with pytest.raises(ConnectionEnded):
        await wire.execute([b"C\r\n"], 1)


@pytest.mark.parametrize("step", [1, 1000, 10**6])
@pytest.mark.parametrize(
    ("octets", "ends"),
    [
        (b"250 " + b"x" * (LONGEST_REPLY - 4) + b"\r\n", False),
        (b"250 " + b"x" * LONGEST_REPLY + b"\r\n", True),
        (b"250-" + b"x" * (LONGEST_REPLY // 2) + b"\r\n250 " + b"x" * (LONGEST_REPLY // 2) + b"\r\n", True),
        (b"250-\r\n" * 70_000, True),
    ],
    ids=["longest allowed", "a line", "two lines", "many lines"],
)
async def test_the_length_of_a_reply_is_bounded(octets: bytes, ends: bool, step: int) -> None:
    wire = Wire(Transport())
    task = await start(wire, b"A\r\n")
    for begin in range(0, len(octets), step):
        wire.data_received(octets[begin : begin + step])
    assert bool(wire.ended) == ends
    if ends:
        with pytest.raises(ConnectionEnded, match="endless"):
            await task
    else:
        assert (await task)[0].code == 250


async def test_control_characters_in_a_reply_are_replaced() -> None:
    wire = Wire(Transport())
    task = await start(wire, b"A\r\n")
    wire.data_received(b"250-ok\r250 forged\r\n250 \x00a\x1b[31m\tb\x7f \xc3\xa4 \xff\r\r\n")
    assert await task == [Reply(250, (b"ok?250 forged", b"?a?[31m\tb? \xc3\xa4 \xff?"))]


async def test_after_421_pending_commands_end_with_its_text() -> None:
    wire = Wire(Transport())
    task = await start(wire, b"A\r\n", b"B\r\n", b"C\r\n")
    wire.data_received(b"250 ok\r\n421 4.3.2 going down\r\n")
    wire.connection_lost(None)
    with pytest.raises(ConnectionEnded, match=r"answered 421 4\.3\.2 going down"):
        await task


@pytest.mark.parametrize("unsolicited", [b"421 4.4.2 idle\r\n", b"250 ok\r\n"])
async def test_an_unsolicited_reply_ends_the_connection(unsolicited: bytes) -> None:
    wire = Wire(Transport())
    task = await start(wire, b"A\r\n")
    wire.data_received(b"250 ok\r\n" + unsolicited)
    assert [reply.code for reply in await task] == [250]
    assert "without being asked" in wire.ended


async def test_the_reply_to_rset_is_not_the_reply_to_the_next_command() -> None:
    wire = Wire(transport := Transport())
    wire.reset()
    task = await start(wire, b"A\r\n")
    assert transport.written == [b"RSET\r\n", b"A\r\n"]
    wire.data_received(b"250 reset\r\n251 mine\r\n")
    assert [reply.code for reply in await task] == [251]
    wire.reset()
    wire.data_received(b"451 no\r\n")
    assert "refused RSET" in wire.ended


async def test_a_cancelled_command_ends_the_connection_even_if_its_reply_has_just_arrived() -> None:
    wire = Wire(transport := Transport())
    task = await start(wire, b"A\r\n", b"B\r\n")
    task.cancel()
    wire.data_received(b"250 a\r\n250 b\r\n")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert wire.ended
    assert transport.ended == "abort"


async def test_the_limit_applies_to_each_reply() -> None:
    """A thousand pipelined recipients have a thousand replies."""
    wire = Wire(Transport())
    task = await start(wire, b"A\r\n", b"B\r\n", b"C\r\n", limit=0.2)
    loop = asyncio.get_running_loop()
    for number in (1, 2, 3):
        loop.call_later(number * 0.12, wire.data_received, b"250 ok\r\n")
    assert [reply.code for reply in await task] == [250, 250, 250]


async def test_a_missing_reply_ends_the_connection() -> None:
    wire = Wire(Transport())
    with pytest.raises(NoReply, match=r"no reply within 0\.02 s"):
        await wire.execute([b"A\r\n"], 0.02)


@pytest.mark.parametrize("how", ["eof", "lost"])
async def test_pending_commands_end_with_the_connection(how: str) -> None:
    wire = Wire(Transport())
    pending = await start(wire, b"A\r\n")
    if how == "eof":
        assert not wire.eof_received()
    wire.connection_lost(None if how == "eof" else ConnectionResetError("reset"))
    with pytest.raises(ConnectionEnded, match="closed by the upstream" if how == "eof" else "lost: reset"):
        await pending


async def test_an_upload_waits_until_the_block_is_sent_or_refused() -> None:
    wire = Wire(Transport())
    assert await wire.upload(b"fast", 20) is None
    wire.pause_writing()
    slow = asyncio.create_task(wire.upload(b"slow", 20))
    await asyncio.sleep(0)
    wire.resume_writing()
    assert await slow is None
    wire.pause_writing()
    refused = asyncio.create_task(wire.upload(b"too much", 20))
    await asyncio.sleep(0)
    wire.data_received(b"552 5.3.4 too much\r\n")
    assert (await refused or Reply.of(250, "")).code == 552
    wire.pause_writing()
    with pytest.raises(NoReply, match="took no content"):
        await wire.upload(b"stuck", 0.02)


async def test_quit_is_sent_once() -> None:
    wire = Wire(transport := Transport())
    wire.quit()
    wire.quit()
    wire.data_received(b"221 bye\r\n")
    assert transport.written == [b"QUIT\r\n"]
    assert transport.ended == "close"
