"""A relay with mail that goes on, for `relay demo --page`: repeats, twins, refusals, delays and broken clients."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import signal
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import aiosmtplib

from relay.admin.server import AdminServer
from relay.demo.messages import SITE, notification, recovery
from relay.demo.past import past_traces
from relay.demo.scenario import SUBSCRIBERS, CountingUpstream
from relay.service import Service
from relay.settings import Loaded, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiosmtpd.smtp import SMTP, Envelope, Session

FORMER = "former-member@example.org"
"""The upstream refuses this recipient."""
BUSY = "busy@example.net"
"""The upstream defers the first mail of two to this recipient."""
_TITLES = (
    "Sunrise over Lisbon",
    "Harbour at night",
    "A walk in the fog",
    "Storks",
    "The last tram",
    "Rain on the roof",
)
_LEAST_PAUSE, _LONGEST_PAUSE = 1.0, 8.0
"""Seconds between two things that happen."""


class LivingUpstream(CountingUpstream):
    """An upstream that refuses and defers some mails."""

    def __init__(self) -> None:
        super().__init__()
        self._busy = True

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, rcpt_options: list[str]
    ) -> str:
        """Refuses one recipient."""
        del server, session, rcpt_options
        if address == FORMER:
            return f"550 5.1.1 <{FORMER}>: Recipient address rejected: User unknown"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Defers every second mail to one recipient, and gives each other one a queue id."""
        if BUSY in envelope.rcpt_tos:
            self._busy = not self._busy
            if not self._busy:
                return "451 4.3.2 Try again in a minute"
        await super().handle_DATA(server, session, envelope)
        return f"250 2.0.0 Ok: queued as 4{secrets.token_hex(5).upper()}"


class LivingSite:
    """An application that sends mail. `port` is the relay's."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._random = random.Random()  # noqa: S311 - not a secret
        self._number = 0

    async def go_on(self, stop: asyncio.Event) -> None:
        """Does something, and pauses."""
        deeds = (self._upload, self._upload, self._recover, self._write_to_former, self._write_to_busy, self._break)
        await self._random.choice(deeds)()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._random.uniform(_LEAST_PAUSE, _LONGEST_PAUSE)):
                await stop.wait()

    async def _upload(self) -> None:
        """Two processes send the notice of a video at once, and sometimes a third sends it again later."""
        self._number += 1
        title = f"{self._random.choice(_TITLES)} {self._number}"
        recipients = self._random.sample(SUBSCRIBERS, self._random.randint(1, 6))
        copies = [notification(title, cache=self._cache(), now=datetime.now(UTC)) for _ in range(3)]
        await asyncio.gather(*(self._send(copy, recipients) for copy in copies[:2]))
        if self._random.random() < 1 / 2:
            await self._send(copies[2], recipients)

    def _cache(self) -> str:
        """Returns a cache value of a thumbnail, in the form of AVideo's."""
        return "".join(self._random.choices("0123456789", k=20))

    async def _recover(self) -> None:
        """A user asks for a new password: no two of these are repeats."""
        await self._send(recovery(secrets.token_hex(4), now=datetime.now(UTC)), ["bob@example.org"])

    async def _write_to_former(self) -> None:
        self._number += 1
        content = notification(f"Member news {self._number}", cache="1", now=datetime.now(UTC))
        await self._send(content, [FORMER, self._random.choice(SUBSCRIBERS)])

    async def _write_to_busy(self) -> None:
        self._number += 1
        content = notification(f"Comment {self._number}", cache="1", now=datetime.now(UTC))
        for _ in range(2):
            await self._send(content, [BUSY])

    async def _break(self) -> None:
        """The application disconnects while it sends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(f"HELO videos.example\r\nMAIL FROM:<{SITE}>\r\nRCPT TO:<{SUBSCRIBERS[0]}>\r\nDATA\r\n".encode())
        for _ in range(5):
            await reader.readline()
        writer.write(b"Subject: half a mail\r\n")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def _send(self, content: bytes, recipients: Sequence[str]) -> None:
        with contextlib.suppress(aiosmtplib.SMTPException):  # refused or deferred, as some are meant to be
            await aiosmtplib.send(
                content, sender=SITE, recipients=list(recipients), hostname="127.0.0.1", port=self._port
            )


async def run_living(ready: Callable[[str], None]) -> None:
    """Runs until SIGINT or SIGTERM. `ready` receives the address of the page."""
    # Cancelling would not do: Python 3.11's `wait_for`, in the mail client, can lose a cancellation.
    stop = asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    with tempfile.TemporaryDirectory(prefix="relay-demo-") as folder:
        upstream = LivingUpstream()
        port = await upstream.start()
        service = Service(Loaded(_settings(port, Path(folder))))
        AdminServer(service, lambda: service.loaded)  # for the buttons of the page; its own socket is not opened
        await service.start()
        try:
            if service.trace_store is not None:
                await service.trace_store.append(list(past_traces(datetime.now(UTC).timestamp())))
            ready(f"http://{service.http_address}/")
            site = LivingSite(int(service.address.rpartition(":")[2]))
            while not stop.is_set():
                await site.go_on(stop)
        finally:
            await service.drain()
            await service.close()
            upstream.close()


def _settings(upstream_port: int, folder: Path) -> Settings:
    return Settings.model_validate(
        {
            "listen": {"address": "127.0.0.1:0"},
            "upstream": {"url": f"smtp://127.0.0.1:{upstream_port}", "patience": 0},
            "store": {"url": f"sqlite:{folder / 'relay.db'}"},
            "http": {"address": "127.0.0.1:0"},
            "limits": {"drain": "2s"},  # Ctrl-C may cut a mail of the demo, which leaves its session open
            "record": {"addresses": True, "subjects": True, "keep": f"maildir:{folder / 'kept'}"},
        }
    )
