"""The test of `relay check` for the certificate that clients see."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

from relay.check.files import trial_path
from relay.check.finding import Finding
from relay.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from relay.settings import Settings


def check_certificate(settings: Settings) -> Iterator[Finding]:
    """Tests whether certificate and key can be read, belong together, and are valid now."""
    from relay.service.certificates import build_certificate

    key, path = "tls.certificate", settings.tls.certificate
    if settings.tls.self_signed:
        yield _check_self_signed()
        return
    if path is None:
        yield Finding(
            key,
            'none, so clients send without TLS. In AVideo leave "SMTP secure" empty: "tls" and "ssl" need a '
            'certificate ("SMTP Error: Could not connect to SMTP host"). tls.self_signed = true makes one',
        )
        return
    try:
        certificate = build_certificate(settings)
        if certificate is not None:
            _shake_hands(certificate.context, path)
    except SettingsError as error:
        problem, _, remedy = str(error).removeprefix(f"{key} ").rpartition("; ")
        yield Finding(key, problem, remedy)
    except ssl.SSLCertVerificationError as error:
        yield Finding(key, f"{path}: {error.verify_message}", "name a certificate that is valid now")
    except OSError as error:
        yield Finding(key, f"{path}: {error.strerror or error}", "name a certificate that clients can use")
    else:
        yield Finding(key, f"{path} can be used")


def _check_self_signed() -> Finding:
    """Tests the certificate that the relay makes for itself, or whether it could make one. Does not make it."""
    from relay.service.certificates import build_self_signed
    from relay.settings.places import self_signed_file
    from relay.smtp.certificate import ServerCertificate

    key, path = "tls.self_signed", self_signed_file(os.environ)
    try:
        if path is not None and path.exists():
            _shake_hands(ServerCertificate(path, path).context, path)
            return Finding(key, f"{path} can be used")
        if path is None:
            build_self_signed(path)
        else:
            with trial_path(path) as trial:
                build_self_signed(trial)
    except SettingsError as error:
        problem, _, remedy = str(error).removeprefix(key).lstrip(" :").rpartition("; ")
        return Finding(key, problem, remedy)
    except OSError as error:
        return Finding(key, f"{path}: {error.strerror or error}", "remove the file, and the relay makes a new one")
    return Finding(key, f"{path} is not there yet and can be made")


def _shake_hands(context: ssl.SSLContext, certificate: Path) -> None:
    """Does a handshake in memory with a client that trusts this certificate alone. Raises `ssl.SSLError`."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trusting.load_verify_locations(certificate)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
