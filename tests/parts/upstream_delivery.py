"""Drives deliveries of an SMTP upstream, step by step or as a whole."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from parts.ports import HOST
from parts.waiting import LONGEST
from relay.core.content import Content
from relay.core.delivery import NotSent, Unclear
from relay.core.envelope import Envelope
from relay.core.reply import Reply
from relay.upstream.connect import Target
from relay.upstream.smtp import SmtpUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay.upstream.delivery import SmtpDelivery

SENDER = Envelope(b"sender@example.test")
ONE, TWO, THREE = b"one@example.test", b"two@example.test", b"three@example.test"
MAIL = Content(b"Subject: x\r\n\r\nhello\r\n")
LARGE = Content(b"Subject: x\r\n\r\n" + b"0123456789abcdef\r\n" * 300_000)


@asynccontextmanager
async def upstream(
    *ports: int,
    connections: int = 5,
    reply_timeout: float = 20.0,
    dot_timeout: float = 20.0,
    patience: float = 5.0,
    longest_wait: float = 60.0,
    longest_idle_in_transaction: float = 60.0,
    longest_loan: float = 60.0,
    most_idle_of_client: int = 0,
    **target: Any,
) -> AsyncIterator[SmtpUpstream]:
    result = SmtpUpstream(
        [Target(HOST, port, **target) for port in ports],
        connections=connections,
        reply_timeout=reply_timeout,
        dot_timeout=dot_timeout,
        patience=patience,
        longest_wait=longest_wait,
        longest_idle_in_transaction=longest_idle_in_transaction,
        longest_loan=longest_loan,
        most_idle_of_client=most_idle_of_client,
    )
    try:
        yield result
    finally:
        await result.close()


async def offer(delivery: SmtpDelivery, *paths: bytes) -> list[int]:
    return [(await delivery.rcpt(path)).code for path in paths]


async def prepare(delivery: SmtpDelivery, *paths: bytes) -> list[int]:
    return [reply.code for reply in (await delivery.prepare(paths)).values()]


async def deliver(up: SmtpUpstream, *paths: bytes, content: Content = MAIL) -> Reply | Unclear | NotSent:
    """Delivers a message as a transaction does in which nothing is suppressed."""
    async with asyncio.timeout(LONGEST):
        return await _deliver(up, *paths, content=content)


async def _deliver(up: SmtpUpstream, *paths: bytes, content: Content) -> Reply | Unclear | NotSent:
    delivery = up.begin(SENDER)
    try:
        replies = {path: await delivery.rcpt(path) for path in paths}
        accepted = [path for path, reply in replies.items() if reply.positive]
        if not accepted:
            return replies[paths[0]]
        outcome: Reply | Unclear | NotSent = NotSent("")
        while isinstance(outcome, NotSent):
            answers = await delivery.prepare(accepted)
            if not any(reply.positive for reply in answers.values()):
                return answers[accepted[0]]
            outcome = await delivery.send(b"", content)
        return outcome
    finally:
        await delivery.finish()


def code(outcome: Reply | Unclear | NotSent) -> int:
    assert isinstance(outcome, Reply)
    return outcome.code
