"""A relay whose mail is counted at the client, and the check that its metrics and its log give the same counts."""

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


def addresses(count: int, first: int = 1) -> list[bytes]:
    """Returns so many recipients, for which the tests' Postfix has mailboxes."""
    return [b"user%d@example.test" % number for number in range(first, first + count)]


class CountedRelay:
    """A relay process and the counts of what one test sent to it. `mail` is a message that no other test sends."""

    def __init__(self, process: RelayProcess, before: Metrics | None = None) -> None:
        self.process = process
        self.number = next(_NUMBERS)
        self.mail = b"Subject: New video %d\r\n\r\nLook at this.\r\n" % self.number
        self._before = before or Metrics("")
        self._clients: list[RawClient] = []
        self._recipients = 0
        self._dots = 0
        self._aborted = 0
        self._replies: Counter[str] = Counter()
        self._ended = False

    async def send(
        self, recipients: Sequence[bytes], content: bytes | None = None, *, sender: bytes = SENDER, **more: Any
    ) -> Sent:
        """Sends a message on a separate connection and reads the reply."""
        content = self.mail if content is None else content
        sent = await send(self.process.port, sender, recipients, content, **more)
        accepted = [path for path, answer in zip(recipients, sent.rcpt, strict=False) if answer.code == 250]
        if accepted:
            self._count(accepted)
            if sent.final.code:
                self._replies[_CLASSES[sent.final.code // 100]] += 1
        return sent

    async def send_twins_twice(self, recipients: Sequence[bytes]) -> None:
        """Sends twins at once, and both again. Fails unless each receives 250."""
        for _ in range(2):
            twins = [self.send(recipients) for _ in range(2)]
            assert all(sent.ok for sent in await asyncio.gather(*twins))

    async def send_unanswered(self, recipients: Sequence[bytes]) -> RawClient:
        """Sends a message with its final dot and leaves the reply unread."""
        client = await self.begin(recipients)
        await self.finish(client, recipients)
        return client

    async def begin(self, recipients: Sequence[bytes]) -> RawClient:
        """Sends a message up to the reply to DATA. Unless `finish` follows, the relay counts it as aborted."""
        client = await self.connect()
        assert [answer.code for answer in await client.begin(SENDER, *recipients)] == [250] * len(recipients)
        assert (await client.command(b"DATA")).code == 354
        self._aborted += 1
        return client

    async def finish(self, client: RawClient, recipients: Sequence[bytes]) -> None:
        """Sends the content and the final dot of a message that `begin` has begun."""
        await client.send_raw(stuff(self.mail))
        self._aborted -= 1
        self._count(recipients)

    async def connect(self) -> RawClient:
        """Opens a connection, which the end of the test closes."""
        self._clients.append(await RawClient.open(self.process.port))
        return self._clients[-1]

    async def close_clients(self) -> None:
        """Closes all connections that are still open."""
        for client in self._clients:
            await client.close()

    async def wait_ended(self, *, seconds: float = LONGEST) -> int:
        """Waits for the end of the process, which ends the counting too. Returns the exit status."""
        self._ended = True
        return await self.process.wait(seconds=seconds)

    async def wait_drained(self) -> None:
        """Waits for the end of a relay that drains, and compares its log with our counts."""
        assert await self.wait_ended() == 0
        lines = [json.loads(line) for line in self.process.stderr().splitlines()]
        reports = [line for line in lines if line["event"] == "message"]
        assert len(reports) == self._dots
        assert sum(sum(report["recipients"].values()) for report in reports) == self._recipients
        assert not [line for line in lines if "traceback" in line]

    async def check_counts(self) -> None:
        """Fails unless every recipient of a message with a dot has one outcome, and every message one reply."""
        if self._ended:
            return
        metrics = await self._when_all_is_counted()
        messages = self._messages(metrics)
        assert messages.pop("aborted", 0) == self._aborted
        assert messages.total() == self._dots
        assert messages >= self._replies
        assert self._outcomes(metrics).total() == self._recipients
        assert metrics.value("smtp_dedup_claims") == 0
        assert metrics.value("smtp_dedup_faults_total") == 0

    async def outcomes(self) -> Counter[str]:
        """Returns the recipients by outcome, once the relay has counted all messages."""
        return self._outcomes(await self._when_all_is_counted())

    def _count(self, recipients: Sequence[bytes]) -> None:
        self._recipients += len({path.lower() for path in recipients})
        self._dots += 1

    def _messages(self, metrics: Metrics) -> Counter[str]:
        return Counter(metrics.messages()) - Counter(self._before.messages())

    def _outcomes(self, metrics: Metrics) -> Counter[str]:
        return Counter(metrics.outcomes()) - Counter(self._before.outcomes())

    async def _when_all_is_counted(self) -> Metrics:
        # The relay counts a message before its reply. Where the client left, only the metrics show when it ended.
        async def when_counted() -> Metrics | None:
            metrics = await self.process.metrics()
            return metrics if self._messages(metrics).total() >= self._dots + self._aborted else None

        return await until_told(when_counted, "all messages counted")


class StartCounted(Protocol):
    """Starts a relay with the arguments of `RelayProcess` and counts what the test sends to it."""

    async def __call__(self, *flags: str, upstream: str, **more: Any) -> CountedRelay: ...


@asynccontextmanager
async def counted_relays(start_relay: Any) -> AsyncIterator[StartCounted]:
    """Provides a starter of relays. The counts of those that still run are checked at the end of the test."""
    relays: list[CountedRelay] = []

    async def start_counted(*flags: str, upstream: str, **more: Any) -> CountedRelay:
        relays.append(CountedRelay(await start_relay(*flags, upstream=upstream, **more)))
        return relays[-1]

    try:
        yield start_counted
        for relay in relays:
            await relay.check_counts()
    finally:
        for relay in relays:
            await relay.close_clients()


@asynccontextmanager
async def counted_relay(process: RelayProcess) -> AsyncIterator[CountedRelay]:
    """Provides a relay that has served other tests. Its counts since now are checked at the end of the test."""
    relay = CountedRelay(process, await process.metrics())
    try:
        yield relay
        await relay.check_counts()
    finally:
        await relay.close_clients()
