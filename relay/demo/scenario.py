"""The scenario of the demo: what is sent, and the expected result of each step."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from aiosmtpd.smtp import SMTP

from relay.core.envelope import fold
from relay.core.ruling import Action
from relay.demo.messages import SITE, notification, recovery
from relay.service import Service
from relay.settings import Loaded, Settings
from relay.settings.rules import build_judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiosmtpd.smtp import Envelope, Session

_T = TypeVar("_T")
SUBSCRIBERS = tuple(f"subscriber{number}@example.org" for number in range(1, 51))


@dataclass(frozen=True)
class Step:
    """Something that AVideo does: it sends each of these contents to the same recipients, all at once."""

    what: str
    contents: Sequence[bytes]
    recipients: Sequence[str]
    forwarded: int
    """Copies that must reach the upstream."""


@dataclass(frozen=True)
class StepResult:
    """The result of a step. All counts are mails to one recipient."""

    what: str
    received: int
    forwarded: int
    suppressed: int
    expected: int
    why: str

    @property
    def is_expected(self) -> bool:
        """Whether exactly the expected copies were forwarded, and all others suppressed."""
        return self.forwarded == self.expected and self.suppressed == self.received - self.expected


class CountingUpstream:
    """An upstream that accepts every mail and counts it."""

    def __init__(self) -> None:
        self.accepted: Counter[str] = Counter()
        """Mails by recipient."""
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listens on a free port and returns the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: SMTP(self, hostname="upstream", loop=loop), "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Counts a mail for each recipient."""
        del server, session
        self.accepted.update(envelope.rcpt_tos)
        return "250 2.0.0 Ok: counted"

    def close(self) -> None:
        """Stops listening."""
        if self._server is not None:
            self._server.close()


def steps() -> list[Step]:
    """Returns the steps of the scenario, in order."""
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


async def run_scenario() -> list[StepResult]:
    """Runs all steps through a separate relay with the embedded store, and returns the result of each."""
    with tempfile.TemporaryDirectory(prefix="relay-demo-") as folder:
        upstream = CountingUpstream()
        port = await upstream.start()
        service = Service(Loaded(_settings(port, Path(folder))))
        await service.start()
        try:
            return [await _run_step(step, service, upstream) for step in steps()]
        finally:
            await service.drain()
            await service.close()
            upstream.close()


def _settings(upstream_port: int, folder: Path) -> Settings:
    return Settings.model_validate(
        {
            "listen": {"address": "127.0.0.1:0"},
            "upstream": {"url": f"smtp://127.0.0.1:{upstream_port}"},
            "store": {"url": f"sqlite:{folder / 'relay.db'}"},
            "http": {"address": ""},
        }
    )


async def _run_step(step: Step, service: Service, upstream: CountingUpstream) -> StepResult:
    accepted, suppressed = upstream.accepted.total(), _suppressed(service)
    await _send_at_once(step, service.address)
    return StepResult(
        what=step.what,
        received=len(step.contents) * len(step.recipients),
        forwarded=upstream.accepted.total() - accepted,
        suppressed=int(_suppressed(service) - suppressed),
        expected=step.forwarded,
        why=_reason(step),
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
            _pipe(sender.stdin).write(json.dumps(job | {"content": content.decode()}).encode() + b"\n")
        for sender in senders:
            await _pipe(sender.stdout).readline()
        for sender in senders:
            _pipe(sender.stdin).write(b"go\n")
        for sender in senders:
            await sender.communicate()
    finally:
        # No process stays behind, also if the demo ends early.
        for sender in senders:
            if sender.returncode is None:
                sender.kill()
                await sender.wait()


def _suppressed(service: Service) -> float:
    return service.metrics.registry.get_sample_value("smtp_dedup_recipients_total", {"outcome": "suppressed"}) or 0.0


def _reason(step: Step) -> str:
    ruling = build_judge(Settings())(step.contents[0], SITE.encode()).ruling(fold(step.recipients[0].encode()))
    if ruling.action is Action.EXEMPT:
        return f"exempt ({ruling.rule})"
    if step.forwarded == 0:
        return "equal but for the thumbnail's cache value"
    if len(step.contents) > 1:
        return "twins: the second waited for the first"
    return "another text: no repeat"


def _pipe(stream: _T | None) -> _T:
    if stream is None:
        raise RuntimeError("the sender has no pipe")
    return stream
