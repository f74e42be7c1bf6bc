"""One transaction with an SMTP upstream: recipients live, repaired before the dot, never sent twice after it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

from relay.core.delivery import NotSent, Unclear
from relay.core.reply import UNREACHABLE, UPSTREAM_BUSY, Reply
from relay.errors import UpstreamBusy, UpstreamDown, UpstreamRefused
from relay.upstream.connect import connect
from relay.upstream.patience import Patience
from relay.upstream.pool import Pool
from relay.upstream.wire import ConnectionEnded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from relay.core.content import Content
    from relay.core.envelope import Envelope
    from relay.upstream.connect import Connection, Target
    from relay.upstream.wire import Wire

T = TypeVar("T")
log = logging.getLogger("relay.upstream")

_START_INPUT = 354
_PIECE = 1024 * 1024
"""Bytes, each with its own limit: a slow upload is not a hanging one."""
_ONE_PIECE = 64 * 1024
"""Bytes. Larger content is followed by its dot only when it has left us, so that a loss before the dot is known."""


class SmtpUpstream:
    """An MTA that is spoken to in SMTP. `report` hears whether it could be reached, whenever that is tried."""

    def __init__(
        self,
        target: Target,
        *,
        connections: int,
        reply_timeout: float,
        dot_timeout: float,
        patience: float,
        report: Callable[[bool], None] = lambda up: None,  # noqa: ARG005 - nobody listens
    ) -> None:
        self.target = target
        self.reply_timeout = reply_timeout
        self.dot_timeout = dot_timeout
        self.patience = patience
        self.pool = Pool(self._connect, connections)
        self._report = report

    def begin(self, envelope: Envelope) -> SmtpDelivery:
        """Make a transaction. Nothing is sent before its first recipient."""
        return SmtpDelivery(self, envelope)

    def size_limit(self) -> int | None:
        """Give the upstream's SIZE in bytes; 0 stands for no limit (RFC 1870 section 4)."""
        size = self.pool.extensions.get("size", "")
        return int(size) or None if size.isdecimal() else None

    def offers(self, keyword: str) -> bool:
        """Say whether the last connection was offered an extension."""
        return keyword.lower() in self.pool.extensions

    async def probe(self) -> None:
        """Reach the upstream once. Raises `UpstreamError`."""
        self.pool.give_back(await self.pool.acquire(fresh=True))

    async def close(self) -> None:
        """Retire all connections."""
        self.pool.close()

    async def _connect(self) -> Connection:
        try:
            connection = await connect(self.target)
        except (UpstreamDown, UpstreamRefused) as error:
            self._report(False)
            log.debug("no connection to %s: %s", self.target, error)
            raise
        self._report(True)
        return connection


class SmtpDelivery:
    """The upstream's side of one message.

    `_open` says that MAIL was accepted on `_connection` for exactly the recipients in `_accepted`; `_started`, that the
    upstream waits for content.
    """

    def __init__(self, upstream: SmtpUpstream, envelope: Envelope) -> None:
        self._upstream = upstream
        self._envelope = envelope
        self._patience = Patience(upstream.patience, asyncio.get_running_loop().time)
        self._connection: Connection | None = None
        self._open = False
        self._started = False
        self._fresh = False
        self._accepted: dict[bytes, Reply] = {}
        self._failure: Reply | None = None

    async def rcpt(self, path: bytes) -> Reply:
        """Pass a recipient on and give the upstream's own reply."""

        async def offer(connection: Connection) -> Reply:
            if self._open:
                [reply] = await self._run(connection, [_rcpt(path)])
            else:
                replies, _ = await self._issue(connection, [*self._accepted, path])
                reply = replies[path]
            return reply

        reply = await self._persist(offer)
        if reply.positive:
            self._accepted[path] = reply
        elif not self._accepted and not self._open:
            # The sender was refused, or nobody is there: true for every further recipient too.
            self._failure = reply
        return reply

    async def prepare(self, paths: Sequence[bytes]) -> Mapping[bytes, Reply]:
        """Make these the recipients and ask to send. Where a reply is positive, content is awaited."""

        async def ask(connection: Connection) -> Mapping[bytes, Reply]:
            if self._open and set(paths) == set(self._accepted):
                replies: Mapping[bytes, Reply] = dict(self._accepted)
                [start] = await self._run(connection, [b"DATA\r\n"])
            else:
                replies, start = await self._issue(connection, paths, b"DATA\r\n")
            return await self._answer_start(connection, replies, start)

        answer = await self._persist(ask)
        if isinstance(answer, Reply):
            return dict.fromkeys(paths, answer)
        self._accepted = {path: reply for path, reply in answer.items() if reply.positive}
        return answer

    async def send(self, received: bytes, content: Content) -> Reply | Unclear | NotSent:
        """Send content and the final dot, once."""
        connection = self._connection
        if connection is None or not self._started:
            raise RuntimeError("send before a positive prepare")
        wire = connection.wire
        last_piece = received + content.safe_wire
        try:
            if len(last_piece) > _ONE_PIECE:
                early = await self._send_ahead(wire, last_piece)
                if early is not None:
                    return early
                last_piece = b""
        except ConnectionEnded as end:
            self._let_go()
            return NotSent(str(end))
        if wire.ended:
            self._let_go()
            return NotSent(wire.ended)
        try:
            [reply] = await wire.ask([last_piece + b".\r\n"], self._upstream.dot_timeout)
        except ConnectionEnded as end:
            self._let_go()
            return Unclear(str(end))
        return self._note(connection, reply)

    async def _send_ahead(self, wire: Wire, block: bytes) -> Reply | None:
        """Send all but the dot. What the upstream refuses before the dot, it has not taken."""
        view = memoryview(block)
        for start in range(0, len(view), _PIECE):
            early = await wire.start(bytes(view[start : start + _PIECE]), self._upstream.reply_timeout)
            if early is not None and (early.transient or early.permanent) and not early.closing:
                self._let_go()
                return early
            if early is not None:
                raise wire.end(f"answered {early.code} {early.text} before the content had ended")
        return None

    def _note(self, connection: Connection, reply: Reply) -> Reply | Unclear:
        self._open = self._started = False
        self._accepted.clear()
        if reply.positive:
            connection.accepted()
        elif reply.permanent:
            connection.refusals += 1
        elif not reply.transient:
            return Unclear(f"answered {reply.code} to the final dot")
        return reply

    async def finish(self) -> None:
        """Give the connection back, out of any transaction."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._started:
            connection.wire.end("the content that was asked for never came")
        elif self._open and not connection.wire.ended:
            connection.reset()
        self._open = self._started = False
        self._accepted.clear()
        self._upstream.pool.give_back(connection)

    async def _persist(self, attempt: Callable[[Connection], Awaitable[T]]) -> T | Reply:
        """Make an attempt, and others while patience lasts; only ever before the dot."""
        if self._failure is not None:
            return self._failure
        self._patience.begin()
        while True:
            try:
                return await attempt(await self._ready())
            except UpstreamBusy:
                return UPSTREAM_BUSY
            except UpstreamRefused as error:
                log.error("%s", error)  # noqa: TRY400 - expected, and without a traceback of ours
                self._failure = UNREACHABLE
            except (UpstreamDown, ConnectionEnded) as error:
                self._let_go()
                if await self._patience.pause():
                    continue
                log.warning("%s; tried for %g s", error, self._upstream.patience)
                self._failure = UNREACHABLE
            return self._failure

    async def _ready(self) -> Connection:
        if self._connection is not None and self._connection.tired:
            await self._move()
        if self._connection is None:
            self._connection = await self._upstream.pool.acquire(fresh=self._fresh)
        return self._connection

    async def _move(self) -> None:
        """Leave a connection on which each further command would be slow; the next one gets the same recipients."""
        accepted = dict(self._accepted)
        await self.finish()
        self._accepted = accepted

    def _let_go(self) -> None:
        """Forget a connection that ended. The next one is a new one: others in the pool may have died with it."""
        self._open = self._started = False
        self._fresh = True
        if self._connection is not None:
            self._connection.wire.end("given up")
            self._upstream.pool.give_back(self._connection)
            self._connection = None

    async def _issue(
        self, connection: Connection, paths: Sequence[bytes], *then: bytes
    ) -> tuple[dict[bytes, Reply], Reply]:
        """Begin the transaction anew for these recipients. Gives their replies, and the last one of all."""
        if self._open:
            connection.reset()
            self._open = False
        mail = self._mail(connection)
        replies = await self._run(connection, [mail, *map(_rcpt, paths), *then])
        sender, recipients = replies[0], replies[1 : len(paths) + 1]
        self._open = sender.positive
        if not sender.positive:
            recipients = [sender] * len(paths)
        return dict(zip(paths, recipients, strict=True)), replies[-1]

    async def _answer_start(
        self, connection: Connection, replies: Mapping[bytes, Reply], start: Reply
    ) -> Mapping[bytes, Reply]:
        if start.code != _START_INPUT:
            return {path: start if reply.positive else reply for path, reply in replies.items()}
        if not any(reply.positive for reply in replies.values()):
            # RFC 2920 section 3.1: 354 though every recipient was refused. A lone dot, never content.
            await connection.run([b".\r\n"], self._upstream.reply_timeout)
            self._open = False
        else:
            self._started = True
        return replies

    async def _run(self, connection: Connection, commands: Sequence[bytes]) -> list[Reply]:
        replies = await connection.run(commands, self._upstream.reply_timeout)
        for reply in replies:
            if reply.closing:
                raise connection.wire.end(f"{self._upstream.target} answered {reply.code} {reply.text}")
        return replies

    def _mail(self, connection: Connection) -> bytes:
        offered = connection.extensions
        parameters = [
            parameter
            for parameter in self._envelope.parameters
            if {b"BODY": "8bitmime", b"SMTPUTF8": "smtputf8"}.get(parameter.partition(b"=")[0].upper(), "") in offered
        ]
        return b" ".join([b"MAIL FROM:<%b>" % self._envelope.reverse_path, *parameters]) + b"\r\n"


def _rcpt(path: bytes) -> bytes:
    return b"RCPT TO:<%b>\r\n" % path
