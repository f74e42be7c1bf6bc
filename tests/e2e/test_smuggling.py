"""SMTP smuggling: one mail in is one mail out, whatever stands between line ends, for strict and for lenient servers.

Every combination of CR, LF, NUL and dot of up to five octets is followed by what would be a second message if the
combination were the end of the data (RFC 5321 section 4.1.1.4).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from typing import TYPE_CHECKING

import pytest
from parts import dialog_servers as servers
from parts.client import RawClient
from parts.peer import ScriptedPeer
from parts.ports import HOST
from parts.postfix import Postfix

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

VARIANTS = [
    bytes(octets)
    for length in range(1, 6)
    for octets in itertools.product(b"\r\n\0.", repeat=length)
    if bytes(octets) != b"\r\n.\r\n"
]
"""1,363; only the real end of data is missing."""
STOLEN = b"MAIL FROM:<evil@example.test>\r\nRCPT TO:<user9@example.test>\r\nDATA\r\nevil\r\n"
_WITHIN = 120.0
"""Seconds for a reply of a busy machine."""


def in_the_middle(number: int, variants: Sequence[bytes]) -> bytes:
    return b"Subject: %d\r\n\r\n" % number + b"".join(b"text" + variant + STOLEN for variant in variants)


def at_the_start(number: int, variants: Sequence[bytes]) -> bytes:
    return b"".join(variant + STOLEN for variant in variants) + b"%d\r\n" % number


MIDDLE = [in_the_middle(number, [variant]) for number, variant in enumerate(VARIANTS)]
START = [at_the_start(number, [variant]) for number, variant in enumerate(VARIANTS) if not variant.startswith(b".\r\n")]
POSITIONS = {"in the middle": MIDDLE, "at the start": START}


async def send_all(port: int, wires: Sequence[bytes]) -> list[int]:
    """Sends each content as it is, pipelined in one session, and returns the codes of all replies after EHLO."""
    async with await RawClient.open(port) as client:
        await client.command(b"EHLO client.example.test")
        envelope = b"MAIL FROM:<a@example.test>\r\nRCPT TO:<user1@example.test>\r\nDATA\r\n"
        writing = asyncio.ensure_future(
            client.send_raw(b"".join(envelope + wire + b".\r\n" for wire in wires) + b"QUIT\r\n")
        )
        codes = []
        while (answer := await client.read_reply(seconds=_WITHIN)).code:
            codes.append(answer.code)
        await writing
        return codes


class Lenient(asyncio.Protocol):
    """A server that takes more for the end of the data than RFC 5321 allows."""

    def __init__(self, arrived: list[bytes], lines: re.Pattern[bytes], change: Callable[[bytes], bytes]) -> None:
        self.arrived = arrived
        self._lines = lines
        self._change = change
        self._buffer = b""
        self._content: list[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._reply(b"220 lenient.example.test")

    def _reply(self, text: bytes) -> None:
        self._transport.write(text + b"\r\n")  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while end := self._lines.search(self._buffer):
            line, self._buffer = self._change(self._buffer[: end.start()]), self._buffer[end.end() :]
            if self._content is None:
                self._command(line)
            elif line == b".":
                self.arrived.append(b"\n".join(self._content))
                self._content = None
                self._reply(b"250 2.0.0 Ok")
            else:
                self._content.append(line.removeprefix(b"."))

    def _command(self, line: bytes) -> None:
        if line.upper().startswith(b"DATA"):
            self._content = []
            self._reply(b"354 Go on")
        elif line.upper().startswith(b"QUIT"):
            self._reply(b"221 2.0.0 Bye")
            self._transport.close()
        elif line:
            self._reply(b"250 2.0.0 Ok")


def drop_nuls(line: bytes) -> bytes:
    return line.replace(b"\0", b"")


def end_at_nul(line: bytes) -> bytes:
    return line.partition(b"\0")[0]


LENIENT: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "LF": (rb"\r?\n", bytes),
    "CR, LF or both": (rb"\r\n|\n|\r(?=[^\n])", bytes),
    "CR or LF": (rb"[\r\n]", bytes),
    "any CRs and an LF": (rb"\r*\n", bytes),
    "LF, without NULs": (rb"\r?\n", drop_nuls),
    "CR or LF, without NULs": (rb"[\r\n]", drop_nuls),
    "LF, lines are C strings": (rb"\r?\n", end_at_nul),
    "CR or LF, lines are C strings": (rb"[\r\n]", end_at_nul),
}


@contextlib.asynccontextmanager
async def lenient(kind: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    lines, change = LENIENT[kind]
    arrived: list[bytes] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Lenient(arrived, re.compile(lines), change), HOST, 0)
    try:
        yield f"smtp://{HOST}:{server.sockets[0].getsockname()[1]}", arrived
    finally:
        server.close()


@pytest.mark.parametrize("position", POSITIONS)
async def test_a_strict_upstream_receives_each_mail_once(position: str) -> None:
    wires = POSITIONS[position]
    async with ScriptedPeer() as peer, servers.relay(peer.url, {"limits.commands": 0}) as relay:
        assert await send_all(relay.port, wires) == [250, 250, 354, 250] * len(wires) + [221]
        safe = [re.sub(rb"\.(?=[\r\n\0])(?<![^\r\n\0]\.)", b"..", wire) for wire in wires]
        expected = [re.sub(rb"(\A|\r\n)\.", rb"\1", wire) for wire in safe]
        assert [message.content for message in peer.accepted] == expected
        assert {message.reverse_path for message in peer.accepted} == {b"a@example.test"}
        assert not [command for command in peer.commands() if b"evil" in command or b"user9" in command]


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("kind", LENIENT)
async def test_a_lenient_upstream_receives_each_mail_once(kind: str, position: str) -> None:
    """All of them in sixteen mails: the upstream counts one more for each end of data that it finds."""
    build = {"in the middle": in_the_middle, "at the start": at_the_start}[position]
    variants = VARIANTS if build is in_the_middle else [v for v in VARIANTS if not v.startswith(b".\r\n")]
    wires = [build(number, variants[number::16]) for number in range(16)]
    async with lenient(kind) as (url, arrived), servers.relay(url) as relay:
        assert await send_all(relay.port, wires) == [250, 250, 354, 250] * len(wires) + [221]
        assert len(arrived) == len(wires)


@pytest.mark.parametrize("newlines", ["no", "normalize"])
async def test_postfix_delivers_each_mail_once(newlines: str) -> None:
    wires = [in_the_middle(number, VARIANTS[number::16]) for number in range(16)]
    settings = [f"smtpd_forbid_bare_newline = {newlines}", "smtpd_forbid_bare_newline_exclusions ="]
    with Postfix(settings=settings) as postfix:
        async with servers.relay(postfix.url) as relay:
            assert await send_all(relay.port, wires) == [250, 250, 354, 250] * len(wires) + [221]
            await postfix.wait_delivered(len(wires))
        assert dict(postfix.deliveries()) == {"user1@example.test": len(wires)}
        assert "evil" not in postfix.log()


async def test_without_doubled_dots_a_lenient_upstream_would_find_more(peer: ScriptedPeer) -> None:
    """The test itself: what passes through unchanged is smuggled."""
    del peer
    async with lenient("CR or LF") as (url, arrived):
        await send_all(int(url.rpartition(":")[2]), [in_the_middle(0, [b"\n.\n"]), in_the_middle(1, [b"\r.\r"])])
        assert len(arrived) == 4
