"""One message's transaction with an SMTP upstream. Recipients are passed on at once.

Before the final dot a lost connection is replaced and the transaction reopened. After it nothing is sent again.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from relay.core.delivery import NotSent, Unclear
from relay.core.errors import LoginRefused, UpstreamBusy, UpstreamDown, UpstreamFull, UpstreamRefused
from relay.core.reply import LOGGED_IN, LOGIN_UNAVAILABLE, TOO_LARGE, UNREACHABLE, UPSTREAM_BUSY, Reply
from relay.events.limit import LogLimit
from relay.events.upstream import UPSTREAM_REFUSES, UPSTREAM_UNREACHABLE
from relay.upstream import extensions
from relay.upstream.excerpt import describe
from relay.upstream.patience import Patience
from relay.upstream.wire import ConnectionEnded, NoReply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from relay.core.content import Content
    from relay.core.envelope import Envelope
    from relay.core.login import Credentials
    from relay.upstream.checkout import Checkout
    from relay.upstream.pool import Pool
    from relay.upstream.route import Route
    from relay.upstream.wire import Wire

T = TypeVar("T")

_BLOCK = 1024 * 1024
"""Bytes. Each block of an upload has its own time limit, so that a slow upload does not count as a hanging one."""
_LARGE = 64 * 1024
"""Bytes. Larger content is sent in blocks, and its dot only after the last one: a loss before the dot is certain."""


def _blocks(pieces: Sequence[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        for start in range(0, len(piece), _BLOCK):
            yield piece[start : start + _BLOCK]


@dataclass(frozen=True, slots=True)
class DeliveryContext:
    """What all deliveries share. Times in seconds."""

    route: Route
    pool: Pool
    reply_timeout: float
    dot_timeout: float
    patience: float
    log_limit: LogLimit = field(default_factory=lambda: LogLimit(time.monotonic))


class SmtpDelivery:
    """Implements `relay.core.delivery.Delivery`.

    If the connection is lost, exchanged or reclaimed by the pool, the next one gets the recipients that the client has
    yet to name, and with DATA those that it had named before. So each recipient is sent twice at most, however often
    the upstream closes.
    """

    def __init__(
        self, context: DeliveryContext, envelope: Envelope, client: str, identity: Credentials | None = None
    ) -> None:
        self._context = context
        self._envelope = envelope
        self._client = client
        self._identity = identity
        self._login_refusal: Reply | None = None
        """The upstream's reply to the client's credentials, if it refused them."""
        self._patience = Patience(context.patience, asyncio.get_running_loop().time)
        self._checkout: Checkout | None = None
        self._needs_new = False
        """Whether the next connection must be a new one."""
        self._tried_fresh = False
        """Whether a 4yz on a connection that had been used before has led to a fresh one."""
        self._has_recipients = False
        """Whether the client has received a positive reply to a recipient."""
        self._failure: Reply | None = None
        """The reply to everything that follows, once it is known."""
        self.dot_sent = False
        self.upstream = ""

    async def log_in(self) -> Reply:
        """Connects with the client's credentials and checks the connection in. Returns 235 or the refusal."""

        async def attempt(checkout: Checkout) -> Reply:
            del checkout
            return LOGGED_IN

        try:
            reply = await self._with_retries(attempt, lambda reply: reply.transient)
        finally:
            await self.finish()
        return reply if reply.positive else self._login_refusal or LOGIN_UNAVAILABLE

    async def rcpt(self, path: bytes) -> Reply:
        """Passes a recipient on and returns the upstream's reply."""
        limit = self._context.reply_timeout
        in_transaction: Reply | None = None

        async def attempt(checkout: Checkout) -> Reply:
            nonlocal in_transaction
            if checkout.recipients is not None:
                reply = await checkout.rcpt(path, limit)
            else:
                replies, _ = await checkout.open_transaction(self._envelope, [path], limit)
                reply = replies[path]
            # Noted now: afterwards the pool may reclaim the connection, which ends the transaction.
            in_transaction = reply if checkout.recipients is not None else None
            return reply

        reply = await self._with_retries(attempt, lambda reply: reply.transient)
        if reply.positive:
            self._has_recipients = True
        elif not self._has_recipients and reply is not in_transaction:
            # The sender was refused or the upstream is unreachable. All further recipients would get the same reply.
            self._failure = reply
        return reply

    async def prepare(self, paths: Sequence[bytes]) -> Mapping[bytes, Reply]:
        """Makes `paths` the recipients and sends DATA. If a reply is positive, the upstream waits for content."""
        limit = self._context.reply_timeout
        replies = await self._with_retries(
            lambda checkout: checkout.data(self._envelope, paths, limit),
            lambda replies: any(reply.transient for reply in replies.values()),
        )
        return dict.fromkeys(paths, replies) if isinstance(replies, Reply) else replies

    async def send(self, received: bytes, content: Content) -> Reply | Unclear | NotSent:
        """Sends the content and the final dot, once."""
        self.dot_sent = False
        checkout = self._checkout
        if checkout is None or not checkout.awaits_content:
            raise RuntimeError("send before a positive prepare")
        connection = checkout.connection
        self.upstream = connection.upstream
        if connection.rank and len(content) > (extensions.size_limit(connection.extensions) or len(content)):
            # A fallback upstream would refuse for good what the preferred one takes.
            self._discard()
            return TOO_LARGE.as_transient()
        wire = connection.wire
        pieces = [received, content.safe_wire]
        try:
            if len(content) > _LARGE:
                refusal = await self._upload(wire, pieces)
                if refusal is not None:
                    self._discard()
                    return refusal
                pieces = []
        except ConnectionEnded as end:
            return NotSent(self._fail(checkout, str(end)))
        if wire.ended:
            return NotSent(self._fail(checkout, wire.ended))
        self.dot_sent = True
        try:
            reply = await checkout.end_data([*pieces, b".\r\n"], self._context.dot_timeout)
        except ConnectionEnded as end:
            return Unclear(self._fail(checkout, str(end)))
        self._context.route.note_success(checkout.connection)
        checkout.end_transaction(reply)
        is_final = reply.positive or reply.transient or reply.permanent
        if reply.closing or not is_final:
            self._discard()
        return reply if is_final else Unclear(f"answered {reply.code} to the final dot")

    async def _upload(self, wire: Wire, pieces: Sequence[bytes]) -> Reply | None:
        """Sends all but the dot. Returns the reply of an upstream that refuses the content before the dot.

        Copies one block at a time: a copy of the whole would take as much memory as the message.
        """
        for block in _blocks(pieces):
            early = await wire.upload(block, self._context.reply_timeout)
            if early is not None and (early.transient or early.permanent) and not early.closing:
                return early
            if early is not None:
                raise wire.abort(f"answered {describe(early)} before the content had ended")
        return None

    async def finish(self) -> None:
        """Checks the connection in. May be called at any time, repeatedly."""
        checkout, self._checkout = self._checkout, None
        if checkout is not None:
            self._context.pool.check_in(checkout)

    def _discard(self) -> None:
        """Closes the connection. The next one must be new: other pooled ones may have failed with it."""
        self._needs_new = True
        checkout, self._checkout = self._checkout, None
        if checkout is not None:
            self._context.pool.discard(checkout)

    def _fail(self, checkout: Checkout, reason: str) -> str:
        """Counts the end of a connection against its upstream. Returns the reason with the upstream's name."""
        self._discard()
        return self._context.route.note_failure(checkout.connection, reason)

    async def _with_retries(
        self, attempt: Callable[[Checkout], Awaitable[T]], is_transient: Callable[[T], bool]
    ) -> T | Reply:
        """Makes an attempt, and further ones while patience lasts; only before the final dot."""
        if self._failure is not None:
            return self._failure
        if self._checkout is not None:
            self._context.pool.set_active(self._checkout)
        try:
            return await self._attempts(attempt, is_transient)
        finally:
            if self._checkout is not None and not self._checkout.awaits_content:
                self._context.pool.set_idle(self._checkout)

    async def _attempts(
        self, attempt: Callable[[Checkout], Awaitable[T]], is_transient: Callable[[T], bool]
    ) -> T | Reply:
        self._patience.begin()
        clock = asyncio.get_running_loop().time
        busy_at = clock() + self._context.pool.longest_wait
        is_full = False
        while True:
            try:
                checkout = await self._usable_checkout(is_full=is_full)
                is_full = False
                result = await attempt(checkout)
                if self._tried_fresh or not is_transient(result) or checkout.connection.transactions <= 1:
                    return result
                self._tried_fresh, self._checkout = True, None
                # Many servers reply 4yz after a number of messages on a connection. That is no verdict on this one.
                self._checkout = await self._context.pool.exchange(checkout)
            except UpstreamBusy:
                return UPSTREAM_BUSY
            except UpstreamFull:
                # Other connections work. One of them will do, and waiting for it costs no patience.
                self._needs_new, is_full = False, True
                if clock() > busy_at:
                    return UPSTREAM_BUSY
            except (UpstreamRefused, UpstreamDown, ConnectionEnded, OSError) as error:
                if not await self._may_retry(error):
                    self._failure = UNREACHABLE
                    return self._failure

    async def _may_retry(self, error: Exception) -> bool:
        """Handles the failure of an attempt. Returns True, after a pause, if another attempt may follow."""
        if isinstance(error, UpstreamRefused):
            if isinstance(error, LoginRefused):  # that is logged once, not for each message
                self._login_refusal = error.reply
            elif count := self._context.log_limit.count(UPSTREAM_REFUSES):
                UPSTREAM_REFUSES.log(error=error, transactions=count)
            return False
        # A pooled connection may have died unnoticed. That costs no patience; a hanging one does.
        stale = not (self._needs_new or isinstance(error, UpstreamDown | NoReply))
        reason = str(error)
        if self._checkout is not None and not stale:
            reason = self._fail(self._checkout, reason)
        else:
            self._discard()
        if stale or await self._patience.pause():
            return True
        if count := self._context.log_limit.count(UPSTREAM_UNREACHABLE):
            UPSTREAM_UNREACHABLE.log(error=reason, seconds=self._context.patience, transactions=count)
        return False

    async def _usable_checkout(self, *, is_full: bool) -> Checkout:
        """Returns the connection in use, or another one. `is_full`: after an attempt to open one too many."""
        pool = self._context.pool
        checkout, self._checkout = self._checkout, None
        if checkout is None or checkout.checked_in:
            await pool.wait_for_slot(self._client, first=is_full)
            self._patience.overlook()
            checkout = await pool.check_out(self._client, new=self._needs_new, identity=self._identity)
        elif pool.delays_replies(checkout.connection):
            checkout = await pool.exchange(checkout)
        self._checkout = checkout
        return checkout
