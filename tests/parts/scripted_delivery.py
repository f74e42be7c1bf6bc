"""An upstream without a network. It does what the test says, and records the calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.core.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from relay.core.content import Content
    from relay.core.delivery import NotSent, Unclear
    from relay.core.envelope import Envelope

ACCEPTED = Reply(250, (b"2.1.5 Ok",))
QUEUED = Reply(250, (b"2.0.0 Ok: queued as 1X1",))


@dataclass
class ScriptedUpstream:
    """Its deliveries share one script."""

    recipients: dict[bytes, list[Reply]] = field(default_factory=dict)
    """The replies to a recipient, one for each RCPT. Afterwards, and for other recipients, the reply is `ACCEPTED`."""
    dots: list[Reply | Unclear | NotSent | Exception] = field(default_factory=list)
    """The outcomes of the final dots, one for each. Afterwards the outcome is `QUEUED`."""
    before_dot: Callable[[], Awaitable[None]] | None = None
    """Runs once, during `prepare`."""
    during_upload: Callable[[], Awaitable[None]] | None = None
    """Runs when the content is sent, before its final dot, once."""
    after_dot: Callable[[], Awaitable[None]] | None = None
    """Runs once, between the final dot and its reply."""
    prepared: list[tuple[bytes, ...]] = field(default_factory=list)
    sent: list[tuple[bytes, ...]] = field(default_factory=list)
    """The recipients of each accepted message."""
    finished: int = 0
    finish_fault: Exception | None = None
    """What `finish` raises."""

    def begin(self, envelope: Envelope, client: str = "", identity: object = None) -> ScriptedDelivery:
        del envelope, client
        return ScriptedDelivery(self)

    def offer(self, path: bytes) -> Reply:
        replies = self.recipients.get(path, [])
        return replies.pop(0) if replies else ACCEPTED

    def size_limit(self) -> int | None:
        return None

    def offers(self, keyword: str) -> bool:
        return bool(keyword)

    async def probe(self) -> None:
        """Does nothing: the upstream is always reachable."""

    async def close(self) -> None:
        """Does nothing: no connection is open."""


class ScriptedDelivery:
    """One transaction. It checks that content is sent only after a positive `prepare`, and only once."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self._upstream = upstream
        self._accepted: dict[bytes, Reply] = {}
        self._ready: tuple[bytes, ...] = ()
        self.dot_sent = False
        self.upstream = ""

    async def rcpt(self, path: bytes) -> Reply:
        reply = self._upstream.offer(path)
        if reply.positive:
            self._accepted[path] = reply
        return reply

    async def prepare(self, paths: Sequence[bytes]) -> Mapping[bytes, Reply]:
        assert paths, "a transaction without recipients"
        self._upstream.prepared.append(tuple(paths))
        if set(paths) != set(self._accepted):
            self._accepted = {path: self._upstream.offer(path) for path in paths}
        replies = dict(self._accepted)
        self._ready = tuple(path for path, reply in replies.items() if reply.positive)
        if self._upstream.before_dot:
            run, self._upstream.before_dot = self._upstream.before_dot, None
            await run()
        return replies

    async def send(self, received: bytes, content: Content) -> Reply | Unclear | NotSent:
        assert self._ready, "content without a positive prepare"
        ready, self._ready, self._accepted = self._ready, (), {}
        if self._upstream.during_upload:
            run, self._upstream.during_upload = self._upstream.during_upload, None
            await run()
        self.dot_sent = True
        self.upstream = "mta.example.test:25"
        if self._upstream.after_dot:
            run, self._upstream.after_dot = self._upstream.after_dot, None
            await run()
        outcome = self._upstream.dots.pop(0) if self._upstream.dots else QUEUED
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, Reply) and outcome.positive:
            self._upstream.sent.append(ready)
        return outcome

    async def finish(self) -> None:
        self._upstream.finished += 1
        self._ready, self._accepted = (), {}
        if self._upstream.finish_fault:
            raise self._upstream.finish_fault
