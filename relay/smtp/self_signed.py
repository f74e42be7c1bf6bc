"""A certificate that the relay makes for itself, for clients that use TLS but do not verify."""

from __future__ import annotations

import datetime as dt
import ipaddress
import secrets
from typing import TYPE_CHECKING

from relay.runtime.files import remove, write_new
from relay.smtp.certificate import ServerCertificate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryptography import x509

VALID = dt.timedelta(days=365)
RENEWED_BEFORE_END = dt.timedelta(days=30)
_CLOCK_DIFFERENCE = dt.timedelta(days=1)
"""By how much a client's clock may be behind."""
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


class SelfSignedCertificate(ServerCertificate):
    """A certificate and its key in one PEM file of mode 600, for `hostname` and the loopback names.

    A missing, unreadable or old file is replaced when the certificate is loaded. Raises `OSError`. `now` returns the
    time of day, in UTC.
    """

    def __init__(self, file: Path, hostname: str, now: Callable[[], dt.datetime]) -> None:
        self._hostname = hostname
        self._now = now
        super().__init__(file, file)

    def _prepare(self) -> None:
        if not self.is_due():
            return
        self.certificate.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self.certificate.with_name(f".{self.certificate.name}.{secrets.token_hex(8)}")
        write_new(new, make_certificate((self._hostname, *_LOCAL_NAMES), self._now()))
        try:
            new.replace(self.certificate)
        except OSError:
            remove(new)
            raise

    def is_due(self) -> bool:
        """Returns whether a new certificate is to be made. Raises `OSError` if the file is there and cannot be read."""
        from cryptography import x509

        try:
            present = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        except (FileNotFoundError, ValueError):
            return True
        return not present.not_valid_before_utc <= self._now() < present.not_valid_after_utc - RENEWED_BEFORE_END


def make_certificate(names: tuple[str, ...], now: dt.datetime) -> bytes:
    """Returns a new key (ECDSA, P-256) and its certificate in PEM. `names` are host names and IP addresses."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "smtp-dedup-relay")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_DIFFERENCE)
        .not_valid_after(now + VALID)
        .add_extension(
            x509.SubjectAlternativeName([_general_name(each) for each in dict.fromkeys(names)]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return x509.DNSName(name)
