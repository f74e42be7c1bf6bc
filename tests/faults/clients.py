"""Clients that send messages, record every reply, and retry as a patient sender does."""

from __future__ import annotations

import asyncio
import base64
import enum
import itertools
import ssl
import time
from collections import Counter
from typing import TYPE_CHECKING

from parts.client import GONE, Answer, RawClient, stuff
from parts.ports import HOST

from faults.history import Attempt, History
from faults.tls import Security

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from faults.tls import RelayTls

LEAVES_AFTER = 0.3
"""Seconds between the dot and the reset of `Manner.LEAVE_AFTER_DOT`."""
_PIECE = 1 << 16
"""Bytes of content that a client sends at a time."""
LONGEST_REPLY = 120.0
"""Seconds for which a client waits for a reply."""


class Manner(enum.Enum):
    """The behaviour of a client."""

    PLAIN = enum.auto()
    PIPELINED = enum.auto()
    HALF_CLOSE = enum.auto()
    """Sends FIN after its dot and continues to read."""
    RESET_AFTER_DOT = enum.auto()
    LEAVE_AFTER_DOT = enum.auto()
    """Resets the connection when the kernel has had time to deliver the content and the dot."""
    LEAVE_BEFORE_DOT = enum.auto()
    TRICKLE = enum.auto()
    """Sends the end of its content and the dot at one octet a second."""


class Refused(Exception):  # noqa: N818 - a reply that ends an attempt
    def __init__(self, answer: Answer) -> None:
        self.answer = answer


class Clients:
    """All clients of a run. `ports` are the ports of the relays."""

    def __init__(self, history: History, ports: Sequence[int], chance: random.Random, patience: float) -> None:
        self.heard: Counter[str] = Counter()
        self.slowest = 0.0
        """Seconds from the connection to the last reply, of attempts with a reply."""
        self.padding: Callable[[int], bytes] = _padding
        self.pause = 0.05
        self.addresses: Sequence[str] = (HOST,)
        """The addresses from which clients connect."""
        self.dsn = False
        """Whether half of the attempts have DSN parameters (RFC 3461)."""
        self.logins: Sequence[tuple[bytes, bytes]] = ()
        """Names and passwords; each attempt logs in with one of them if there are any."""
        self.tls: RelayTls | None = None
        """If it is set, attempts are made without TLS, with STARTTLS and with implicit TLS."""
        self._history = history
        self._ports = ports
        self._chance = chance
        self._patience = patience
        self._numbers = itertools.count(1)

    async def insist(self, message: int, recipients: Sequence[str], relay: int, manner: Manner = Manner.PLAIN) -> None:
        """Sends a message until every recipient is accepted or permanently refused."""
        pending = list(recipients)
        deadline = time.monotonic() + self._patience
        pause = self.pause
        while pending:
            attempt = await self.attempt(message, pending, relay, manner)
            manner = Manner.PLAIN if manner is not Manner.PIPELINED else manner
            if attempt.sent and attempt.code // 100 == 5:
                return
            if attempt.promised:
                pending = [to for to in pending if to not in attempt.recipients]
            if time.monotonic() > deadline:
                self._history.given_up.append(f"{attempt.id} for {pending}, at last {attempt.code} {attempt.text}")
                return
            if pending:
                await asyncio.sleep(pause * self._chance.uniform(0.5, 1.5))
                pause = min(2 * pause, 1.0)

    async def attempt(
        self,
        message: int,
        recipients: Sequence[str],
        relay: int,
        manner: Manner = Manner.PLAIN,
        *,
        extra: bytes = b"",
        opened: RawClient | None = None,
    ) -> Attempt:
        """Sends a message once, with `extra` header fields first, on a new connection or on one that was greeted."""
        attempt = Attempt(f"m{message}.{next(self._numbers)}", message, relay, time.monotonic())
        self._history.attempts[attempt.id] = attempt
        try:
            answer = await self._speak(attempt, recipients, manner, extra, opened)
        except Refused as refused:
            answer = refused.answer
        except ssl.SSLError:
            answer = Answer(0, (b"handshake failed",))
        except ConnectionError:
            answer = Answer(0, (b"no connection",))
        except TimeoutError:
            # A relay must reply long before this. The report lists it among the replies.
            answer = Answer(0, (b"no reply in time",))
        attempt.code, attempt.text = answer.code, answer.text.decode("latin-1")
        attempt.ended = time.monotonic()
        self._note(attempt)
        return attempt

    def content(self, attempt: Attempt) -> bytes:
        """Returns the content, which is equal for all attempts at a message except for the Message-ID."""
        head = b"Message-ID: <%b@client.example.test>\r\nFrom: contact@tube.example.test\r\n" % attempt.id.encode()
        return b"%bSubject: New video %d\r\n\r\n%b" % (head, attempt.message, self.padding(attempt.message))

    async def _speak(
        self, attempt: Attempt, recipients: Sequence[str], manner: Manner, extra: bytes, opened: RawClient | None
    ) -> Answer:
        security = self._chance.choice(list(Security)) if self.tls else Security.NONE
        async with opened or await self.connect(attempt.relay, security) as client:
            if not opened:
                await self.greet(client, security)
            if self.logins:
                _want(await self.log_in(client, self._chance.choice(self.logins)), 235)
            # The reverse-path shows the receiver which relay the client used.
            sender = b"relay%d@client.example.test" % attempt.relay
            dsn = self.dsn and self._chance.random() < 0.5
            mail = b" RET=HDRS ENVID=%b" % attempt.id.encode() if dsn else b""
            lines = [b"EHLO client.example.test", b"MAIL FROM:<%b>%b" % (sender, mail)]
            lines += [
                b"RCPT TO:<%b>%b" % (to, b" NOTIFY=FAILURE,DELAY ORCPT=rfc822;" + to if dsn else b"")
                for to in map(str.encode, recipients)
            ]
            lines.append(b"DATA")
            if manner is Manner.PIPELINED:
                await client.send_raw(b"\r\n".join(lines) + b"\r\n")
                answers = [await client.read_reply(seconds=LONGEST_REPLY) for _ in lines]
            else:
                answers = []
                for line in lines:
                    answers.append(await client.command(line, seconds=LONGEST_REPLY))
                    if answers[-1] is GONE or (line.startswith(b"MAIL") and answers[-1].code != 250):
                        raise Refused(answers[-1])
            attempt.recipients = tuple(to for to, a in zip(recipients, answers[2:], strict=False) if a.code == 250)
            refusals = [answer for answer in answers[2:-1] if answer.code != 250]
            if answers[-1].code != 354:
                raise Refused(refusals[0] if refusals else answers[-1])
            return await self._finish(client, attempt, manner, stuff(extra + self.content(attempt)))

    async def connect(self, relay: int, security: Security) -> RawClient:
        """Connects to a relay, with TLS if that is implicit. The greeting is not read."""
        address = self._chance.choice(self.addresses)
        if security is Security.IMPLICIT and self.tls:
            return await connect(self.tls.ports[relay], address, self.tls.trust)
        return await connect(self._ports[relay], address)

    async def greet(self, client: RawClient, security: Security) -> None:
        """Reads the greeting, and begins TLS if that is by STARTTLS."""
        _want(await client.read_reply(seconds=LONGEST_REPLY), 220)
        if security is Security.STARTTLS and self.tls:
            await client.command(b"EHLO client.example.test", seconds=LONGEST_REPLY)
            _want(await client.start_tls(self.tls.trust), 220)

    async def log_in(self, client: RawClient, login: tuple[bytes, bytes]) -> Answer:
        """Logs in with a name and a password. Returns the reply to AUTH."""
        await client.command(b"EHLO client.example.test", seconds=LONGEST_REPLY)
        initial = base64.b64encode(b"\0%b\0%b" % login)
        return await client.command(b"AUTH PLAIN " + initial, seconds=LONGEST_REPLY)

    async def _finish(self, client: RawClient, attempt: Attempt, manner: Manner, wire: bytes) -> Answer:
        if manner is Manner.LEAVE_BEFORE_DOT:
            await client.send_raw(wire[:-3])
            return GONE
        attempt.dot_at = time.monotonic()
        if manner is Manner.TRICKLE:
            await client.send_raw(wire[:-5])
            for octet in wire[-5:]:
                await asyncio.sleep(1)
                await client.send_raw(bytes([octet]))
        else:
            for start in range(0, len(wire), _PIECE):
                await client.send_raw(wire[start : start + _PIECE])
        if manner is Manner.LEAVE_AFTER_DOT:
            await asyncio.sleep(LEAVES_AFTER)
        if manner in (Manner.RESET_AFTER_DOT, Manner.LEAVE_AFTER_DOT):
            await client.reset()
            return GONE
        if manner is Manner.HALF_CLOSE:
            await client.half_close()
        return await client.read_reply(seconds=LONGEST_REPLY)

    def _note(self, attempt: Attempt) -> None:
        if attempt.code:
            self.slowest = max(self.slowest, attempt.ended - attempt.begun)
        if not attempt.code:
            what = attempt.text
        elif ": duplicate, record " in attempt.text:
            what = f"{attempt.code} duplicate"
        else:
            word = attempt.text.partition(" ")[0]
            what = f"{attempt.code} {word}" if attempt.code != 250 and word[:1].isdigit() else f"{attempt.code}"
        self.heard[what] += 1


async def connect(port: int, address: str, tls: ssl.SSLContext | None = None) -> RawClient:
    """Connects from a loopback address, with TLS from the first byte if `tls` is given. The greeting is not read."""
    name = "localhost" if tls else None
    local = (address, 0)
    return RawClient(
        *await asyncio.open_connection(HOST, port, local_addr=local, limit=1 << 20, ssl=tls, server_hostname=name)
    )


def _want(answer: Answer, code: int) -> None:
    if answer.code != code:
        raise Refused(answer)


def _padding(message: int) -> bytes:
    """Makes every fiftieth message so large that the relay analyses it in a thread."""
    return b"x" * 70 + b"\r\n" if message % 50 else (b"x" * 70 + b"\r\n") * 1000
