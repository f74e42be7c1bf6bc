"""The certificate of the SMTP listeners. It can be exchanged while connections are open."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class ServerCertificate:
    """A certificate chain and its key in PEM files, and the TLS context that uses them.

    Raises `OSError` if a file cannot be read, or if the two do not belong together (`ssl.SSLError` is an `OSError`).
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate = certificate
        self.key = key
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load(self.context)

    def reload(self) -> None:
        """Uses the present content of the files for new handshakes. Raises `OSError` and keeps the old content."""
        # OpenSSL replaces certificate and key one after the other: a pair that does not match would replace half.
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self._load(self.context)

    def _load(self, context: ssl.SSLContext) -> None:
        # Without a password function, OpenSSL would ask on the terminal for the password of an encrypted key.
        context.load_cert_chain(self.certificate, self.key, password=lambda: "")
