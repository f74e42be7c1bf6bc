"""Envelope, forward-path and recipient (RFC 5321 section 2.3.1).

A path is the bytes between the angle brackets, as the client wrote them. A recipient is a folded path, for comparing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NewType

import idna

if TYPE_CHECKING:
    from collections.abc import Collection

    from relay.core.content import Content

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
    recipient_parameters: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict, compare=False)
    """The parameters of RCPT by forward-path, such as `NOTIFY=NEVER`; filled as the recipients arrive."""
    offered: Collection[str] = field(default=(), compare=False)
    """The upstream's extensions that the relay offered to the client, such as `8BITMIME`."""
    needs: set[str] = field(default_factory=set, compare=False)
    """The declared extensions, in lower case, without which the content must not be sent; see `note_content`."""

    def declares(self, parameter: bytes) -> bool:
        """Returns whether the client gave this parameter of MAIL, such as `b"SMTPUTF8"`."""
        return any(given.upper() == parameter for given in self.parameters)

    def note_content(self, content: Content) -> None:
        """Notes which of the declared extensions the content really needs.

        Content that needs none may go to an upstream without them (RFC 6152 section 3, RFC 6531 section 3.2): some
        senders declare SMTPUTF8 with every message. 8-bit content that the client did not declare needs none.
        """
        if not self.parameters or content.wire.isascii():
            return
        if self.declares(b"BODY=8BITMIME"):
            self.needs.add("8bitmime")
        if self.declares(b"SMTPUTF8") and not content.wire.partition(b"\r\n\r\n")[0].isascii():
            self.needs.add("smtputf8")


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
