"""The AUTH command's exchange with the client: PLAIN (RFC 4616) and LOGIN (RFC 4954). Called by `relay.smtp.protocol`.

aiosmtpd's AUTH is not used: it calls its authenticator on the event loop, reads from a stream that this command loop
does not have, and does not let a login be refused later (ADR 31). CRAM-MD5 is not offered: the server would need the
passwords themselves.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from relay.core import reply as replies
from relay.core.login import Credentials, LoginOutcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.core.reply import Reply

MECHANISMS = "PLAIN LOGIN"
"""As EHLO offers them. PHPMailer prefers LOGIN, curl and msmtp PLAIN."""
LONGEST_RESPONSE = 12288
"""Octets of a client's response (RFC 4954 section 4)."""
_LONGEST_VALUE = 4096
"""Octets of a name, and of a password. RFC 4616 asks for 255; some passwords are access tokens."""


class ExchangeFailed(Exception):  # noqa: N818 - a client's error or wish, answered with `reply`
    """The exchange ended without credentials."""

    def __init__(self, reply: Reply, outcome: LoginOutcome) -> None:
        super().__init__(outcome.value)
        self.reply = reply
        self.outcome = outcome


async def read_credentials(argument: bytes, ask: Callable[[bytes], Awaitable[bytes]]) -> Credentials:
    """Returns the credentials. Raises `ExchangeFailed`.

    `argument` is that of the AUTH command. `ask` sends a challenge and returns the response, both in base64.
    """
    mechanism, *initial = argument.split()
    if len(initial) > 1:
        raise ExchangeFailed(replies.BAD_SYNTAX, LoginOutcome.MALFORMED)
    match mechanism.upper():
        case b"PLAIN":
            identity, name, password = _plain(_decode(initial[0] if initial else await ask(b"")))
        case b"LOGIN":
            name = _decode(initial[0] if initial else await ask(b"VXNlcm5hbWU6"))  # "Username:"
            password = _decode(await ask(b"UGFzc3dvcmQ6"))  # "Password:"
            identity = b""
        case _:
            raise ExchangeFailed(replies.UNKNOWN_MECHANISM, LoginOutcome.MECHANISM)
    # No user may act for another one: RFC 4616 section 2 allows a server to refuse that.
    if not name or not password or identity not in {b"", name} or b"\0" in name + password:
        raise ExchangeFailed(replies.LOGIN_REFUSED, LoginOutcome.CREDENTIALS)
    if max(len(name), len(password)) > _LONGEST_VALUE:
        raise ExchangeFailed(replies.LOGIN_REFUSED, LoginOutcome.CREDENTIALS)
    try:
        return Credentials(name.decode(), password)
    except UnicodeDecodeError:
        raise ExchangeFailed(replies.LOGIN_REFUSED, LoginOutcome.CREDENTIALS) from None


def _decode(response: bytes) -> bytes:
    """Returns the octets of a response. `=` is an empty initial response, `*` cancels (RFC 4954 section 4)."""
    if response == b"*":
        raise ExchangeFailed(replies.LOGIN_CANCELLED, LoginOutcome.CANCELLED)
    if response == b"=":
        return b""
    try:
        return base64.b64decode(response, validate=True)
    except binascii.Error:
        raise ExchangeFailed(replies.NOT_BASE64, LoginOutcome.MALFORMED) from None


def _plain(message: bytes) -> tuple[bytes, bytes, bytes]:
    """Returns authorization identity, name and password of a PLAIN message."""
    parts = message.split(b"\0")
    if len(parts) != 3:  # noqa: PLR2004 - RFC 4616 section 2
        raise ExchangeFailed(replies.NOT_BASE64, LoginOutcome.MALFORMED)
    return parts[0], parts[1], parts[2]
