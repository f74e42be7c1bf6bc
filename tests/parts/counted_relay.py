"""Clients of a relay whose messages are counted, and the check that the relay's own figures say the same."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from parts.client import RawClient, Sent, send, stuff
from parts.relay_process import Metrics
from parts.waiting import LONGEST, until_told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from parts.relay_process import RelayProcess

SENDER = b"contact@tube.example.test"
_CLASSES = {2: "2xx", 4: "4xx", 5: "5xx"}
_NUMBERS = itertools.count(1)


def people(count: int, first: int = 1) -> list[bytes]:
    """Give so many addresses that Postfix knows too."""
    return [b"user%d@example.test" % number for number in range(first, first + count)]


class Desk:
    """One relay, and all that was handed to it in one test. `mail` is a message that no other test sends."""

    def __init__(self, relay: RelayProcess, before: Metrics | None = None) -> None:
        self.relay = relay
        self.number = next(_NUMBERS)
        self.mail = b"Subject: New video %d\r\n\r\nLook at this.\r\n" % self.number
        self._before = before or Metrics("")
        self._clients: list[RawClient] = []
        self._recipients = 0
        self._dots = 0
        self._aborted = 0
        self._heard: Counter[str] = Counter()
        self._ended = False

    async def send(
        self, recipients: Sequence[bytes], content: bytes | None = None, *, sender: bytes = SENDER, **more: Any
    ) -> Sent:
        """Send a message on a connection of its own, and hear the reply."""
        content = self.mail if content is None else content
        sent = await send(self.relay.port, sender, recipients, content, **more)
        taken = [path for path, answer in zip(recipients, sent.rcpt, strict=False) if answer.code == 250]
        if taken:
            self._count(taken)
            if sent.final.code:
                self._heard[_CLASSES[sent.final.code // 100]] += 1
        return sent

    async def send_twins_again_and_again(self, recipients: Sequence[bytes]) -> None:
        """Send twins at once, and then both anew. Each is told yes."""
        for _ in range(2):
            twins = [self.send(recipients) for _ in range(2)]
            assert all(sent.ok for sent in await asyncio.gather(*twins))

    async def offer(self, recipients: Sequence[bytes]) -> RawClient:
        """Send a message with its final dot and leave its reply unread."""
        client = await self.begin(recipients)
        await self.finish(client, recipients)
        return client

    async def begin(self, recipients: Sequence[bytes]) -> RawClient:
        """Send a message up to the reply to DATA. Unless its dot follows, the relay counts it as aborted."""
        client = await self.call()
        assert [answer.code for answer in await client.begin(SENDER, *recipients)] == [250] * len(recipients)
        assert (await client.command(b"DATA")).code == 354
        self._aborted += 1
        return client

    async def finish(self, client: RawClient, recipients: Sequence[bytes]) -> None:
        """Send the content and the final dot of a message that was begun."""
        await client.send_raw(stuff(self.mail))
        self._aborted -= 1
        self._count(recipients)

    async def call(self) -> RawClient:
        """Open a connection that ends with the test at the latest."""
        self._clients.append(await RawClient.open(self.relay.port))
        return self._clients[-1]

    async def hang_up(self) -> None:
        """Close all connections that are still open."""
        for client in self._clients:
            await client.close()

    async def ended(self, *, seconds: float = LONGEST) -> int:
        """Wait for the relay's end, after which nothing can be asked any more, and give its exit status."""
        self._ended = True
        return await self.relay.wait(seconds=seconds)

    async def drained(self) -> None:
        """Wait for the end of a relay that was told to drain, and hold its log against our count."""
        assert await self.ended() == 0
        lines = [json.loads(line) for line in self.relay.stderr().splitlines()]
        reports = [line for line in lines if line["event"] == "message"]
        assert len(reports) == self._dots
        assert sum(sum(report["recipients"].values()) for report in reports) == self._recipients
        assert not [line for line in lines if "traceback" in line]

    async def balance(self) -> None:
        """Fail unless every recipient offered at a dot has one outcome, and every message one reply."""
        if self._ended:
            return
        metrics = await self._when_all_is_counted()
        messages = self._messages(metrics)
        assert messages.pop("aborted", 0) == self._aborted
        assert messages.total() == self._dots
        assert messages >= self._heard
        assert self._outcomes(metrics).total() == self._recipients
        assert metrics.value("smtp_dedup_claims") == 0
        assert metrics.value("smtp_dedup_faults_total") == 0

    async def outcomes(self) -> Counter[str]:
        """Give the recipients by outcome, once all that was offered is counted."""
        return self._outcomes(await self._when_all_is_counted())

    def _count(self, recipients: Sequence[bytes]) -> None:
        self._recipients += len({path.lower() for path in recipients})
        self._dots += 1

    def _messages(self, metrics: Metrics) -> Counter[str]:
        return Counter(metrics.messages()) - Counter(self._before.messages())

    def _outcomes(self, metrics: Metrics) -> Counter[str]:
        return Counter(metrics.outcomes()) - Counter(self._before.outcomes())

    async def _when_all_is_counted(self) -> Metrics:
        # Who has heard a reply finds it counted; of those that left nobody tells when.
        async def when_counted() -> Metrics | None:
            metrics = await self.relay.metrics()
            return metrics if self._messages(metrics).total() >= self._dots + self._aborted else None

        return await until_told(when_counted, "all messages counted")


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


@asynccontextmanager
async def balanced_desk(relay: RelayProcess) -> AsyncIterator[Desk]:
    """Open a desk at a relay that has served other tests; at the end its figures must add up."""
    desk = Desk(relay, await relay.metrics())
    try:
        yield desk
        await desk.balance()
    finally:
        await desk.hang_up()
