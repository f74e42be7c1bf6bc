"""The certificate of the relays of a run, and the ways in which clients connect."""

from __future__ import annotations

import enum
import itertools
import ssl
from typing import TYPE_CHECKING

from parts.certificates import EC_KEY, Authority
from parts.ports import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_BEGIN = "-----BEGIN CERTIFICATE-----"


class Security(enum.Enum):
    """The way in which a client connects."""

    NONE = enum.auto()
    STARTTLS = enum.auto()
    IMPLICIT = enum.auto()


class RelayTls:
    """The file with the certificate and the key of all relays of a run, signed by an authority that clients trust."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._authority = Authority(folder)
        self._numbers = itertools.count(1)
        self.trust = self._authority.trust()
        self.file = folder / "relay.pem"
        self.ports: list[int] = []
        """The ports of the relays for implicit TLS."""
        self.replace(self.issue().read_bytes())

    def issue(self, new_key: Sequence[str] = EC_KEY) -> Path:
        """Returns a PEM file with a new certificate and its key, which is of this kind."""
        return self._authority.issue(f"relay{next(self._numbers)}.example.test", new_key=new_key)

    def replace(self, content: bytes) -> None:
        """Replaces the file, as a program that renews certificates does."""
        fresh = self.file.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.replace(self.file)

    def settings_of_next_relay(self) -> dict[str, str]:
        """Returns the settings of a relay with the certificate and a port of its own for implicit TLS."""
        self.ports.append(free_port())
        return {"tls.certificate": str(self.file), "listen.tls_address": f"{HOST}:{self.ports[-1]}"}


def certificate_in(file: Path) -> bytes:
    """Returns the certificate in a PEM file, in DER."""
    return ssl.PEM_cert_to_DER_cert(_BEGIN + file.read_text().partition(_BEGIN)[2])
