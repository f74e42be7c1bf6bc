"""The judgement: from content to one fingerprint per recipient."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.core.claim import Fingerprint
from relay.core.headers import unfold, values
from relay.core.message import parse
from relay.core.normalise import NormalForm, normalise
from relay.core.presets import exemption

if TYPE_CHECKING:
    from relay.core.envelope import Recipient
    from relay.core.normalise import Field

VERSION = 1
"""Stands in every fingerprint. Whatever changes a digest of the corpus changes this too."""

_PREFIX = f"v{VERSION}:"
_MESSAGE_ID_LIMIT = 250


@dataclass(frozen=True, slots=True)
class Judged:
    """A message that was looked at: what counts of it, and what the story needs to know."""

    form: NormalForm
    exempt: str | None
    """The name of what says that it is never suppressed."""
    message_id: str
    """For records; printable ASCII, or empty."""
    received: tuple[bytes, ...]
    """Raw values of its Received fields, top first."""
    _seed: hashlib.blake2b = field(repr=False, compare=False)

    def fingerprint(self, recipient: Recipient) -> Fingerprint:
        """Give the fingerprint for one recipient."""
        digest = self._seed.copy()
        octets = recipient.encode("utf-8", "surrogatepass")
        digest.update(b"9:recipient%d:%b" % (len(octets), octets))
        return Fingerprint(_PREFIX + digest.hexdigest())


def judge(content: bytes, reverse_path: bytes) -> Judged:
    """Look at a message as its recipient gets it. Any bytes can be judged."""
    message = parse(content)
    form = normalise(message, sender=reverse_path)
    return Judged(
        form, exemption(form), _message_id(values(message.fields, "message-id")), message.received, seed(form)
    )


def seed(form: NormalForm) -> hashlib.blake2b:
    """Hash what is common to all recipients."""
    encoded = b"".join(map(_encode, form.fields))
    return hashlib.blake2b(encoded, digest_size=20, person=b"smtp-dedup-relay")


def _encode(counted: Field) -> bytes:
    """With lengths in front, so that no field can pass for the end of another one."""
    label, value = counted
    return b"%d:%b%d:%b" % (len(label), label.encode(), len(value), value)


def _message_id(found: list[bytes]) -> str:
    text = unfold(found[0]).strip()[:_MESSAGE_ID_LIMIT].decode("ascii", "replace") if found else ""
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in text)
