"""Fuzzes a session in each state of the protocol: a whole relay, and an upstream that records what it receives.

After each input these must hold; `AssertionError` is raised where they do not:

- no exception reached the fault handler or the event loop;
- each command has exactly one reply, and nothing else has;
- each content with a positive reply arrived once, with the bytes that RFC 5321 gives it, behind one Received field;
- the upstream received no other command than those of the relay, and no address that is not in the input;
- no session, claim, upload or byte of the memory budget is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import selectors
import socket
import tempfile
import time
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from parts import dialog_servers as servers
from parts.certificates import Authority
from parts.peer import ScriptedPeer
from parts.waiting import until

from relay.smtp.proxy_header import NoProxyHeader, NothingSent, read_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_EHLO = b"EHLO client.example.test\r\n"
_MAIL = _EHLO + b"MAIL FROM:<a@example.test>\r\n"
_RCPT = _MAIL + b"RCPT TO:<b@example.test>\r\n"
STATES = {
    "greeting": b"",
    "helo": b"HELO client.example.test\r\n",
    "ehlo": _EHLO,
    "auth-plain": _EHLO + b"AUTH PLAIN\r\n",
    "auth-login": _EHLO + b"AUTH LOGIN\r\n",
    "auth-password": _EHLO + b"AUTH LOGIN Ym9i\r\n",
    "mail": _MAIL,
    "rcpt": _RCPT,
    "data": _RCPT + b"DATA\r\n",
    "after-data": _RCPT + b"DATA\r\n.\r\n",
    "bdat": _RCPT + b"BDAT 20\r\n",
    "xforward": _EHLO + b"XFORWARD NAME=x ADDR=192.0.2.1\r\n",
    "starttls": _EHLO + b"STARTTLS\r\n",
    "proxy": b"",
}
"""What the client has said before the fuzzed octets. "proxy" is the header that a balancer sends before all else."""
_LONGEST_LINE = 4096
_CHUNK = re.compile(rb"([0-9]{1,18})(?: +LAST)?", re.IGNORECASE)
_PATH = rb"<[^\x00-\x1f\x7f]*>(?: [!-~\x80-\xff]+)*"
_UPSTREAM_COMMAND = re.compile(rb"EHLO [!-~]+|MAIL FROM:" + _PATH + rb"|RCPT TO:" + _PATH + rb"|DATA|\.|RSET|NOOP|QUIT")
_RECEIVED = re.compile(rb"Received: [ -~]+\r\n\t[ -~]+\r\n\t[ -~]+\r\n")
_PATIENCE = 0.1
"""Seconds without input after which the next timer fires at once."""


class _Selector(selectors.DefaultSelector):
    """Skips the delays with which the relay slows clients. Threads of the relay have `_PATIENCE` to end their work."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(_PATIENCE if timeout is None else min(timeout, _PATIENCE))
        if not ready and timeout:
            self.skipped += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = _Selector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return time.monotonic() + self._skipping.skipped


class Fuzzed:
    """A relay for one state. Call it with each input; close it at the end."""

    def __init__(self, state: str) -> None:
        self._before = STATES[state]
        self._examine = self._read_proxy_header if state == "proxy" else self._play
        self._stack = contextlib.ExitStack()
        self._runner = self._stack.enter_context(asyncio.Runner(loop_factory=_Loop))
        self._runner.get_loop().set_exception_handler(self._note)
        self._unhandled: list[dict[str, Any]] = []
        if state == "proxy":
            return
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-fuzz-")))
        self._path = folder / "smtp.sock"
        self._peer = self._enter(ScriptedPeer())
        keys = {
            "listen.address": f"unix:{self._path}",
            "tls.certificate": str(Authority(folder).issue()),
            "auth.mode": "any",
            "dedup.mode": "observe",
            "record.addresses": True,
            "upstream.received_field": True,
            "limits.message_size": "20KiB",
        }
        self._relay = self._enter(servers.relay(self._peer.url, keys))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __call__(self, octets: bytes) -> None:
        """Plays one input."""
        self._runner.run(self._examine(octets))
        assert not self._unhandled, self._unhandled

    def close(self) -> None:
        """Ends the relay and the upstream."""
        self._stack.close()

    def _enter(self, manager: contextlib.AbstractAsyncContextManager[Any]) -> Any:
        entered = self._runner.run(manager.__aenter__())
        self._stack.push(lambda *error: self._leave(manager, *error))
        return entered

    def _leave(
        self,
        manager: contextlib.AbstractAsyncContextManager[Any],
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.run(manager.__aexit__(kind, error, trace))

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._unhandled.append(context)

    async def _play(self, octets: bytes) -> None:
        peer, service = self._peer, self._relay.service
        for session in peer.sessions:
            session.commands.clear()
        peer.accepted.clear()
        peer.received.clear()
        before = self._before if self._before.endswith(b"STARTTLS\r\n") else b""
        octets = octets if before else self._before + octets
        output = await _talk(self._path, before, octets)
        await until(lambda: not self._relay.busy, "the end of the session")
        assert service.metrics.faults._value.get() == 0, "an exception reached the fault handler"
        assert service.claims.held == 0
        assert service._memory.used == 0
        expected = list(_accepted(before + octets, output))
        assert [message.content for message in peer.accepted] == [
            _received(message.content) + (b"\r\n" if content[:1] in {b" ", b"\t"} else b"") + content
            for message, content in zip(peer.accepted, expected, strict=True)
        ]
        commands = peer.commands()
        for command in commands:
            assert _UPSTREAM_COMMAND.fullmatch(command), command
            path = command.partition(b"<")[2].rpartition(b">")[0]
            assert path in before + octets, command
        assert commands.count(b".") == len(expected)

    async def _read_proxy_header(self, octets: bytes) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            octets = octets[:65536]
            theirs.send(octets)
            theirs.shutdown(socket.SHUT_WR)
            try:
                client = await read_client(ours, 30.0)
            except NothingSent:
                assert not octets
                return
            except NoProxyHeader:
                return
            rest = ours.recv(1 << 20)
            header = octets[: len(octets) - len(rest)]
            assert octets.endswith(rest)
            assert len(header) <= _LONGEST_LINE
            if header.startswith(b"PROXY"):
                assert header.index(b"\n") == len(header) - 1, "read beyond the header"
            else:
                assert len(header) == 16 + int.from_bytes(header[14:16], "big"), "read beyond the header"
            assert client is None or str(ip_address(client)) == client


async def _talk(path: Path, before: bytes, octets: bytes) -> bytes:
    """Sends octets, those in `before` first and alone, then half-closes. Returns all that the relay says."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        await loop.sock_connect(client, str(path))
        received = bytearray()
        if before:
            await loop.sock_sendall(client, before)
            while not received.endswith(b"220 2.0.0 Ready to start TLS\r\n"):
                received += await loop.sock_recv(client, 65536)
        reading = asyncio.ensure_future(_read(client, received))
        with contextlib.suppress(OSError):
            await loop.sock_sendall(client, octets)
            client.shutdown(socket.SHUT_WR)
        await reading
        return bytes(received)


async def _read(client: socket.socket, received: bytearray) -> None:
    with contextlib.suppress(ConnectionError):
        while more := await asyncio.get_running_loop().sock_recv(client, 65536):
            received += more


def _codes(output: bytes) -> Iterator[int]:
    """Yields the code of each reply."""
    while output:
        line, end, output = output.partition(b"\r\n")
        assert end, "half a reply"
        assert re.fullmatch(rb"[2-5][0-9]{2}[ -][^\x00-\x1f\x7f]*", line), line
        if line[3:4] == b" ":
            yield int(line[:3])


def _accepted(octets: bytes, output: bytes) -> Iterator[bytes]:
    """Follows the client's octets by the replies. Yields each content that was accepted, as a recipient must see it."""
    tls = output.find(b"220 2.0.0 Ready to start TLS\r\n")
    codes = _codes(output[: tls + 30] if tls >= 0 else output)
    if octets.startswith(b"\x16"):
        assert set(codes) <= {220, 421}, "plain text for a client that begins with TLS"
        return
    assert next(codes) == 220
    asked = False
    while octets:
        line, end, rest = octets.partition(b"\n")
        if not end:
            break
        octets = rest
        verb, _, argument = line.removesuffix(b"\r").partition(b" ")
        chunk = _CHUNK.fullmatch(argument.strip())
        if verb.upper() == b"BDAT" and not asked and chunk and len(line) <= _LONGEST_LINE:
            if len(octets) < int(chunk[1]):
                break
            octets = octets[int(chunk[1]) :]
        code = next(codes)
        asked = code == 334
        if code == 354:
            found = re.search(rb"\A\.\r\n|\r\n\.\r\n", octets)
            if not found:
                break
            wire = octets[: found.end() - 3]
            octets = octets[found.end() :]
            code = next(codes)
            if code == 250:
                safe = re.sub(rb"\.(?=[\r\n\0])(?<![^\r\n\0]\.)", b"..", wire)
                yield re.sub(rb"(\A|\r\n)\.", rb"\1", safe)
        if code in {221, 421} or (code == 220 and tls >= 0):
            break
    assert list(codes) == [], "a reply without a command"


def _received(content: bytes) -> bytes:
    """Returns the Received field, which is one field of three lines."""
    found = _RECEIVED.match(content)
    assert found, content[:500]
    return found[0]
