"""Envelope, forward-path and recipient (RFC 5321 section 2.3.1).

A path is kept as the bytes that the client wrote between the angle brackets; a recipient is what it folds to, for
comparing only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

import idna

Recipient = NewType("Recipient", str)
"""A folded forward-path: equal for all spellings of one mailbox."""

NULL_REVERSE_PATH = b""
"""What `MAIL FROM:<>` carries (RFC 5321 section 4.5.5): a notification that must never be answered by another one."""

_QUOTED_LOCAL = re.compile(r'"((?:[^"\\]|\\.)*)"')
_CAPITALS = re.compile("[^\\u0130\\u212a]+")
# RFC 5322 section 3.2.3: atext, and dots between atoms. What is only this needs no quotes.
_DOT_ATOM = re.compile(r"[^\s()<>\[\]:;@\\,.\"]+(?:\.[^\s()<>\[\]:;@\\,.\"]+)*")


@dataclass(frozen=True, slots=True)
class Envelope:
    """What MAIL said: the reverse-path (empty for `<>`) and the parameters to pass on, such as `BODY=8BITMIME`."""

    reverse_path: bytes
    parameters: tuple[bytes, ...] = ()


def fold(path: bytes) -> Recipient:
    """Give the recipient that a forward-path means.

    Domain to its lower-case A-label (RFC 5890), local part to lower case, needless quotes off; plus-tags and dots stay.
    Any bytes fold to something, and what cannot be understood folds to itself in lower case.
    """
    text = path.decode("utf-8", "surrogateescape")
    local, at, domain = text.rpartition("@")
    if not at:
        return Recipient(_lower(text))
    return Recipient(f"{_fold_local(local)}@{_fold_domain(domain)}")


def _fold_local(local: str) -> str:
    quoted = _QUOTED_LOCAL.fullmatch(local)
    if quoted:
        bare = re.sub(r"\\(.)", r"\1", quoted.group(1))
        if _DOT_ATOM.fullmatch(bare):
            local = bare
    return _lower(local)


def _lower(text: str) -> str:
    """Make letters lower-case, but for those that would become ASCII: the Kelvin sign is another mailbox than k."""
    return text.lower() if text.isascii() else _CAPITALS.sub(lambda found: found[0].lower(), text)


def _fold_domain(domain: str) -> str:
    domain = _lower(domain.removesuffix("."))
    if domain.isascii():
        return domain
    try:
        return idna.encode(domain, uts46=True).decode("ascii").lower()
    except idna.IDNAError:
        return domain
