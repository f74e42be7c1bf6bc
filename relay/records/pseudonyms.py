"""How addresses stand in records: as a keyed hash, so that records can be searched for one but not read for all."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from relay.core.envelope import fold
from relay.core.redact import without_addresses

if TYPE_CHECKING:
    from relay.core.envelope import Recipient

_HASHED = re.compile(r"h:[0-9a-f]{16}")


class Pseudonyms:
    """Gives addresses their names. `plain`: they are their own names."""

    def __init__(self, secret: bytes, *, plain: bool) -> None:
        # Any length will do as a key then.
        self._key = hashlib.blake2b(secret, digest_size=32, person=b"relay-records").digest()
        self._plain = plain

    def __call__(self, recipient: str) -> str:
        """Give the name of a folded address. The null reverse-path stays empty."""
        return recipient if self._plain or not recipient else self._hashed(recipient)

    def redact(self, text: str) -> str:
        """Give what somebody has said, without the addresses in it."""
        return text if self._plain else without_addresses(text)

    def digest(self, octets: bytes) -> str:
        """Give eight hexadecimal digits, which nobody without the secret can compute for a guess."""
        return hashlib.blake2b(octets, digest_size=4, key=self._key).hexdigest()

    def find(self, written: str) -> frozenset[str]:
        """Give all names under which an address, spelled in any way, or a name itself may stand in records.

        More than one, because `record.addresses` may have been another when they were written.
        """
        if _HASHED.fullmatch(written):
            return frozenset((written,))
        recipient = address(written)
        return frozenset((recipient, self._hashed(recipient)))

    def _hashed(self, recipient: str) -> str:
        octets = recipient.encode("utf-8", "surrogatepass")
        return "h:" + hashlib.blake2b(octets, digest_size=8, key=self._key).hexdigest()


def address(written: str) -> Recipient:
    """Fold an address as somebody writes it on a command line, with or without angle brackets."""
    return fold(written.strip().removeprefix("<").removesuffix(">").encode("utf-8", "surrogateescape"))
