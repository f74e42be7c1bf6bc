"""The certificate of the listeners: a file of the admin's, or one that the relay makes and renews itself."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING

from relay.core.errors import SettingsError
from relay.events.service import CERTIFICATE_NOT_RENEWED, CERTIFICATE_RENEWED
from relay.runtime.hostname import hostname
from relay.settings.places import self_signed_file
from relay.smtp.certificate import ServerCertificate
from relay.smtp.self_signed import SelfSignedCertificate

if TYPE_CHECKING:
    from pathlib import Path

    from relay.settings import Settings

RENEW_EVERY = 6 * 3600.0
"""Seconds between two looks at the end of a self-signed certificate."""


def build_certificate(settings: Settings) -> ServerCertificate | None:
    """Returns the certificate of the listeners, or None. Raises `SettingsError` if it cannot be used."""
    tls = settings.tls
    if tls.self_signed:
        return build_self_signed(self_signed_file(os.environ))
    if tls.certificate is None:
        return None
    key = tls.key or tls.certificate
    try:
        return ServerCertificate(tls.certificate, key)
    except OSError as error:
        raise SettingsError(
            f"tls.certificate {tls.certificate} with the key {key}: {error.strerror or error}; name a PEM file with "
            "the chain and its key, readable for the relay's user"
        ) from error


def build_self_signed(file: Path | None) -> SelfSignedCertificate:
    """Returns the certificate that the relay makes for itself. Raises `SettingsError` if the file cannot be written."""
    remedy = "run the relay as a user who may write there, or name a certificate in tls.certificate"
    if file is None:
        raise SettingsError(f"tls.self_signed: there is no state folder (STATE_DIRECTORY, HOME); {remedy}")
    try:
        return SelfSignedCertificate(file, hostname(), lambda: dt.datetime.now(dt.UTC))
    except OSError as error:
        raise SettingsError(f"tls.self_signed {file}: {error.strerror or error}; {remedy}") from error


def renew(certificate: ServerCertificate) -> bool:
    """Replaces a self-signed certificate that expires soon. Returns whether it did; a failure is logged."""
    if not _is_due(certificate):
        return False
    try:
        certificate.reload()
    except OSError as error:
        CERTIFICATE_NOT_RENEWED.log(error=error)
        return False
    CERTIFICATE_RENEWED.log()
    return True


def _is_due(certificate: ServerCertificate) -> bool:
    try:
        return certificate.is_due()
    except OSError:  # loading it will report this
        return True
