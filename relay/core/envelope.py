"""Envelope, forward-path and recipient (RFC 5321 section 2.3.1).

A path is the bytes between the angle brackets, as the client wrote them. A recipient is a folded path, for comparing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

import idna

Recipient = NewType("Recipient", str)
"""A folded forward-path: equal for all spellings of one mailbox."""

NULL_REVERSE_PATH = b""
"""The path of `MAIL FROM:<>` (RFC 5321 section 4.5.5): a notification, which must never cause another one."""

_QUOTED_LOCAL = re.compile(r'"((?:[^"\\]|\\.)*)"')
_CAPITALS = re.compile("[^\\u0130\\u212a]+")
# RFC 5322 section 3.2.3: atext, and dots between atoms. Such a local part needs no quotes.
_DOT_ATOM = re.compile(r"[^\s()<>\[\]:;@\\,.\"]+(?:\.[^\s()<>\[\]:;@\\,.\"]+)*")


@dataclass(frozen=True, slots=True)
class Envelope:
    """The reverse-path (empty for `<>`), and the parameters of MAIL to pass on, such as `BODY=8BITMIME`."""

    reverse_path: bytes
    parameters: tuple[bytes, ...] = ()


def fold(path: bytes) -> Recipient:
    """Returns the recipient that a forward-path names. Example: `"Anna"@Example.ORG` becomes `anna@example.org`.

    The domain becomes its lower-case A-label (RFC 5890), the local part lower case without needless quotes; plus-tags
    and dots stay. Any bytes can be folded: a path that is not valid becomes lower case.
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
    """Returns the text in lower case, except letters that would become ASCII: the Kelvin sign is not the letter k."""
    return text.lower() if text.isascii() else _CAPITALS.sub(lambda match: match[0].lower(), text)


def _fold_domain(domain: str) -> str:
    domain = _lower(domain.removesuffix("."))
    if domain.isascii():
        return domain
    try:
        return idna.encode(domain, uts46=True).decode("ascii").lower()
    except idna.IDNAError:
        return domain
