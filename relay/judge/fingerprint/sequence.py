"""Names for sequences of mails, and fingerprints in one epoch of a sequence (ADR 22)."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from relay.core.sequence import SequenceName
from relay.judge.fingerprint.digest import DIGEST_SIZE, PERSON, PREFIX, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from relay.core.claim import Fingerprint
    from relay.core.envelope import Recipient
    from relay.judge.fingerprint.header import Field

_FROM = ("From", "From (raw)")
_ADDRESS = re.compile(rb"<([^<>]*)>\s*\Z")


def sender_of(header: Iterable[Field], reverse_path: bytes) -> bytes:
    """Returns the addresses in the From fields, in lower case; the reverse-path if there is no such field.

    Display names do not count: trackers write there who acted, and their mails are still one sequence.
    """
    addresses = [_address_in(value) for label, value in header if label in _FROM]
    return b"\n".join(addresses or [reverse_path]).lower()


@lru_cache(maxsize=16)
def _address_in(value: bytes) -> bytes:
    match = _ADDRESS.search(value)
    return match[1] if match else value.strip()


def sequence_name(sender: bytes, recipient: Recipient) -> SequenceName:
    """Returns the name of the sequence of a sender's mails to a recipient: `q4:` and 40 hexadecimal digits."""
    return SequenceName(f"q{VERSION}:{_digest(sender, recipient.encode('utf-8', 'surrogatepass'))}")


def in_epoch(fingerprint: Fingerprint, epoch: str) -> Fingerprint:
    """Returns the fingerprint to claim under a consecutive rule: that of the message, in one epoch of its sequence."""
    return PREFIX + _digest(fingerprint.encode(), epoch.encode())  # type: ignore[return-value]


def _digest(*values: bytes) -> str:
    encoded = b"%a%b" % (list(map(len, values)), b"".join(values))
    return hashlib.blake2b(encoded, digest_size=DIGEST_SIZE, person=PERSON).hexdigest()
