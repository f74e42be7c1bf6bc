"""Dialogs over TLS: versions, logins, long lines, injection, and clients that do not belong on a TLS port."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from parts import dialog_servers as servers
from parts.certificates import Authority
from parts.client import GONE, RawClient
from parts.ports import HOST
from parts.waiting import until

from relay.core.session_refusal import SessionRefusal
from relay.logins.passwords import hash_password

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from parts.peer import ScriptedPeer

LOGIN = b"AUTH PLAIN " + b64encode(b"\0anna\0s3cret")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Path:
    return authority.issue()


@asynccontextmanager
async def tls_relay(peer: ScriptedPeer, certificate: Path, **more: object) -> AsyncIterator[servers.Relay]:
    settings = {"tls.certificate": str(certificate), "listen.tls_address": f"{HOST}:0", **more}
    async with servers.relay(peer.url, settings) as relay:
        yield relay


def tls_port(relay: servers.Relay) -> int:
    return int(relay.service.tls_address.rpartition(":")[2])


def refusals(relay: servers.Relay) -> dict[str, int]:
    counters = relay.service.metrics.sessions_refused
    return {refusal.reason: int(each._value.get()) for refusal, each in counters.items() if each._value.get()}


@pytest.mark.parametrize(
    ("version", "is_accepted"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_tls_1_2_is_the_oldest_version(
    peer: ScriptedPeer, certificate: Path, version: ssl.TLSVersion, is_accepted: bool
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("DEFAULT@SECLEVEL=0")  # OpenSSL refuses old versions itself on a higher level
    context.minimum_version = context.maximum_version = version
    async with tls_relay(peer, certificate) as relay:
        try:
            async with await RawClient.open(tls_port(relay), tls=context) as client:
                assert client.greeting.code == 220
                assert is_accepted
        except OSError:  # ssl.SSLError, or the end of the connection
            assert not is_accepted
            await until(lambda: refusals(relay) == {SessionRefusal.HANDSHAKE.reason: 1}, "the refusal is counted")


async def test_starttls_ends_a_login(
    peer: ScriptedPeer, authority: Authority, certificate: Path, tmp_path: Path
) -> None:
    users = tmp_path / "users"
    users.write_text(f"anna:{hash_password(b's3cret')}:\n")
    more = {"auth.mode": "file", "auth.users_file": str(users), "upstream.received_field": True}
    async with tls_relay(peer, certificate, **more) as relay, await RawClient.open(relay.port) as client:
        await client.command(b"EHLO me")
        assert (await client.command(LOGIN)).code == 235
        assert (await client.command(LOGIN)).code == 503
        assert (await client.start_tls(authority.trust())).code == 220
        assert b"AUTH PLAIN LOGIN" in (await client.command(b"EHLO me")).text
        await client.begin(b"a@example.test", b"b@example.test")
        assert (await client.content(b"Subject: no login\r\n\r\nx\r\n")).code == 250
        assert (await client.command(LOGIN)).code == 235
        await client.begin(b"a@example.test", b"b@example.test")
        assert (await client.content(b"Subject: login\r\n\r\nx\r\n")).code == 250
    assert [b"with ESMTPS id" in mail.content for mail in peer.accepted] == [True, False]
    assert b"with ESMTPSA id" in peer.accepted[1].content


async def test_nothing_is_sent_in_tls_before_the_client_speaks(
    peer: ScriptedPeer, authority: Authority, certificate: Path
) -> None:
    """A reply to a command before the handshake would be read as the reply to one after it."""
    async with tls_relay(peer, certificate) as relay, await RawClient.open(relay.port) as client:
        await client.send_raw(b"EHLO me\r\nNOOP\r\nSTARTTLS\r\n")
        assert [(await client.read_reply()).code for _ in range(3)] == [250, 250, 220]
        await client.handshake(authority.trust())
        assert (await client.command(b"NOOP only-reply")).code == 250
        assert (await client.command(b"VRFY x")).code == 252


@pytest.mark.parametrize("tail", [b"RSET\r\n", b"EHLO evil\r\n", b"\r\n", b"M"])
async def test_input_behind_starttls_is_never_executed(peer: ScriptedPeer, certificate: Path, tail: bytes) -> None:
    async with tls_relay(peer, certificate) as relay:
        async with await RawClient.open(relay.port) as client:
            await client.command(b"EHLO me")
            await client.send_raw(b"STARTTLS\r\n" + tail)
            assert (await client.read_reply()).code == 421
            assert await client.read_reply() == GONE
        assert refusals(relay) == {SessionRefusal.INJECTION.reason: 1}


async def test_a_line_of_5_mb_passes_unchanged(peer: ScriptedPeer, authority: Authority, certificate: Path) -> None:
    content = b"Subject: long\r\n\r\n" + b"x" * (5 * 1024 * 1024) + b"\r\n"
    async with (
        tls_relay(peer, certificate) as relay,
        await RawClient.open(tls_port(relay), tls=authority.trust()) as client,
    ):
        await client.command(b"EHLO me")
        await client.begin(b"a@example.test", b"b@example.test")
        assert (await client.content(content)).code == 250
    assert peer.accepted[0].content == content


async def test_a_health_check_is_no_failure(peer: ScriptedPeer, certificate: Path) -> None:
    async with tls_relay(peer, certificate) as relay:
        for _ in range(3):
            _, writer = await asyncio.open_connection(HOST, tls_port(relay))
            await until(lambda: relay.service.listener.sessions == 1, "the connection is accepted")
            writer.close()
            await until(lambda: relay.service.listener.sessions == 0, "the connection has ended")
        assert refusals(relay) == {}


@pytest.mark.parametrize("said", [b"EHLO me\r\n", b"GET / HTTP/1.1\r\n\r\n"])
async def test_plain_text_on_the_tls_port_is_called_so(peer: ScriptedPeer, certificate: Path, said: bytes) -> None:
    async with (
        tls_relay(peer, certificate) as relay,
        await RawClient.open(tls_port(relay), greeted=False) as client,
    ):
        await client.send_raw(said)
        await until(lambda: refusals(relay) == {SessionRefusal.PLAIN_TEXT.reason: 1}, "the refusal is counted")


async def test_a_refused_client_of_the_tls_port_receives_no_plain_text(peer: ScriptedPeer, certificate: Path) -> None:
    async with tls_relay(peer, certificate, **{"listen.networks": ["192.0.2.0/24"]}) as relay:
        async with await RawClient.open(relay.port) as client:
            assert client.greeting.code == 554
        reader, writer = await asyncio.open_connection(HOST, tls_port(relay))
        assert await reader.read() == b""
        writer.close()
        assert refusals(relay) == {SessionRefusal.NETWORK.reason: 2}
