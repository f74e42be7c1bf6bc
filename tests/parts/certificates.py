"""Certificates for tests of TLS, which `openssl` makes and a private authority signs."""

from __future__ import annotations

import ssl
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KEY_USAGE_OF_CA = ("keyUsage=critical,keyCertSign,cRLSign",)
"""What Python 3.13 and newer require of an authority beside OpenSSL's own defaults (RFC 5280, section 4.2.1.3)."""

EC_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
RSA_KEY = ("-newkey", "rsa:2048", "-nodes")


class Authority:
    """Signs certificates. A peer that trusts them needs the file `certificate`."""

    def __init__(self, folder: Path, extensions: Sequence[str] = KEY_USAGE_OF_CA) -> None:
        self._folder = folder
        self.certificate = folder / "ca.pem"
        self._key = folder / "ca.key"
        subject = ("-subj", "/CN=Test Authority", "-days", "2")
        _openssl(
            *("req", "-x509", *EC_KEY, "-keyout", str(self._key), "-out", str(self.certificate), *subject),
            *(word for extension in extensions for word in ("-addext", extension)),
        )

    def issue(self, *names: str, new_key: Sequence[str] = EC_KEY) -> Path:
        """Returns a PEM file with a new key and its certificate for `localhost`, 127.0.0.1 and `names`."""
        stem = self._folder / (names[0] if names else "localhost")
        key, signed, both = stem.with_suffix(".key"), stem.with_suffix(".crt"), stem.with_suffix(".pem")
        alternatives = ",".join(["DNS:localhost", "IP:127.0.0.1", *(f"DNS:{name}" for name in names)])
        _openssl(
            *("req", "-x509", *new_key, "-keyout", str(key), "-out", str(signed), "-subj", f"/CN={stem.name}"),
            *("-days", "2", "-CA", str(self.certificate), "-CAkey", str(self._key)),
            *("-addext", f"subjectAltName={alternatives}", "-addext", "basicConstraints=critical,CA:FALSE"),
        )
        both.write_text(key.read_text() + signed.read_text())
        return both

    def issue_expired(self) -> Path:
        """Makes a certificate for `localhost` and 127.0.0.1 whose validity has ended, as `issue` does."""
        stem = self._folder / "expired"
        key, request, signed, both = (stem.with_suffix(end) for end in (".key", ".csr", ".crt", ".pem"))
        names = ("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        _openssl("req", "-new", *EC_KEY, "-keyout", str(key), "-out", str(request), "-subj", "/CN=expired", *names)
        _openssl(
            *("x509", "-req", "-in", str(request), "-out", str(signed), "-days", "-1", "-copy_extensions", "copy"),
            *("-CA", str(self.certificate), "-CAkey", str(self._key), "-CAcreateserial"),
        )
        both.write_text(key.read_text() + signed.read_text())
        return both

    def self_sign(self) -> Path:
        """Makes a certificate for `localhost` and 127.0.0.1 that no authority signed, in one file with its key."""
        stem = self._folder / "self-signed"
        key, signed, both = (stem.with_suffix(end) for end in (".key", ".crt", ".pem"))
        _openssl(
            *("req", "-x509", *EC_KEY, "-keyout", str(key), "-out", str(signed), "-subj", "/CN=localhost"),
            *("-days", "2", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        )
        both.write_text(key.read_text() + signed.read_text())
        return both

    def trust(self) -> ssl.SSLContext:
        """Returns a client's context that trusts this authority only."""
        return ssl.create_default_context(cafile=str(self.certificate))


def server_context(certificate: Path) -> ssl.SSLContext:
    """Returns a server's context for a file that `issue` made."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]} failed:\n{done.stderr}")
