"""Sends the content of one message upstream, with one final dot for each recipient at most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.core.delivery import NotSent, Unclear
from relay.core.reply import UNREACHABLE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from relay.core.content import Content
    from relay.core.delivery import Delivery
    from relay.core.envelope import Recipient
    from relay.core.reply import Reply
    from relay.runtime.guard import Guards

ATTEMPTS = 3
"""The largest number of uploads of one message. An upload that is lost before its final dot is repeated."""


class Sending:
    """Uses one transaction with the upstream. `paths` are the forward-paths that the upstream accepted at RCPT."""

    def __init__(self, delivery: Delivery, paths: Mapping[Recipient, bytes], guards: Guards) -> None:
        self._delivery = delivery
        self._paths = paths
        self._guards = guards
        self._recipients: Sequence[Recipient] = ()

    @property
    def uncertain(self) -> Sequence[Recipient]:
        """The recipients whose final dot was sent and not answered. They are known if the service ends meanwhile."""
        return self._recipients if self._delivery.dot_sent else ()

    async def send(
        self,
        recipients: Sequence[Recipient],
        received: bytes,
        content: Content,
        has_lost_claims: Callable[[], Awaitable[bool]],
    ) -> dict[Recipient, Reply | Unclear]:
        """Prepares the transaction for these recipients and sends `received`, a header field, and the content.

        Returns the upstream's answer for each recipient, or an empty dict if `has_lost_claims` says so just before the
        content is sent.
        """
        for _ in range(ATTEMPTS):
            answers = await self._prepare(recipients)
            ready = [recipient for recipient, reply in answers.items() if reply.positive]
            if not ready:
                return {**answers}
            if await has_lost_claims():
                return {}
            self._recipients = ready
            answer = await self._send_content(received, content)
            self._recipients = ()
            if not isinstance(answer, NotSent):
                return {**answers, **dict.fromkeys(ready, answer)}
        return dict.fromkeys(recipients, UNREACHABLE)

    async def _prepare(self, recipients: Sequence[Recipient]) -> dict[Recipient, Reply]:
        replies = await self._delivery.prepare([self._paths[recipient] for recipient in recipients])
        return {recipient: replies[self._paths[recipient]] for recipient in recipients}

    async def _send_content(self, received: bytes, content: Content) -> Reply | Unclear | NotSent:
        """Sends content and final dot. After a fault the answer is unclear if the dot may have been sent."""
        with self._guards("send"):
            return await self._delivery.send(received, content)
        if self._delivery.dot_sent:
            return Unclear("a fault while sending")
        with self._guards("finish"):
            await self._delivery.finish()  # the upstream still expects the rest of the content
        return NotSent("a fault while sending")
