"""TLS of clients: STARTTLS, implicit TLS, injection before the handshake, and the exchange of the certificate."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest
import uvloop
from parts import dialog_servers as servers
from parts.certificates import RSA_KEY, Authority
from parts.client import GONE, RawClient
from parts.peer import ScriptedPeer
from parts.phpmailer import send_as_avideo
from parts.waiting import until

from relay.check.certificate import check_certificate
from relay.core.session_refusal import SessionRefusal
from relay.settings import Settings
from relay.smtp.session_table import SessionLimits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAIL = b"Subject: x\r\n\r\nhello\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def certificate(authority: Authority, tmp_path: Path) -> Path:
    file = tmp_path / "relay.pem"
    file.write_bytes(authority.issue().read_bytes())
    return file


def context(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate))


def refused(relay: servers.Relay, refusal: SessionRefusal) -> int:
    return int(relay.service.metrics.sessions_refused[refusal]._value.get())


async def test_starttls_forgets_what_was_said_before(
    peer: ScriptedPeer, authority: Authority, certificate: Path
) -> None:
    async with servers.relay(peer.url, {"tls.certificate": str(certificate), "upstream.received_field": True}) as relay:
        async with await RawClient.open(relay.port) as client:
            assert b"STARTTLS" in (await client.command(b"EHLO me")).text
            assert (await client.start_tls(context(authority))).code == 220
            assert (await client.command(b"MAIL FROM:<a@example.test>")).code == 503
            assert b"STARTTLS" not in (await client.command(b"EHLO me")).text
            assert (await client.command(b"STARTTLS")).code == 503
            await client.begin(b"a@example.test", b"b@example.test")
            assert (await client.content(MAIL)).code == 250
        assert b"with ESMTPS" in peer.accepted[0].content


async def test_input_behind_starttls_ends_the_connection(peer: ScriptedPeer, certificate: Path) -> None:
    async with servers.relay(peer.url, {"tls.certificate": str(certificate)}) as relay:
        async with await RawClient.open(relay.port) as client:
            await client.command(b"EHLO me")
            await client.send_raw(b"STARTTLS\r\nRSET\r\n")
            assert (await client.read_reply()).code == 421
            assert await client.read_reply() == GONE
        assert refused(relay, SessionRefusal.INJECTION) == 1


async def test_plain_text_in_place_of_a_handshake_is_never_executed(peer: ScriptedPeer, certificate: Path) -> None:
    async with servers.relay(peer.url, {"tls.certificate": str(certificate)}) as relay:
        async with await RawClient.open(relay.port) as client:
            await client.command(b"EHLO me")
            assert (await client.command(b"STARTTLS")).code == 220
            await client.send_raw(b"MAIL FROM:<a@example.test>\r\nRCPT TO:<b@example.test>\r\n")
            await until(lambda: relay.service.listener.sessions == 0, "the place is free")
        assert refused(relay, SessionRefusal.HANDSHAKE) == 1


async def stall(certificate: Path, implicit: bool) -> None:
    settings = {"tls.certificate": str(certificate), "listen.tls_address": "127.0.0.1:0"}
    async with ScriptedPeer() as peer, servers.relay(peer.url, settings) as relay:
        table = relay.service.listener.table
        table.limits = SessionLimits(table.limits.networks, 0, 10, 60.0, handshake=0.2)
        port = int(relay.service.tls_address.rpartition(":")[2]) if implicit else relay.port
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if not implicit:
            writer.write(b"STARTTLS\r\n")
        await until(lambda: refused(relay, SessionRefusal.HANDSHAKE) == 1, "the refusal is counted")
        await until(lambda: relay.service.listener.sessions == 0, "the place is free")
        writer.close()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("implicit", [False, True])
def test_a_handshake_that_stalls_frees_its_place(
    certificate: Path, implicit: bool, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(stall(certificate, implicit))


async def test_implicit_tls_and_a_new_certificate(peer: ScriptedPeer, authority: Authority, certificate: Path) -> None:
    settings = {"tls.certificate": str(certificate), "listen.tls_address": "127.0.0.1:0"}
    async with servers.relay(peer.url, settings) as relay:
        port = int(relay.service.tls_address.rpartition(":")[2])

        async def names() -> str:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context(authority), server_hostname="localhost"
            )
            assert (await reader.readline()).startswith(b"220")
            found = str(writer.get_extra_info("peercert")["subjectAltName"])
            writer.close()
            return found

        assert "new.example" not in await names()
        # Of another type of key: OpenSSL would keep both certificates in one context.
        await asyncio.to_thread(shutil.copy, authority.issue("new.example", new_key=RSA_KEY), certificate)
        assert await relay.reload()
        assert "new.example" in await names()
        await asyncio.to_thread(certificate.write_text, "not a certificate")
        assert not await relay.reload()
        assert "new.example" in await names()


async def test_openssl_sends_with_both(peer: ScriptedPeer, authority: Authority, certificate: Path) -> None:
    settings = {"tls.certificate": str(certificate), "listen.tls_address": "127.0.0.1:0"}
    async with servers.relay(peer.url, settings) as relay:
        for extra in (
            ["-connect", f"127.0.0.1:{relay.port}", "-starttls", "smtp"],
            ["-connect", relay.service.tls_address],
        ):
            done = await asyncio.to_thread(
                subprocess.run,
                [
                    "openssl",
                    "s_client",
                    "-quiet",
                    "-crlf",
                    "-verify_return_error",
                    "-CAfile",
                    authority.certificate,
                    *extra,
                ],
                input=b"EHLO me\nQUIT\n",
                capture_output=True,
                check=False,
                timeout=30,
            )
            assert b"221 " in done.stdout


@pytest.mark.parametrize("case", ["good", "expired", "missing", "other key"])
def test_check_names_what_is_wrong(authority: Authority, certificate: Path, tmp_path: Path, case: str) -> None:
    other = tmp_path / "other.pem"
    tls = {"certificate": str(certificate)}
    if case == "expired":
        tls["certificate"] = str(authority.issue_expired())
    elif case == "missing":
        tls["certificate"] = str(other)
    elif case == "other key":
        other.write_bytes(authority.issue("other.example").read_bytes())
        tls["key"] = str(other)
    (finding,) = check_certificate(Settings.model_validate({"tls": tls}))
    assert finding.fails == (case != "good"), finding
    assert case != "expired" or "expired" in finding.text


def test_check_names_what_avideo_needs_without_a_certificate() -> None:
    (finding,) = check_certificate(Settings())
    assert "SMTP secure" in finding.text
    assert not finding.fails


@pytest.mark.parametrize("has_certificate", [False, True])
@pytest.mark.parametrize("secure", ["", "tls", "ssl"])
async def test_phpmailer_sends_with_each_setting_of_avideo(
    peer: ScriptedPeer, certificate: Path, secure: str, has_certificate: bool
) -> None:
    tls = {"tls.certificate": str(certificate), "listen.tls_address": "127.0.0.1:0"} if has_certificate else {}
    async with servers.relay(peer.url, {"upstream.received_field": True, **tls}) as relay:
        is_implicit = secure == "ssl" and has_certificate
        port = int(relay.service.tls_address.rpartition(":")[2]) if is_implicit else relay.port
        (chunk,) = await send_as_avideo(port, ["b@example.test"], "x", "<p>hello</p>", secure=secure)
        assert chunk.ok == (has_certificate or not secure), chunk.error
        if chunk.ok:
            assert (b"with ESMTPS" in peer.accepted[0].content) == has_certificate
