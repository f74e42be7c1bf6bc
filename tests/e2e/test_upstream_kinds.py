"""Every kind of upstream: plain, STARTTLS, implicit TLS, with AUTH, and the Maildir for trials."""

from __future__ import annotations

import asyncio
import email
import gc
import mailbox
import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from parts.avideo import AGAIN, notification
from parts.certificates import server_context
from parts.client import Answer, RawClient, send
from parts.faults import Step, say
from parts.logged import lines, wait_logged, wait_messages, wait_upstream
from parts.peer import ScriptedPeer

from relay.core.content import Content
from relay.core.envelope import Envelope
from relay.upstream.maildir import MaildirUpstream

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartRelay
    from parts.certificates import Authority
    from parts.relay_process import RelayProcess

SENDER = b"sender@example.test"
USER = b"user@example.test"
NAME, PASSWORD = "relay", "pass word%ü"
UNREACHABLE = Answer(451, (b"4.4.1 The upstream mail server cannot be reached, try again later",))
BASIC = b"250-peer.example.test\r\n250-PIPELINING\r\n"
FAST = {"upstream.patience": "0s"}
"""Settings without patience, so that a failure is reported at once."""


@pytest.fixture(scope="session")
def server_tls(authority: Authority) -> ssl.SSLContext:
    return server_context(authority.issue())


def login(url: str) -> str:
    return url.replace("://", f"://{NAME}@")


async def delivers(relay: RelayProcess, peer: ScriptedPeer) -> bool:
    """Sends a message and its repeat, and returns whether one copy arrived unchanged."""
    mails = [notification(), notification(sending=AGAIN)]
    sent = [await send(relay.port, SENDER, [USER], mail) for mail in mails]
    return all(one.ok for one in sent) and [m.content.endswith(mails[0]) for m in peer.accepted] == [True]


async def refused(relay: RelayProcess, *because: str) -> bool:
    """Returns whether the replies are 451 4.4.1. Fails unless the log names each reason in `because`."""
    sent = await send(relay.port, SENDER, [USER], notification())
    for reason in because:
        await wait_logged(relay, reason)
    told = [f"{line['event']}: {line.get('error')}" for line in lines(relay) if line["level"] in ("warning", "error")]
    assert all(any(reason in each for each in told) for reason in because)
    return sent.rcpt == (UNREACHABLE,) and sent.final == UNREACHABLE


# TLS


async def test_plain_smtp_never_starts_tls(start_relay: StartRelay, server_tls: ssl.SSLContext) -> None:
    async with ScriptedPeer(starttls=server_tls) as peer:
        relay = await start_relay(upstream=f"smtp://127.0.0.1:{peer.port}")
        assert await delivers(relay, peer)
        assert not any(session.encrypted for session in peer.sessions)


@pytest.mark.parametrize("kind", ["starttls", "tls"])
async def test_tls_with_a_server_whose_certificate_is_trusted(
    start_relay: StartRelay, server_tls: ssl.SSLContext, authority: Authority, kind: str
) -> None:
    async with ScriptedPeer(**{kind: server_tls}) as peer:
        relay = await start_relay(upstream=peer.url, settings={"upstream.ca_file": authority.certificate})
        assert await delivers(relay, peer)
        assert all(session.encrypted for session in peer.sessions)


@pytest.mark.parametrize("kind", ["starttls", "tls"])
async def test_an_untrusted_certificate_gets_no_mail_unless_verification_is_off(
    start_relay: StartRelay, server_tls: ssl.SSLContext, kind: str
) -> None:
    async with ScriptedPeer(**{kind: server_tls}) as peer:
        careful = await start_relay(upstream=peer.url)  # with the default patience: a retry would change nothing
        assert await refused(careful, f"the certificate of 127.0.0.1:{peer.port} is not trusted: ")
        assert peer.commands(b"MAIL") == []
        careless = await start_relay(upstream=peer.url, settings={"upstream.verify_certificate": "false"})
        assert await delivers(careless, peer)
        assert "upstream.verify_certificate is false: an attacker on the network" in careless.stderr()


async def test_a_certificate_for_another_name_gets_no_mail(
    start_relay: StartRelay, server_tls: ssl.SSLContext, authority: Authority
) -> None:
    async with ScriptedPeer(tls=server_tls) as peer:
        elsewhere = await asyncio.start_server(peer._connected, "127.0.0.2", peer.port, ssl=server_tls)
        async with elsewhere:
            trust = {"upstream.ca_file": authority.certificate}
            relay = await start_relay(upstream=f"smtps://127.0.0.2:{peer.port}", settings=trust)
            assert await refused(relay, f"the certificate of 127.0.0.2:{peer.port} is not trusted: IP address mismatch")


async def test_starttls_that_is_not_offered_gets_no_mail(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=f"smtp+starttls://127.0.0.1:{peer.port}")
    assert await refused(relay, f"127.0.0.1:{peer.port} does not offer what the settings ask for: ", "STARTTLS")
    assert peer.commands(b"MAIL") == []


async def test_implicit_tls_with_a_plain_server_gets_no_mail(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=f"smtps://127.0.0.1:{peer.port}", settings=FAST)
    assert await refused(relay, f"TLS with 127.0.0.1:{peer.port} failed: ")


# Login


@pytest.mark.parametrize(("mechanism", "source"), [(b"PLAIN", "file"), (b"LOGIN", "environment")])
async def test_a_login_with_a_password_from(
    start_relay: StartRelay, tmp_path: Path, mechanism: bytes, source: str
) -> None:
    async with ScriptedPeer(credentials=(NAME.encode(), PASSWORD.encode())) as peer:
        peer.on(Step.EHLO, say(BASIC + b"250 AUTH " + mechanism), times=None)
        if source == "file":
            (tmp_path / "password").write_text(f"{PASSWORD}\nnot this line\n")
            relay = await start_relay(
                upstream=login(peer.url), settings={"upstream.password_file": tmp_path / "password"}
            )
        else:
            relay = await start_relay(upstream=login(peer.url), environment={"RELAY_UPSTREAM__PASSWORD": PASSWORD})
        assert await delivers(relay, peer)
        assert {session.authenticated for session in peer.sessions} == {True}
        assert peer.commands(b"AUTH")[0].startswith(b"AUTH " + mechanism)
        assert PASSWORD not in relay.stderr()


async def test_a_wrong_password_gets_no_mail_and_is_not_shown(start_relay: StartRelay) -> None:
    async with ScriptedPeer(credentials=(NAME.encode(), b"another")) as peer:
        relay = await start_relay(upstream=login(peer.url), environment={"RELAY_UPSTREAM__PASSWORD": PASSWORD})
        assert await refused(relay, f"127.0.0.1:{peer.port} answered 535 5.7.8 Wrong name or password")
        assert PASSWORD not in relay.stderr()


async def test_a_login_that_is_not_offered_gets_no_mail(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=login(peer.url), environment={"RELAY_UPSTREAM__PASSWORD": PASSWORD})
    assert await refused(relay, f"127.0.0.1:{peer.port} does not offer what the settings ask for: ", "AUTH")


async def test_a_missing_login_is_reported_with_the_upstreams_text(start_relay: StartRelay) -> None:
    async with ScriptedPeer(credentials=(b"a", b"b")) as peer:
        relay = await start_relay(upstream=peer.url)
        sent = await send(relay.port, SENDER, [USER], notification())
        assert sent.rcpt == (Answer(530, (b"5.7.0 Authentication required",)),)


# What is offered to clients


@pytest.mark.parametrize(
    ("theirs", "ours", "offered"),
    [
        ([b"SIZE 10240000"], "50MiB", b"SIZE 10240000"),
        ([b"SIZE 10240000"], "1MiB", b"SIZE 1048576"),
        ([b"SIZE 0", b"SMTPUTF8", b"8BITMIME", b"ENHANCEDSTATUSCODES"], "1MiB", b"SIZE 1048576"),
    ],
)
async def test_the_smaller_size_is_offered_and_extensions_only_with_the_upstream(
    start_relay: StartRelay, theirs: list[bytes], ours: str, offered: bytes
) -> None:
    async with ScriptedPeer(extensions=theirs) as peer:
        relay = await start_relay(upstream=peer.url, settings={"limits.message_size": ours})
        await wait_upstream(relay, "up")
        async with await RawClient.open(relay.port) as client:
            extensions = (await client.command(b"EHLO me")).lines[1:]
    assert [line for line in extensions if line.startswith(b"SIZE")] == [offered]
    assert (b"SMTPUTF8" in extensions) == (b"SMTPUTF8" in theirs)
    assert (b"8BITMIME" in extensions) == (b"8BITMIME" in theirs)
    assert b"PIPELINING" in extensions
    assert (b"ENHANCEDSTATUSCODES" in extensions) == (b"ENHANCEDSTATUSCODES" in theirs)


async def test_parameters_reach_an_upstream_that_offers_them(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=peer.url)
    await wait_upstream(relay, "up")
    parameters = b"BODY=8BITMIME SIZE=20 SMTPUTF8"
    sent = await send(relay.port, SENDER, ["jörg@example.test".encode()], notification(), parameters=parameters)
    assert sent.ok
    assert peer.copies() == {"jörg@example.test".encode(): 1}
    assert set(peer.accepted[0].parameters) == {b"BODY=8BITMIME", b"SMTPUTF8"}


# The Maildir


async def test_a_maildir_holds_a_file_for_each_recipient(start_relay: StartRelay, tmp_path: Path) -> None:
    folder = tmp_path / "below" / "mail"
    relay = await start_relay(upstream=f"maildir:{folder}")
    await wait_upstream(relay, "up")
    recipients = [b"one@example.test", b"two@example.test", b"three@example.test"]
    for mail in (notification(), notification(sending=AGAIN)):
        assert (await send(relay.port, SENDER, recipients, mail)).ok
    files = [file.read_bytes() for file in (folder / "new").iterdir()]
    heads = [email.message_from_bytes(file) for file in files]
    assert sorted(head["Delivered-To"].encode() for head in heads) == sorted(recipients)
    assert {head["Return-Path"] for head in heads} == {f"<{SENDER.decode()}>"}
    assert all(file.endswith(notification().replace(b"\r\n", b"\n")) for file in files)
    [first, second] = await wait_messages(relay, 2)
    assert (first["recipients"], second["recipients"]) == ({"forwarded": 3}, {"suppressed": 3})


async def test_a_maildir_that_cannot_be_written_is_reported(start_relay: StartRelay, tmp_path: Path) -> None:
    folder = tmp_path / "mail"
    relay = await start_relay(upstream=f"maildir:{folder}")
    await wait_upstream(relay, "up")
    (folder / "tmp").rmdir()
    (folder / "tmp").write_text("in the way")
    sent = await send(relay.port, SENDER, [USER], notification())
    assert sent.final == Answer(452, (b"4.3.1 The Maildir cannot be written: Not a directory",))
    (folder / "tmp").unlink()
    (folder / "tmp").mkdir()
    assert (await send(relay.port, SENDER, [USER], notification())).ok
    assert len(list((folder / "new").iterdir())) == 1


@contextmanager
def longest_file(size: int) -> Iterator[None]:
    """Makes the system refuse to write more bytes than this to a file."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


async def test_a_maildir_holds_all_copies_of_a_message_or_none(tmp_path: Path) -> None:
    size = 2**20
    upstream = MaildirUpstream(tmp_path / "mail")
    content = Content(b"Subject: x\r\n\r\n" + b"x" * (size - 200))
    # The first copy fits; the second is longer by its recipient's name.
    for paths, code in (([USER, b"u" * 2**16 + b"@example.test"], 452), ([USER], 250)):
        delivery = upstream.begin(Envelope(SENDER))
        await delivery.prepare(paths)
        with longest_file(size):
            reply = await delivery.send(b"", content)
        assert reply.code == code
        assert code == 250 or reply.text == "4.3.1 The Maildir cannot be written: File too large"
        assert len(mailbox.Maildir(upstream.path)) == (code == 250)
        assert list((upstream.path / "tmp").iterdir()) == []


@pytest.mark.parametrize("short_by", [1, 100, 8192])
async def test_a_maildir_file_that_fails_at_its_end_is_closed_and_removed(tmp_path: Path, short_by: int) -> None:
    """The last bytes fail when the buffer is flushed, perhaps only when the file is closed."""
    content = Content(b"Subject: x\r\n\r\n" + b"x" * 2**16)
    delivery = MaildirUpstream(tmp_path / "mail").begin(Envelope(SENDER))
    await delivery.prepare([USER])
    with longest_file(len(content) - short_by):
        assert (await delivery.send(b"", content)).code == 452
    gc.collect()  # a file that was left open would complain now
    assert [file for file in (tmp_path / "mail").rglob("*") if file.is_file()] == []
