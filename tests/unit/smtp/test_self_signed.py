"""The certificate that the relay makes for itself."""

from __future__ import annotations

import datetime as dt
import ssl
import stat
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from parts.client import RawClient
from parts.phpmailer import send_as_avideo
from parts.ports import HOST, free_port
from parts.relay_process import Finished, RelayProcess, run_relay

from relay.settings import Settings
from relay.smtp.self_signed import RENEWED_BEFORE_END, VALID, SelfSignedCertificate

if TYPE_CHECKING:
    from pathlib import Path

    from parts.peer import ScriptedPeer

START = dt.datetime(2026, 11, 28, 12, tzinfo=dt.UTC)


class Clock:
    """A time of day that the test sets."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> dt.datetime:
        return self.now


def read(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


def test_it_is_made_once_and_only_its_user_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "state" / "self-signed.pem"
    first = SelfSignedCertificate(file, "mail.example.test", Clock())
    made = file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not first.is_due()
    SelfSignedCertificate(file, "mail.example.test", Clock())
    assert file.read_bytes() == made
    assert [path.name for path in file.parent.iterdir()] == ["self-signed.pem"]


def test_its_names_are_those_of_this_host(tmp_path: Path) -> None:
    file = tmp_path / "self-signed.pem"
    SelfSignedCertificate(file, "mail.example.test", Clock())
    names = read(file).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mail.example.test", "localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]


def test_it_is_renewed_before_it_expires(tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "self-signed.pem"
    certificate = SelfSignedCertificate(file, "localhost", clock)
    context, serial = certificate.context, read(file).serial_number
    clock.now = START + VALID - RENEWED_BEFORE_END - dt.timedelta(seconds=1)
    assert not certificate.is_due()
    clock.now += dt.timedelta(seconds=1)
    assert certificate.is_due()
    certificate.reload()
    assert read(file).serial_number != serial
    assert read(file).not_valid_after_utc == clock.now + VALID
    assert certificate.context is not context
    assert not certificate.is_due()


@pytest.mark.parametrize("content", [b"", b"no certificate\n", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_damaged_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "self-signed.pem"
    file.write_bytes(content)
    SelfSignedCertificate(file, "localhost", Clock())
    assert read(file).subject.rfc4514_string() == "CN=smtp-dedup-relay"


def test_a_certificate_from_the_future_is_replaced(tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "self-signed.pem"
    SelfSignedCertificate(file, "localhost", clock)
    clock.now = START - dt.timedelta(days=2)
    SelfSignedCertificate(file, "localhost", clock)
    assert read(file).not_valid_before_utc < clock.now


@pytest.mark.parametrize("name", ["certificate", "key"])
def test_there_is_only_one_certificate(name: str) -> None:
    with pytest.raises(ValueError, match=rf"tls.self_signed is true, and tls.{name} is set too; remove one of them"):
        Settings.model_validate({"tls": {"self_signed": True, name: "/etc/ssl/relay.pem"}})


async def test_avideo_can_send_with_every_security(peer: ScriptedPeer) -> None:
    tls_port = free_port()
    settings = {"tls.self_signed": "true", "listen.tls_address": f"{HOST}:{tls_port}"}
    async with RelayProcess(upstream=peer.url, store="memory:", settings=settings) as relay:
        for secure, port in ("", relay.port), ("tls", relay.port), ("ssl", tls_port):
            (chunk,) = await send_as_avideo(port, ["a@example.test"], f"with {secure}", "<p>x</p>", secure=secure)
            assert chunk.ok, chunk.error
        file = relay.state / "self-signed.pem"
        async with await RawClient.open(relay.port) as client:
            await client.command(b"EHLO me")
            trusting = ssl.create_default_context(cafile=str(file))
            assert (await client.start_tls(trusting)).code == 220
    assert len(peer.accepted) == 3
    assert all(b"with ESMTPS id" in message.content for message in peer.accepted)


async def test_check_says_whether_it_can_be_made(tmp_path: Path) -> None:
    async def check() -> Finished:
        flags = (
            "--listen",
            f"{HOST}:{free_port()}",
            "--http",
            "",
            "--store",
            "memory:",
            "--set",
            "tls.self_signed=true",
        )
        return await run_relay("check", *flags, environment={"STATE_DIRECTORY": str(tmp_path)})

    file = tmp_path / "self-signed.pem"
    assert f"{file} is not there yet and can be made" in (await check()).stdout
    assert not file.exists(), "check leaves nothing behind"
    SelfSignedCertificate(file, "localhost", lambda: dt.datetime.now(dt.UTC))
    assert f"{file} can be used" in (await check()).stdout
    file.write_bytes(b"damaged")
    result = await check()
    assert "remove the file, and the relay makes a new one" in result.stdout + result.stderr
    assert result.status == 1
