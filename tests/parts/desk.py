"""Clients of a relay whose messages are counted, and the check that the relay's own figures say the same."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from parts.client import RawClient, Sent, send, stuff
from parts.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from parts.relay_process import Metrics, RelayProcess

SENDER = b"contact@tube.example.test"
MAIL = b"Subject: New video\r\nMessage-ID: <one@tube.example.test>\r\n\r\nLook at this.\r\n"
_CLASSES = {2: "2xx", 4: "4xx", 5: "5xx"}


def people(count: int, first: int = 1) -> list[bytes]:
    """Give so many addresses that Postfix knows too."""
    return [b"user%d@example.test" % number for number in range(first, first + count)]


class Desk:
    """One relay, and all that was handed to it in this test."""

    def __init__(self, relay: RelayProcess) -> None:
        self.relay = relay
        self.faults = 0
        """How many faults of the relay itself the test has caused."""
        self._clients: list[RawClient] = []
        self.forget()

    def forget(self) -> None:
        """Begin to count anew, as the relay does when it starts again."""
        self._recipients = 0
        self._dots = 0
        self._aborted = 0
        self._heard: Counter[str] = Counter()
        self._dead = False

    async def send(
        self, recipients: Sequence[bytes], content: bytes = MAIL, *, sender: bytes = SENDER, **more: Any
    ) -> Sent:
        """Send a message on a connection of its own, and hear the reply."""
        sent = await send(self.relay.port, sender, recipients, content, **more)
        taken = {path.lower() for path, answer in zip(recipients, sent.rcpt, strict=False) if answer.code == 250}
        if taken:
            self._count(len(taken))
            if sent.final.code:
                self._heard[_CLASSES[sent.final.code // 100]] += 1
        return sent

    async def offer(self, recipients: Sequence[bytes], content: bytes = MAIL, *, sender: bytes = SENDER) -> RawClient:
        """Send a message with its final dot and leave its reply unread."""
        client = await self.begin(recipients, sender=sender)
        await self.finish(client, recipients, content)
        return client

    async def call(self) -> RawClient:
        """Open a connection that ends with the test at the latest."""
        self._clients.append(await RawClient.open(self.relay.port))
        return self._clients[-1]

    async def begin(self, recipients: Sequence[bytes], *, sender: bytes = SENDER) -> RawClient:
        """Send a message up to the reply to DATA. Unless its dot follows, the relay counts it as aborted."""
        client = await self.call()
        assert [answer.code for answer in await client.begin(sender, *recipients)] == [250] * len(recipients)
        assert (await client.command(b"DATA")).code == 354
        self._aborted += 1
        return client

    async def finish(self, client: RawClient, recipients: Sequence[bytes], content: bytes = MAIL) -> None:
        """Send the content and the final dot of a message that was begun."""
        await client.send_raw(stuff(content))
        self._aborted -= 1
        self._count(len({path.lower() for path in recipients}))

    async def hang_up(self) -> None:
        """Close all connections that are still open."""
        for client in self._clients:
            await client.close()

    async def kill(self) -> None:
        """End the relay as a crash would; nothing it counted is there any more."""
        self.gone()
        self.relay.kill()
        await self.relay.wait()

    def gone(self) -> None:
        """Note that the relay has ended otherwise than by a drain."""
        self._dead = True

    async def drained(self) -> int:
        """Wait for the end of a relay that was told to drain, hold its log against our count, give its exit status."""
        status = await self.relay.wait()
        self.gone()
        lines = [json.loads(line) for line in self.relay.stderr().splitlines()]
        reports = [line for line in lines if line["event"] == "message"]
        if status == 0:
            assert len(reports) == self._dots
            assert sum(sum(report["recipients"].values()) for report in reports) == self._recipients
        assert not [line for line in lines if "traceback" in line]
        return status

    async def balance(self) -> None:
        """Fail unless every recipient offered at a dot has one outcome, and every message one reply."""
        if self._dead:
            return
        metrics = await self._when_all_is_counted()
        messages = metrics.messages()
        assert messages.pop("aborted", 0) == self._aborted
        assert sum(messages.values()) == self._dots
        assert Counter(messages) >= self._heard
        assert sum(metrics.outcomes().values()) == self._recipients
        assert metrics.value("smtp_dedup_claims") == 0
        assert metrics.value("smtp_dedup_faults_total") == self.faults

    async def outcomes(self) -> dict[str, int]:
        """Give the recipients by outcome, once all that was offered is counted."""
        return (await self._when_all_is_counted()).outcomes()

    def _count(self, recipients: int) -> None:
        self._recipients += recipients
        self._dots += 1

    async def _when_all_is_counted(self) -> Metrics:
        # Who has heard a reply finds it counted; of those that left nobody tells when.
        async with asyncio.timeout(LONGEST):
            while True:
                metrics = await self.relay.metrics()
                if sum(metrics.messages().values()) >= self._dots + self._aborted:
                    return metrics
                await asyncio.sleep(0.02)


class OpenDesk(Protocol):
    """Starts a relay with the arguments of `RelayProcess`, and counts what is handed to it."""

    async def __call__(self, *flags: str, upstream: str, **more: Any) -> Desk: ...


@asynccontextmanager
async def balanced_desks(start_relay: Any) -> AsyncIterator[OpenDesk]:
    """Open desks; at the end of the test the figures of each relay that still lives must add up."""
    desks: list[Desk] = []

    async def open_desk(*flags: str, upstream: str, **more: Any) -> Desk:
        desks.append(Desk(await start_relay(*flags, upstream=upstream, **more)))
        return desks[-1]

    try:
        yield open_desk
        for desk in desks:
            await desk.balance()
    finally:
        for desk in desks:
            await desk.hang_up()
