"""What holds for the recipients of one message: for each a rule, and the fingerprint by which it is claimed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relay.core.claim import Fingerprint, Terms
from relay.core.envelope import NULL_REVERSE_PATH
from relay.core.rules import Action, Ruling

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from relay.core.content import Content
    from relay.core.envelope import Envelope, Recipient
    from relay.core.fingerprint import Judged
    from relay.parts import Parts

LARGE = 64 * 1024
"""Bytes; larger content is parsed and hashed off the event loop."""


class Judgement:
    """One message, judged once for all its recipients. A fault of ours exempts them: forward without claims."""

    def __init__(self, parts: Parts, envelope: Envelope) -> None:
        self._parts = parts
        self._envelope = envelope
        self._terms: dict[Fingerprint, Terms] = {}
        self.judged: Judged | None = None
        """None before the look at the content, and where there was a fault in it."""
        self.rulings: dict[Recipient, Ruling] = {}
        self.keys: dict[Recipient, Fingerprint] = {}
        """Of those who are not exempt."""

    async def find(self, content: Content, recipients: Collection[Recipient], record: str) -> None:
        """Find out what the message is and which rule holds for whom."""
        try:
            if len(content) > LARGE:
                await asyncio.to_thread(self._judge, content, recipients)
            else:
                self._judge(content, recipients)
        except Exception as error:  # noqa: BLE001 - a fault of ours before DATA: forward without claims
            self._parts.witness.fault(record, "fingerprint", error)
            self.rulings = dict.fromkeys(recipients, Ruling.exempt("fault"))
            self.keys = {}

    @property
    def message_id(self) -> str:
        """For records; may be empty."""
        return self.judged.message_id if self.judged else ""

    @property
    def hops(self) -> int:
        """How many relays have handled the message, as far as is known."""
        return len(self.judged.received) if self.judged else 0

    def observed(self) -> set[Recipient]:
        """Give those whose repeats are only counted."""
        return {to for to, ruling in self.rulings.items() if ruling.action is Action.OBSERVE}

    def terms(self, recipients: Sequence[Recipient]) -> dict[Fingerprint, Terms]:
        """Give what to claim for them; nothing for those who are exempt."""
        keys = [self.keys[recipient] for recipient in recipients if recipient in self.keys]
        return {key: self._terms[key] for key in keys}

    def _judge(self, content: Content, recipients: Collection[Recipient]) -> None:
        """Ask the rules for each recipient, and give those that are not exempt a fingerprint."""
        judged = self.judged = self._parts.judge(content.plain, self._envelope.reverse_path)
        exemption = self._exemption(judged)
        for recipient in recipients:
            ruling = self.rulings[recipient] = exemption or judged.ruling(recipient)
            if ruling.action is not Action.EXEMPT:
                key = self.keys[recipient] = judged.fingerprint(recipient)
                self._terms[key] = Terms(ruling.window, self._parts.names(recipient))

    def _exemption(self, judged: Judged) -> Ruling | None:
        """Give what holds for all recipients, whatever the operator's rules say."""
        if self._envelope.reverse_path == NULL_REVERSE_PATH:
            return Ruling.exempt("null reverse-path")
        if any(mark.encode() in field for mark in self._parts.marks for field in judged.received):
            return Ruling.exempt("loop mark")
        return None
