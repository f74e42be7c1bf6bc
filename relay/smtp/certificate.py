"""The certificate of the SMTP listeners. It can be exchanged while connections are open."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from relay.core.session_refusal import SessionRefusal

if TYPE_CHECKING:
    from pathlib import Path

_PLAIN_TEXT = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "PACKET_LENGTH_TOO_LONG"})
"""OpenSSL's reasons for input that is no TLS record."""


def handshake_refusal(error: OSError) -> SessionRefusal | None:
    """Returns how a failed handshake counts. None: the client left, as a health check by TCP connect does."""
    if isinstance(error, ConnectionResetError):
        return None
    reason = error.reason if isinstance(error, ssl.SSLError) else ""
    return SessionRefusal.PLAIN_TEXT if reason in _PLAIN_TEXT else SessionRefusal.HANDSHAKE


class ServerCertificate:
    """A certificate chain and its key in PEM files, and the TLS context that uses them.

    Raises `OSError` if a file cannot be read, or if the two do not belong together (`ssl.SSLError` is an `OSError`).
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate = certificate
        self.key = key
        self.context = self._load()

    def reload(self) -> None:
        """Makes a new `context` from the present content of the files. Raises `OSError` and keeps the old one."""
        # Not into the old context: OpenSSL keeps one certificate for each type of key. After a change from ECDSA to
        # RSA, clients would still see the old certificate.
        self.context = self._load()

    def _load(self) -> ssl.SSLContext:
        self._prepare()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Without a password function, OpenSSL would ask on the terminal for the password of an encrypted key.
        context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        return context

    def is_due(self) -> bool:
        """Returns whether the certificate is to be replaced by the relay itself. Raises `OSError`."""
        return False

    def _prepare(self) -> None:
        """Does what the files need before they are read."""
