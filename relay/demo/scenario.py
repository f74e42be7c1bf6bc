"""The scenario of the demo: what is sent, and what must come of it."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from aiosmtpd.smtp import SMTP

from relay.core.envelope import fold
from relay.core.ruling import Action
from relay.demo.messages import SITE, notification, recovery
from relay.service import Service
from relay.settings import Settings
from relay.settings.rules import build_judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiosmtpd.smtp import Envelope, Session

SUBSCRIBERS = tuple(f"subscriber{number}@example.org" for number in range(1, 51))


@dataclass(frozen=True)
class Step:
    """Something AVideo does: the same recipients get each of these contents, all at once."""

    what: str
    contents: Sequence[bytes]
    recipients: Sequence[str]
    forwarded: int
    """Copies that must reach the upstream."""


@dataclass(frozen=True)
class Row:
    """What came of a step. All counts are mails to one recipient."""

    what: str
    came_in: int
    forwarded: int
    suppressed: int
    expected: int
    why: str

    @property
    def right(self) -> bool:
        """Whether exactly the expected copies were forwarded, and every other one suppressed."""
        return self.forwarded == self.expected and self.suppressed == self.came_in - self.expected


class Catcher:
    """An upstream that takes everything and counts it."""

    def __init__(self) -> None:
        self.caught: Counter[str] = Counter()
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen on a free port, and give it."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: SMTP(self, hostname="catcher", loop=loop), "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Count a copy for each recipient."""
        del server, session
        self.caught.update(envelope.rcpt_tos)
        return "250 2.0.0 Ok: caught"

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()


def steps() -> list[Step]:
    """Give what is sent, in order."""
    now = datetime.now(UTC)
    later = now + timedelta(minutes=1)
    first = notification("Sunrise over Lisbon", cache="16244653051624465305", now=now)
    twin = notification("Sunrise over Lisbon", cache="16244653051624465305", now=now)
    again = notification("Sunrise over Lisbon", cache="16244653651624465365", now=later)
    other = notification("Sunset over Lisbon", cache="16244653051624465305", now=later)
    tokens = [recovery(token, now=now) for token in ("61f0a9c4", "8be2d713")]
    return [
        Step("new video, by two processes at once", [first, twin], SUBSCRIBERS, 50),
        Step("the same a minute later", [again], SUBSCRIBERS, 0),
        Step("another video", [other], SUBSCRIBERS, 50),
        Step("password recovery, asked for twice", tokens, ["bob@example.org"], 2),
    ]


async def play() -> list[Row]:
    """Run all steps through a relay of our own, with the embedded store, and give what came of each."""
    with tempfile.TemporaryDirectory(prefix="relay-demo-") as folder:
        catcher = Catcher()
        port = await catcher.start()
        service = Service(_settings(port, Path(folder)))
        await service.start()
        try:
            return [await _play(step, service, catcher) for step in steps()]
        finally:
            await service.drain()
            await service.close()
            catcher.close()


def _settings(upstream_port: int, folder: Path) -> Settings:
    return Settings.model_validate(
        {
            "listen": {"address": "127.0.0.1:0"},
            "upstream": {"url": f"smtp://127.0.0.1:{upstream_port}"},
            "store": {"url": f"sqlite:{folder / 'relay.db'}"},
            "http": {"address": ""},
        }
    )


async def _play(step: Step, service: Service, catcher: Catcher) -> Row:
    caught, suppressed = catcher.caught.total(), _suppressed(service)
    await _send_at_once(step, service.address)
    return Row(
        what=step.what,
        came_in=len(step.contents) * len(step.recipients),
        forwarded=catcher.caught.total() - caught,
        suppressed=int(_suppressed(service) - suppressed),
        expected=step.forwarded,
        why=_why(step),
    )


async def _send_at_once(step: Step, address: str) -> None:
    host, _, port = address.rpartition(":")
    senders: list[asyncio.subprocess.Process] = []
    try:
        for content in step.contents:
            sender = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "relay.demo.sender"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            senders.append(sender)
            job = {"host": host, "port": int(port), "sender": SITE, "recipients": list(step.recipients)}
            _channel(sender.stdin).write(json.dumps(job | {"content": content.decode()}).encode() + b"\n")
        for sender in senders:
            await _reader(sender.stdout).readline()
        for sender in senders:
            _channel(sender.stdin).write(b"go\n")
        for sender in senders:
            await sender.communicate()
    finally:
        # Whatever ends the demo early: no process stays behind.
        for sender in senders:
            if sender.returncode is None:
                sender.kill()
                await sender.wait()


def _suppressed(service: Service) -> float:
    return service.metrics.registry.get_sample_value("smtp_dedup_recipients_total", {"outcome": "suppressed"}) or 0.0


def _why(step: Step) -> str:
    ruling = build_judge(Settings())(step.contents[0], SITE.encode()).ruling(fold(step.recipients[0].encode()))
    if ruling.action is Action.EXEMPT:
        return f"exempt ({ruling.rule})"
    if step.forwarded == 0:
        return "equal but for the thumbnail's cache value"
    if len(step.contents) > 1:
        return "twins: the second waited for the first"
    return "another text: no repeat"


def _channel(stream: asyncio.StreamWriter | None) -> asyncio.StreamWriter:
    if stream is None:
        raise RuntimeError("the sender has no stdin")
    return stream


def _reader(stream: asyncio.StreamReader | None) -> asyncio.StreamReader:
    if stream is None:
        raise RuntimeError("the sender has no stdout")
    return stream
