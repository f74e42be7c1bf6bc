"""One transaction with an SMTP upstream: recipients live, repaired before the dot, never sent twice after it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from relay.core.delivery import NotSent, Unclear
from relay.core.errors import UpstreamBusy, UpstreamDown, UpstreamRefused
from relay.core.reply import UNREACHABLE, UPSTREAM_BUSY, Reply
from relay.upstream.patience import Patience
from relay.upstream.wire import ConnectionEnded, NoAnswer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from relay.core.content import Content
    from relay.core.envelope import Envelope
    from relay.upstream.connect import Connection
    from relay.upstream.pool import Pool
    from relay.upstream.route import Route
    from relay.upstream.wire import Wire

T = TypeVar("T")
log = logging.getLogger("relay.upstream")

_DATA = b"DATA\r\n"
_RSET = b"RSET\r\n"
_START_INPUT = 354
_PIECE = 1024 * 1024
"""Bytes, each with its own limit: a slow upload is not a hanging one."""
_ONE_PIECE = 64 * 1024
"""Bytes. Larger content is followed by its dot only when it has left us, so that a loss before the dot is known."""


@dataclass(frozen=True, slots=True)
class DeliveryContext:
    """What every delivery works with. Times in seconds."""

    route: Route
    pool: Pool
    reply_timeout: float
    dot_timeout: float
    patience: float


@dataclass(slots=True)
class _CheckedOut:
    """A connection that the pool has lent us, and how far the transaction on it has come."""

    connection: Connection
    standing: dict[bytes, Reply] | None = None
    """The recipients that the open transaction has; None when none is open."""
    started: bool = False
    """Whether the upstream waits for content."""


class SmtpDelivery:
    """The upstream's side of one message.

    `_accepted` are the recipients whom the client was told yes. When the connection is lost, exchanged or handed to
    somebody else meanwhile, the next one gets them anew.
    """

    def __init__(self, terms: DeliveryContext, envelope: Envelope) -> None:
        self._terms = terms
        self._envelope = envelope
        self._patience = Patience(terms.patience, asyncio.get_running_loop().time)
        self._lent: _CheckedOut | None = None
        self._fresh = False
        self._accepted: dict[bytes, Reply] = {}
        self._failure: Reply | None = None

    async def rcpt(self, path: bytes) -> Reply:
        """Pass a recipient on and give the upstream's own reply."""

        async def offer(lent: _CheckedOut) -> Reply:
            if lent.standing is None:
                replies, _ = await self._issue(lent, [*self._accepted, path])
                return replies[path]
            [reply] = await self._run(lent.connection, [_rcpt(path)])
            if reply.positive:
                lent.standing[path] = reply
            return reply

        reply = await self._persist(offer)
        if reply.positive:
            self._accepted[path] = reply
        elif not self._accepted and (self._lent is None or self._lent.standing is None):
            # The sender was refused, or nobody is there: true for every further recipient too.
            self._failure = reply
        return reply

    async def prepare(self, paths: Sequence[bytes]) -> Mapping[bytes, Reply]:
        """Make these the recipients and ask to send. Where a reply is positive, content is awaited."""

        async def ask(lent: _CheckedOut) -> Mapping[bytes, Reply]:
            if lent.standing is not None and lent.standing.keys() == set(paths):
                replies = dict(lent.standing)
                [start] = await self._run(lent.connection, [_DATA])
            else:
                replies, start = await self._issue(lent, paths, _DATA)
            return await self._answer_start(lent, replies, start)

        answer = await self._persist(ask)
        return dict.fromkeys(paths, answer) if isinstance(answer, Reply) else answer

    async def send(self, received: bytes, content: Content) -> Reply | Unclear | NotSent:
        """Send content and the final dot, once."""
        if self._lent is None or not self._lent.started:
            raise RuntimeError("send before a positive prepare")
        wire = self._lent.connection.wire
        pieces = [received, content.safe_wire]
        try:
            if len(content) > _ONE_PIECE:
                early = await self._send_ahead(wire, b"".join(pieces))
                if early is not None:
                    return early
                pieces = []
        except ConnectionEnded as end:
            return NotSent(self._fail(self._lent, str(end)))
        if wire.ended:
            return NotSent(self._fail(self._lent, wire.ended))
        try:
            reply = await wire.ask_once([*pieces, b".\r\n"], self._terms.dot_timeout)
        except ConnectionEnded as end:
            return Unclear(self._fail(self._lent, str(end)))
        self._terms.route.delivers(self._lent.connection)
        return self._note(self._lent, reply)

    async def _send_ahead(self, wire: Wire, block: bytes) -> Reply | None:
        """Send all but the dot. What the upstream refuses before the dot, it has not taken."""
        view = memoryview(block)
        for start in range(0, len(view), _PIECE):
            early = await wire.start(bytes(view[start : start + _PIECE]), self._terms.reply_timeout)
            if early is not None and (early.transient or early.permanent) and not early.closing:
                self._let_go()
                return early
            if early is not None:
                raise wire.end(f"answered {early.code} {early.text} before the content had ended")
        return None

    def _note(self, lent: _CheckedOut, reply: Reply) -> Reply | Unclear:
        lent.standing, lent.started = None, False
        if reply.positive:
            lent.connection.accepted()
        elif reply.closing:
            self._let_go()
        elif reply.permanent or reply.transient:
            lent.connection.refusals += 1
        else:
            self._let_go()
            return Unclear(f"answered {reply.code} to the final dot")
        return reply

    async def finish(self) -> None:
        """Give the connection back, out of any transaction."""
        self._give_back()

    def _give_back(self) -> None:
        """Do so. The pool calls it too, when others wait and we have been silent for long."""
        lent = self._take()
        if lent is None:
            return
        if lent.started:
            lent.connection.wire.end("the content that was asked for never came")
        elif lent.standing is not None and lent.connection.reusable(asyncio.get_running_loop().time()):
            lent.connection.reset()
        self._terms.pool.give_back(lent.connection)

    def _let_go(self) -> None:
        """Forget a connection that ended. The next one is a new one: others in the pool may have died with it."""
        self._fresh = True
        lent = self._take()
        if lent is not None:
            lent.connection.wire.end("given up")
            self._terms.pool.give_back(lent.connection)

    def _fail(self, lent: _CheckedOut, reason: str) -> str:
        """Hold the end of a connection against its upstream. Gives the reason with the upstream's name."""
        self._let_go()
        return self._terms.route.fails(lent.connection, reason)

    def _take(self) -> _CheckedOut | None:
        self._terms.pool.speaks(self._give_back)
        lent, self._lent = self._lent, None
        return lent

    async def _persist(self, attempt: Callable[[_CheckedOut], Awaitable[T]]) -> T | Reply:
        """Make an attempt, and others while patience lasts; only ever before the dot."""
        if self._failure is not None:
            return self._failure
        self._terms.pool.speaks(self._give_back)
        try:
            return await self._attempts(attempt)
        finally:
            if self._lent is not None and not self._lent.started:
                self._terms.pool.is_silent(self._give_back)

    async def _attempts(self, attempt: Callable[[_CheckedOut], Awaitable[T]]) -> T | Reply:
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
                # A kept connection may have died while nobody looked: that costs no patience. A hanging one does.
                stale = not (self._fresh or isinstance(error, UpstreamDown | NoAnswer))
                reason = str(error)
                if self._lent is not None and not stale:
                    reason = self._fail(self._lent, reason)
                else:
                    self._let_go()
                if stale or await self._patience.pause():
                    continue
                log.warning("%s; tried for %g s", reason, self._terms.patience)
                self._failure = UNREACHABLE
            return self._failure

    async def _ready(self) -> _CheckedOut:
        lent = self._lent
        if lent is not None and not lent.connection.tired:
            return lent
        pool = self._terms.pool
        if lent is None:
            await pool.wait_for_place()
            self._patience.overlook()
            connection = await pool.connection(fresh=self._fresh)
        else:
            # Each further command would be slow; another connection gets the same recipients.
            self._lent = None
            connection = await pool.exchange(lent.connection, fresh=self._fresh)
        self._lent = _CheckedOut(connection)
        return self._lent

    async def _issue(self, lent: _CheckedOut, paths: Sequence[bytes], *then: bytes) -> tuple[dict[bytes, Reply], Reply]:
        """Begin the transaction anew for these recipients. Gives their replies, and the last one of all."""
        commands = [self._mail(lent.connection), *map(_rcpt, paths), *then]
        if lent.standing is None:
            replies = await self._run(lent.connection, commands)
        else:
            lent.standing = None
            replies = await self._run_anew(lent.connection, commands)
        sender, recipients = replies[0], replies[1 : len(paths) + 1]
        if not sender.positive:
            return dict.fromkeys(paths, sender), replies[-1]
        answers = dict(zip(paths, recipients, strict=True))
        lent.standing = {path: reply for path, reply in answers.items() if reply.positive}
        return answers, replies[-1]

    async def _run_anew(self, connection: Connection, commands: Sequence[bytes]) -> list[Reply]:
        connection.resets += 1
        first, *replies = await self._run(connection, [_RSET, *commands])
        if not first.positive:
            raise connection.wire.end(f"refused RSET: {first.code} {first.text}")
        return replies

    async def _answer_start(
        self, lent: _CheckedOut, replies: Mapping[bytes, Reply], start: Reply
    ) -> Mapping[bytes, Reply]:
        if start.code != _START_INPUT:
            return {path: start if reply.positive else reply for path, reply in replies.items()}
        if not any(reply.positive for reply in replies.values()):
            # RFC 2920 section 3.1: 354 though every recipient was refused. A lone dot, never content.
            await lent.connection.run([b".\r\n"], self._terms.reply_timeout)
            lent.standing = None
        else:
            lent.started = True
        return replies

    async def _run(self, connection: Connection, commands: Sequence[bytes]) -> list[Reply]:
        replies = await connection.run(commands, self._terms.reply_timeout)
        for command, reply in zip(commands, replies, strict=True):
            go_on = reply.code == _START_INPUT if command == _DATA else reply.positive
            if reply.closing or not (go_on or reply.transient or reply.permanent):
                raise connection.wire.end(f"answered {reply.code} {reply.text}")
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
