"""The remedy for an upstream that refuses the relay, by its words and by what its port answers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from relay.settings.urls import Security

if TYPE_CHECKING:
    from collections.abc import Iterable

    from relay.check.port import PortAnswer
    from relay.core.reply import Reply
    from relay.settings.urls import SmtpUrl

CERTIFICATE = (
    (r"expired", "renew the certificate of that server (it has expired)"),
    (r"not yet valid", "correct the clock of this host or of that server: its certificate is not yet valid"),
    (
        r"(?i)(hostname|ip address) mismatch|not valid for",
        "write the name that the certificate contains in {url}, or give the server a certificate for this name",
    ),
    (
        r"(?i)self.signed|unable to get (local )?issuer|unable to verify|certificate verify failed",
        "name the file with its certificate, or with the authority that signed it, in {ca}",
    ),
    (
        r"(?i)PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL|NO_PROTOCOLS|unsupported protocol|protocol version",
        "update that server: it offers only a TLS version that is too old (1.2 or newer is needed)",
    ),
    (
        r"(?i)HANDSHAKE_FAILURE|handshake failure|NO_SHARED_CIPHER|INSUFFICIENT_SECURITY|DH_KEY_TOO_SMALL|EE_KEY",
        "let that server offer a modern cipher and key: the two sides have none in common",
    ),
)
"""Patterns of OpenSSL's messages. `{ca}` and `{url}` stand for the settings."""

# RFC 5321, RFC 3463 and the words of Postfix, Exim, Exchange and providers.
_REPLIES = (
    (r"(?i)starttls|encrypt|secure connection|\bTLS\b", "write smtp+starttls://HOST in {key}"),
    (
        r"^530|(?i:authenticat|\blog ?in\b|\bsasl\b)",
        "write USER@ before the host in {key} and the password in the file that upstream.password_file names",
    ),
    (r"(?i)\b(helo|ehlo)\b", "set upstream.helo_name to a full host name that this server accepts"),
    (
        r"(?i)client host|access denied|relay|not permitted|blocked|blacklist|block list|\bIP\b",
        "allow this host to send through that server (mynetworks in Postfix), or log in with USER@ in {key}",
    ),
    (r"(?i)gr[ae]y-?list", "try again in some minutes: the server greylists unknown senders; exempt this host there"),
)

_TLS_REMEDY = "repair the TLS settings of that server (its log says more), or use another scheme in {key}"
_SILENT_REMEDY = (
    "check that it is an SMTP server and why it does not answer, or correct {key}; "
    "if it greets late, raise upstream.greeting_timeout"
)


def certificate_remedy(text: str, url: str, ca: str) -> str:
    """Returns the remedy for a failed TLS handshake; empty if another cause is likelier.

    `url` and `ca` name the setting with the URL, and how to name a certificate authority.
    """
    return _matching(text, CERTIFICATE).format(url=url, ca=ca)


def reply_remedy(words: str, key: str) -> str:
    """Returns the remedy for a refused command, by the reply; empty if its words are not known."""
    return _matching(words, _REPLIES).format(key=key)


def concerns_address(words: str) -> bool:
    """Returns whether a refusal is about the address and not about this host (RFC 3463 section 3.2)."""
    return bool(re.match(r"[45]\d\d [45]\.1\.", words))


def other_reply_remedy(reply: Reply) -> str:
    """Returns the remedy for a refused command whose words are not known."""
    if reply.transient:
        return "try again in some minutes; if it stays, see the log of that server"
    return "see the log of that server, or try other addresses with --mail-from and --rcpt-to"


def connect_remedy(error: str, key: str, url: SmtpUrl, step: str, answer: PortAnswer) -> str:
    """Returns the remedy for a connection that failed at a step. `answer` is what the port itself answered."""
    other_scheme = _other_scheme(url, key, error, answer)
    if step == "name look-up":
        return f"correct the host name in {key}"
    if step == "TCP connection":
        return f"start it, or correct {key}"
    if step == "login" or error.startswith("upstream.token"):
        return _login_remedy(error, key, url)
    if step == "TLS":
        return other_scheme or certificate_remedy(error, key, "upstream.ca_file") or _TLS_REMEDY.format(key=key)
    if re.search(r" answered [45]\d\d ", error):
        return _greeting_remedy(error, key)
    return other_scheme or _SILENT_REMEDY.format(key=key)


def tls_expected(key: str, url: SmtpUrl) -> str:
    """Returns the remedy for a port on which TLS begins with the first byte."""
    return f"the port expects TLS from the first byte: write smtps://{url.address} in {key}"


def _other_scheme(url: SmtpUrl, key: str, error: str, answer: PortAnswer) -> str:
    """Returns the remedy if the scheme of the URL does not fit the port."""
    address = url.address
    if answer.tls and url.security is not Security.TLS:
        return tls_expected(key, url)
    if answer.said.startswith("220") and url.security is Security.TLS:
        return f"the port does not use TLS from the first byte: write smtp+starttls://{address} (or smtp://) in {key}"
    if url.security is Security.STARTTLS and "STARTTLS" in error and " answered " not in error:
        return f"the server does not offer STARTTLS: write smtps://{address.host} or, without TLS, smtp:// in {key}"
    return ""


def _login_remedy(error: str, key: str, url: SmtpUrl) -> str:
    if error.startswith("upstream.token"):
        return "see that it gives an access token to the relay's user"
    if "XOAUTH2" in error:
        return f"{key} names no server for access tokens: use a password, without upstream.token_file or token_command"
    if "to the access token" in error:
        return f"see that the token is that of the user in {key}, and allows to send mail"
    if " answered " in error:
        return f"correct the user in {key}, or the password in the file that upstream.password_file names"
    before_tls = ""
    if url.security is Security.NONE:
        before_tls = "write smtp+starttls:// or smtps:// if it offers login after TLS only, or "
    if "AUTH extension is not supported" in error:
        return f"{before_tls}remove USER@ from {key} if it needs no login"
    return f"{before_tls}allow PLAIN, LOGIN or CRAM-MD5 on that server, or remove USER@ from {key}"


def _greeting_remedy(error: str, key: str) -> str:
    if re.search(r"(?i)too many|connections|concurren", error):
        return "lower upstream.connections, or raise the limit of that server for this host"
    if re.search(r" answered 4", error):
        return f"try again in some minutes; if it stays, see the log of that server, or correct {key}"
    return reply_remedy(error, key) or "allow this host to connect to that server (its log says why it refuses)"


def _matching(text: str, remedies: Iterable[tuple[str, str]]) -> str:
    return next((remedy for pattern, remedy in remedies if re.search(pattern, text)), "")
