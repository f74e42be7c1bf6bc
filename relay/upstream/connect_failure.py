"""Explains why no connection could be opened."""

from __future__ import annotations

import os
import ssl
from base64 import b64encode
from typing import TYPE_CHECKING

import aiosmtplib

from relay.core.errors import LoginDeferred, LoginRefused, UpstreamDown, UpstreamFull, UpstreamRefused
from relay.core.reply import Reply
from relay.upstream.excerpt import HIDE, LONGEST_LINE, MOST_LINES, excerpt, quote

if TYPE_CHECKING:
    from relay.upstream.connect import Target

_CLOSING = 421
# OpenSSL's verification errors for certificates without what RFC 5280 requires. Python checks this from 3.13 on
# (VERIFY_X509_STRICT).
_ERRORS_RFC_5280 = range(80, 94)
_REMEDY_RFC_5280 = (
    "; Python 3.13 and newer require the extensions of RFC 5280: issue the CA's certificate again with "
    "basicConstraints=critical,CA:TRUE and keyUsage=critical,keyCertSign,cRLSign, and all with key identifiers"
)


def explain(target: Target, error: BaseException, *, greeted: bool) -> UpstreamDown | UpstreamRefused:
    """Returns the error for the caller. `greeted`: whether the upstream had sent 220 before."""
    certificate: BaseException | None = error
    while certificate and not isinstance(certificate, ssl.SSLError):
        certificate = certificate.__cause__
    if isinstance(certificate, ssl.SSLCertVerificationError):
        remedy = _REMEDY_RFC_5280 if certificate.verify_code in _ERRORS_RFC_5280 else ""
        return UpstreamRefused(f"the certificate of {target} is not trusted: {certificate.verify_message}{remedy}")
    if isinstance(certificate, ssl.SSLError):
        return UpstreamRefused(f"TLS with {target} failed: {certificate.reason or certificate}")
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return _explain_reply(target, error)
    if isinstance(error, aiosmtplib.SMTPException) and not isinstance(error, OSError):
        # STARTTLS or AUTH is not offered: aiosmtplib has no class for that. Its losses and timeouts are OSErrors.
        return UpstreamRefused(f"{target} does not offer what the settings ask for: {quote(str(error)).rstrip('.')}")
    dropped = not greeted and isinstance(error, aiosmtplib.SMTPConnectError)
    return (UpstreamFull if dropped else UpstreamDown)(f"no connection to {target}: {_reason(error)}")


def _explain_reply(target: Target, error: aiosmtplib.SMTPResponseException) -> UpstreamDown | UpstreamRefused:
    message = _without_password(target, error.message)
    if not 200 <= error.code < 600:  # noqa: PLR2004 - RFC 5321 section 4.2
        return UpstreamDown(f"{target} does not answer as an SMTP server does: {quote(message)}")
    text = f"{target} answered {error.code} {quote(message)}"
    is_login = isinstance(error, aiosmtplib.SMTPAuthenticationError)
    if error.code == _CLOSING:
        return UpstreamFull(text)
    if error.code // 100 == 4:  # noqa: PLR2004 - 4yz: later
        return (LoginDeferred if is_login else UpstreamDown)(text)
    if not is_login:
        return UpstreamRefused(text)
    refusal = LoginRefused(f"{text} to the access token" if target.token else text)
    lines = [line.encode("utf-8", "surrogateescape").translate(HIDE) for line in message.split("\n")]
    refusal.reply = Reply(error.code, tuple(excerpt(line, LONGEST_LINE, b" ") for line in lines[:MOST_LINES]))
    return refusal


def _without_password(target: Target, text: str) -> str:
    """Returns a reply without the password as it was sent: some servers quote the line that they refuse."""
    if not target.password:
        return text
    user, password = (each if isinstance(each, bytes) else each.encode() for each in (target.user, target.password))
    forms = (b"\0%b\0%b" % (user, password), b"user=%b\1auth=Bearer %b\1\1" % (user, password), password)
    for sent in map(b64encode, forms):
        text = text.replace(sent.decode("ascii"), "<password>")
    return text


def _reason(error: BaseException) -> str:
    """Returns the innermost cause, such as "Connection refused", without the words that libraries added."""
    while error.__cause__:
        error = error.__cause__
    if isinstance(error, OSError) and error.errno and error.errno > 0:  # the resolver's numbers are negative
        return os.strerror(error.errno)
    return (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
