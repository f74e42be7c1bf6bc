"""What holds for the recipients of one message: for each a rule, and the fingerprint by which it is claimed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.core.claim import Fingerprint, Terms
from relay.core.envelope import NULL_REVERSE_PATH
from relay.core.rules import Action, Ruling

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from relay.core.content import Content
    from relay.core.envelope import Envelope, Recipient
    from relay.core.fingerprint import Judged
    from relay.parts import Parts

LARGE = 64 * 1024
"""Bytes; larger content is parsed and hashed off the event loop."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found out about a message. An empty one says nothing of anybody."""

    judged: Judged | None = None
    """None where there was a fault in the look at the content."""
    rulings: Mapping[Recipient, Ruling] = field(default_factory=dict)
    keys: Mapping[Recipient, Fingerprint] = field(default_factory=dict)
    """Of those who are not exempt."""
    _terms: Mapping[Fingerprint, Terms] = field(default_factory=dict)

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


async def judge(
    parts: Parts, envelope: Envelope, content: Content, recipients: Collection[Recipient], record: str
) -> Judgement:
    """Find out what a message is and which rule holds for whom, once for all its recipients."""
    judged = None
    try:
        if len(content) > LARGE:
            judged = await asyncio.to_thread(_look, parts, envelope, content)
        else:
            judged = _look(parts, envelope, content)
        return _for_each(parts, judged, recipients, _exemption(parts, envelope, judged))
    except Exception as error:  # noqa: BLE001 - a fault of ours before DATA: forward without claims
        parts.witness.fault(record, "fingerprint", error)
        return Judgement(judged, dict.fromkeys(recipients, Ruling.exempt("fault")))


def _look(parts: Parts, envelope: Envelope, content: Content) -> Judged:
    return parts.judge(content.plain, envelope.reverse_path)


def _exemption(parts: Parts, envelope: Envelope, judged: Judged) -> Ruling | None:
    """Give what holds for all recipients, whatever the operator's rules say."""
    if envelope.reverse_path == NULL_REVERSE_PATH:
        return Ruling.exempt("null reverse-path")
    if any(mark.encode() in field for mark in parts.marks for field in judged.received):
        return Ruling.exempt("loop mark")
    return None


def _for_each(parts: Parts, judged: Judged, recipients: Collection[Recipient], exemption: Ruling | None) -> Judgement:
    """Ask the rules for each recipient, and give those that are not exempt a fingerprint."""
    rulings = {recipient: exemption or judged.ruling(recipient) for recipient in recipients}
    keys: dict[Recipient, Fingerprint] = {}
    terms: dict[Fingerprint, Terms] = {}
    for recipient, ruling in rulings.items():
        if ruling.action is not Action.EXEMPT:
            key = keys[recipient] = judged.fingerprint(recipient)
            terms[key] = Terms(ruling.window, parts.names(recipient))
    return Judgement(judged, rulings, keys, terms)
