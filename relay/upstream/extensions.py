"""What an upstream's extensions allow: the parameters of MAIL and RCPT, and what must be refused without them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from relay.core.reply import EIGHT_BIT_NOT_SUPPORTED, UTF8_ADDRESS_NOT_SUPPORTED, UTF8_HEADER_NOT_SUPPORTED

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from relay.core.envelope import Envelope
    from relay.core.reply import Reply

_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 section 3
_EXTENSIONS = {
    b"BODY": "8bitmime",
    b"SMTPUTF8": "smtputf8",
    b"RET": "dsn",
    b"ENVID": "dsn",
    b"NOTIFY": "dsn",
    b"ORCPT": "dsn",
}
"""The extension that each parameter needs. `offered` below holds the extensions of an upstream, in lower case."""


def mail(envelope: Envelope, offered: Collection[str]) -> bytes:
    """Returns the MAIL command with the parameters that the upstream knows."""
    return b"MAIL FROM:<%b>%b\r\n" % (envelope.reverse_path, _known(envelope.parameters, offered))


def rcpt(envelope: Envelope, path: bytes, offered: Collection[str]) -> bytes:
    """Returns the RCPT command with the parameters that the upstream knows (DSN: RFC 3461 section 5)."""
    return b"RCPT TO:<%b>%b\r\n" % (path, _known(envelope.recipient_parameters.get(path, ()), offered))


def path_refusal(envelope: Envelope, path: bytes, offered: Collection[str]) -> Reply | None:
    """Returns the reply that refuses a path for want of SMTPUTF8 (RFC 6531 section 3.2), or None.

    A non-ASCII path without SMTPUTF8 in MAIL is passed on as it is: the upstream decides.
    """
    if path.isascii() or "smtputf8" in offered or not envelope.declares(b"SMTPUTF8"):
        return None
    return _refuse(UTF8_ADDRESS_NOT_SUPPORTED, "SMTPUTF8", envelope)


def content_refusal(envelope: Envelope, offered: Collection[str]) -> Reply | None:
    """Returns the reply that refuses the content for want of an extension (RFC 6152 section 3), or None."""
    if "smtputf8" in envelope.needs and "smtputf8" not in offered:
        return _refuse(UTF8_HEADER_NOT_SUPPORTED, "SMTPUTF8", envelope)
    if "8bitmime" in envelope.needs and "8bitmime" not in offered:
        return _refuse(EIGHT_BIT_NOT_SUPPORTED, "8BITMIME", envelope)
    return None


def size_limit(offered: Mapping[str, str]) -> int | None:
    """Returns the SIZE that an upstream offers, in bytes, or None; 0 means no limit (RFC 1870 section 4)."""
    size = offered.get("size", "")
    return int(size) or None if _SIZE.fullmatch(size) else None


def _refuse(reply: Reply, keyword: str, envelope: Envelope) -> Reply:
    """Makes a refusal transient if the client was offered the extension: its next EHLO shows what is offered now."""
    return reply.as_transient() if keyword in envelope.offered else reply


def _known(parameters: Sequence[bytes], offered: Collection[str]) -> bytes:
    return b"".join(
        b" " + parameter
        for parameter in parameters
        if _EXTENSIONS.get(parameter.partition(b"=")[0].upper(), "") in offered
    )
