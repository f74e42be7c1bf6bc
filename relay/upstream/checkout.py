"""A pooled connection in use by one delivery, and the SMTP transaction on it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from relay.upstream.excerpt import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from relay.core.envelope import Envelope
    from relay.core.reply import Reply
    from relay.upstream.connection import Connection

_DATA = b"DATA\r\n"
_RSET = b"RSET\r\n"
_START_INPUT = 354
_EXTENSIONS = {b"BODY": "8bitmime", b"SMTPUTF8": "smtputf8"}
"""The extension that each parameter of MAIL needs."""


class Checkout:
    """Sends the commands of a transaction. Each method raises `ConnectionEnded`; `limit` in seconds for each reply."""

    def __init__(self, connection: Connection, loan_ends: float, observe: Callable[[str, float], None]) -> None:
        self.connection = connection
        self._observe = observe
        self.loan_ends = loan_ends
        """When the pool may take the connection back for others, by the loop's clock."""
        self.recipients: dict[bytes, Reply] | None = None
        """The accepted recipients of the open transaction and their replies; None if no transaction is open."""
        self.awaits_content = False
        """Whether the upstream has replied 354."""
        self.checked_in = False
        """Whether the pool has the connection again. Then it may already serve another delivery."""

    async def open_transaction(
        self, envelope: Envelope, paths: Sequence[bytes], limit: float, *then: bytes
    ) -> tuple[dict[bytes, Reply], Reply]:
        """Opens the transaction for `paths`, after RSET if one is open, and sends the commands `then`.

        Returns the replies to the recipients, and the last reply of all.
        """
        connection = self.connection
        connection.transactions += 1
        commands = [_mail(connection, envelope), *map(_rcpt, paths), *then]
        if self.recipients is None:
            replies = await self._run("mail", commands, limit)
        else:
            self.recipients = None
            connection.resets += 1
            first, *replies = await self._run("mail", [_RSET, *commands], limit)
            if not first.positive:
                raise connection.wire.abort(f"refused RSET: {describe(first)}")
        sender, recipients = replies[0], replies[1 : len(paths) + 1]
        if not sender.positive:
            return dict.fromkeys(paths, sender), replies[-1]
        answers = dict(zip(paths, recipients, strict=True))
        self.recipients = {path: reply for path, reply in answers.items() if reply.positive}
        return answers, replies[-1]

    async def rcpt(self, path: bytes, limit: float) -> Reply:
        """Adds a recipient to the open transaction and returns the reply."""
        [reply] = await self._run("rcpt", [_rcpt(path)], limit)
        if reply.positive and self.recipients is not None:
            self.recipients[path] = reply
        return reply

    async def data(self, envelope: Envelope, paths: Sequence[bytes], limit: float) -> Mapping[bytes, Reply]:
        """Sends DATA for exactly these recipients, in a new transaction if the open one has others.

        Returns a reply for each path. If any is positive, the upstream waits for content.
        """
        if self.recipients and self.recipients.keys() <= set(paths):
            missing = [path for path in paths if path not in self.recipients]
            *added, start = await self._run("data", [*map(_rcpt, missing), _DATA], limit)
            answers = self.recipients | dict(zip(missing, added, strict=True))
            replies = {path: answers[path] for path in paths}
            self.recipients = {path: reply for path, reply in replies.items() if reply.positive}
        else:
            replies, start = await self.open_transaction(envelope, paths, limit, _DATA)
        if start.code != _START_INPUT:
            return {path: start if reply.positive else reply for path, reply in replies.items()}
        if any(reply.positive for reply in replies.values()):
            self.awaits_content = True
        else:
            # RFC 2920 section 3.1: 354 although all recipients were refused. Send a lone dot, never content.
            await self.connection.run([b".\r\n"], limit)
            self.recipients = None
        return replies

    async def end_data(self, pieces: Sequence[bytes], limit: float) -> Reply:
        """Sends the last pieces of the content, with the final dot, and returns the reply."""
        began = time.perf_counter()
        try:
            return await self.connection.wire.execute_one(pieces, limit)
        finally:
            self._observe("dot", time.perf_counter() - began)

    def end_transaction(self, reply: Reply) -> None:
        """Notes the reply to the final dot."""
        self.recipients, self.awaits_content = None, False
        if reply.positive:
            self.connection.count_accepted()
        elif reply.permanent or reply.transient:
            self.connection.refusals += 1

    def leave_transaction(self, now: float) -> None:
        """Ends the transaction without a final dot. `now` in seconds of the event loop's clock."""
        if self.awaits_content:
            self.connection.wire.abort("the content that was asked for never came")
        elif self.recipients is not None and self.connection.reusable(now):
            self.connection.reset()
        self.recipients, self.awaits_content = None, False

    async def _run(self, step: str, commands: Sequence[bytes], limit: float) -> list[Reply]:
        """Sends the commands of a step. A reply that is 421 or does not fit its command ends the connection."""
        began = time.perf_counter()
        try:
            replies = await self.connection.run(commands, limit)
        finally:
            seconds = time.perf_counter() - began
            self._observe(step, seconds)
            self.connection.note_reply_time(seconds)
        for command, reply in zip(commands, replies, strict=True):
            fits = reply.code == _START_INPUT if command == _DATA else reply.positive
            if reply.closing or not (fits or reply.transient or reply.permanent):
                raise self.connection.wire.abort(f"answered {describe(reply)}")
        return replies


def _mail(connection: Connection, envelope: Envelope) -> bytes:
    """Returns the MAIL command with the parameters that the upstream's extensions allow."""
    parameters = [
        parameter
        for parameter in envelope.parameters
        if _EXTENSIONS.get(parameter.partition(b"=")[0].upper(), "") in connection.extensions
    ]
    return b" ".join([b"MAIL FROM:<%b>" % envelope.reverse_path, *parameters]) + b"\r\n"


def _rcpt(path: bytes) -> bytes:
    return b"RCPT TO:<%b>\r\n" % path
