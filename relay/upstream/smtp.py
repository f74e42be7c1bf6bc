"""One transaction with an SMTP upstream: recipients live, repaired before the dot, never sent twice after it."""

from __future__ import annotations

import asyncio
import logging
import re
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

_DATA = b"DATA\r\n"
_RSET = b"RSET\r\n"
_START_INPUT = 354
_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 section 3
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
        return int(size) or None if _SIZE.fullmatch(size) else None

    def offers(self, keyword: str) -> bool:
        """Say whether the last connection was offered an extension."""
        return keyword.lower() in self.pool.extensions

    async def probe(self) -> None:
        """Reach the upstream once. Raises `UpstreamError`."""
        await self.pool.wait_for_place()
        self.pool.give_back(await self.pool.connection(fresh=True))

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

    `_accepted` are the recipients whom the client was told yes. `_standing` are those whom the transaction that is open
    on `_connection` has; None when none is. `_started` says that the upstream waits for content.
    """

    def __init__(self, upstream: SmtpUpstream, envelope: Envelope) -> None:
        self._upstream = upstream
        self._envelope = envelope
        self._patience = Patience(upstream.patience, asyncio.get_running_loop().time)
        self._connection: Connection | None = None
        self._standing: dict[bytes, Reply] | None = None
        self._started = False
        self._fresh = False
        self._accepted: dict[bytes, Reply] = {}
        self._failure: Reply | None = None

    async def rcpt(self, path: bytes) -> Reply:
        """Pass a recipient on and give the upstream's own reply."""

        async def offer(connection: Connection) -> Reply:
            if self._standing is None:
                replies, _ = await self._issue(connection, [*self._accepted, path])
                return replies[path]
            [reply] = await self._run(connection, [_rcpt(path)])
            if reply.positive:
                self._standing[path] = reply
            return reply

        reply = await self._persist(offer)
        if reply.positive:
            self._accepted[path] = reply
        elif not self._accepted and self._standing is None:
            # The sender was refused, or nobody is there: true for every further recipient too.
            self._failure = reply
        return reply

    async def prepare(self, paths: Sequence[bytes]) -> Mapping[bytes, Reply]:
        """Make these the recipients and ask to send. Where a reply is positive, content is awaited."""

        async def ask(connection: Connection) -> Mapping[bytes, Reply]:
            if self._standing is not None and self._standing.keys() == set(paths):
                replies = dict(self._standing)
                [start] = await self._run(connection, [_DATA])
            else:
                replies, start = await self._issue(connection, paths, _DATA)
            return await self._answer_start(connection, replies, start)

        answer = await self._persist(ask)
        return dict.fromkeys(paths, answer) if isinstance(answer, Reply) else answer

    async def send(self, received: bytes, content: Content) -> Reply | Unclear | NotSent:
        """Send content and the final dot, once."""
        connection = self._connection
        if connection is None or not self._started:
            raise RuntimeError("send before a positive prepare")
        wire = connection.wire
        pieces = [received, content.safe_wire]
        try:
            if len(content) > _ONE_PIECE:
                early = await self._send_ahead(wire, b"".join(pieces))
                if early is not None:
                    return early
                pieces = []
        except ConnectionEnded as end:
            self._let_go()
            return NotSent(str(end))
        if wire.ended:
            self._let_go()
            return NotSent(wire.ended)
        try:
            reply = await wire.ask_once([*pieces, b".\r\n"], self._upstream.dot_timeout)
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
        self._standing, self._started = None, False
        if reply.positive:
            connection.accepted()
        elif reply.permanent:
            connection.refusals += 1
        elif reply.closing:
            self._let_go()
        elif not reply.transient:
            self._let_go()
            return Unclear(f"answered {reply.code} to the final dot")
        return reply

    async def finish(self) -> None:
        """Give the connection back, out of any transaction."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        standing, self._standing = self._standing, None
        started, self._started = self._started, False
        if started:
            connection.wire.end("the content that was asked for never came")
        elif standing is not None and connection.reusable(asyncio.get_running_loop().time()):
            connection.reset()
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
                # A kept connection may have died while nobody looked: that costs no patience.
                stale = isinstance(error, ConnectionEnded) and not self._fresh
                self._let_go()
                if stale or await self._patience.pause():
                    continue
                log.warning("%s; tried for %g s", error, self._upstream.patience)
                self._failure = UNREACHABLE
            return self._failure

    async def _ready(self) -> Connection:
        if self._connection is not None and self._connection.tired:
            # Each further command would be slow; another connection gets the same recipients.
            await self.finish()
        if self._connection is None:
            await self._upstream.pool.wait_for_place()
            self._patience.overlook()
            self._connection = await self._upstream.pool.connection(fresh=self._fresh)
        return self._connection

    def _let_go(self) -> None:
        """Forget a connection that ended. The next one is a new one: others in the pool may have died with it."""
        self._standing, self._started = None, False
        self._fresh = True
        if self._connection is not None:
            self._connection.wire.end("given up")
            self._upstream.pool.give_back(self._connection)
            self._connection = None

    async def _issue(
        self, connection: Connection, paths: Sequence[bytes], *then: bytes
    ) -> tuple[dict[bytes, Reply], Reply]:
        """Begin the transaction anew for these recipients. Gives their replies, and the last one of all."""
        commands = [self._mail(connection), *map(_rcpt, paths), *then]
        if self._standing is None:
            replies = await self._run(connection, commands)
        else:
            self._standing = None
            replies = await self._run_anew(connection, commands)
        sender, recipients = replies[0], replies[1 : len(paths) + 1]
        if not sender.positive:
            return dict.fromkeys(paths, sender), replies[-1]
        answers = dict(zip(paths, recipients, strict=True))
        self._standing = {path: reply for path, reply in answers.items() if reply.positive}
        return answers, replies[-1]

    async def _run_anew(self, connection: Connection, commands: Sequence[bytes]) -> list[Reply]:
        connection.resets += 1
        first, *replies = await self._run(connection, [_RSET, *commands])
        if not first.positive:
            raise connection.wire.end(f"{self._upstream.target} refused RSET: {first.code} {first.text}")
        return replies

    async def _answer_start(
        self, connection: Connection, replies: Mapping[bytes, Reply], start: Reply
    ) -> Mapping[bytes, Reply]:
        if start.code != _START_INPUT:
            return {path: start if reply.positive else reply for path, reply in replies.items()}
        if not any(reply.positive for reply in replies.values()):
            # RFC 2920 section 3.1: 354 though every recipient was refused. A lone dot, never content.
            await connection.run([b".\r\n"], self._upstream.reply_timeout)
            self._standing = None
        else:
            self._started = True
        return replies

    async def _run(self, connection: Connection, commands: Sequence[bytes]) -> list[Reply]:
        replies = await connection.run(commands, self._upstream.reply_timeout)
        for command, reply in zip(commands, replies, strict=True):
            go_on = reply.code == _START_INPUT if command == _DATA else reply.positive
            if reply.closing or not (go_on or reply.transient or reply.permanent):
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
