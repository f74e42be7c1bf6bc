"""Pseudonyms of addresses in records: keyed hashes, by which records can be searched but addresses not read."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from relay.core.envelope import fold
from relay.core.redact import LONGEST, without_addresses

if TYPE_CHECKING:
    from relay.core.envelope import Recipient

_HASHED = re.compile(r"h:[0-9a-f]{16}")


class Pseudonyms:
    """Replaces addresses by pseudonyms such as `h:9fdf3541722f6ccf`, or by themselves if `plain` is set."""

    def __init__(self, secret: bytes, *, plain: bool) -> None:
        # BLAKE2b keys are limited to 64 bytes; the secret may have any length.
        self._key = hashlib.blake2b(secret, digest_size=32, person=b"relay-records").digest()
        self._plain = plain
        # Claim, trace and a sender's other mails ask for the same pseudonym.
        self._hashed = lru_cache(maxsize=1000)(self._hash)

    def __call__(self, recipient: str) -> str:
        """Returns the pseudonym of a folded address. The null reverse-path stays empty."""
        return recipient if self._plain or not recipient else self._hashed(recipient)

    def redact(self, text: str, most: int = LONGEST) -> str:
        """Returns foreign text without the addresses in it, cut to `most` characters after that."""
        return text[:most] if self._plain else without_addresses(text, most)

    def digest(self, octets: bytes) -> str:
        """Returns eight hexadecimal digits that only the holder of the secret can compute."""
        return hashlib.blake2b(octets, digest_size=4, key=self._key).hexdigest()

    def find(self, written: str) -> frozenset[str]:
        """Returns the names under which records may hold an address: in any spelling, or given as a pseudonym.

        These are two, because `record.addresses` may have changed since the records were written.
        """
        if _HASHED.fullmatch(written):
            return frozenset((written,))
        recipient = address(written)
        return frozenset((recipient, self._hashed(recipient)))

    def _hash(self, recipient: str) -> str:
        octets = recipient.encode("utf-8", "surrogatepass")
        return "h:" + hashlib.blake2b(octets, digest_size=8, key=self._key).hexdigest()


def address(written: str) -> Recipient:
    """Folds an address from a command line, with or without angle brackets."""
    return fold(written.strip().removeprefix("<").removesuffix(">").encode("utf-8", "surrogateescape"))
