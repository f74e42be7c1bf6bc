"""`relay check` with upstreams that refuse the relay: the words of the server, the step that failed, the remedy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
import warnings
from typing import TYPE_CHECKING

import pytest
from parts.certificates import server_context
from parts.check_command import check
from parts.faults import Step, drop, hang, say, say_and_drop
from parts.peer import ScriptedPeer
from parts.ports import HOST
from parts.postfix import Postfix

if TYPE_CHECKING:
    from pathlib import Path

    from parts.certificates import Authority
    from parts.relay_process import Finished

OFFERS = b"250-peer.example.test\r\n250-PIPELINING\r\n250 "


async def check_upstream(url: str, *flags: str) -> Finished:
    """Checks an upstream."""
    return await check("--upstream", url, "--store", "memory:", *flags)


async def failed(url: str, *flags: str) -> tuple[str, str, str]:
    """Checks an upstream that is no good. Returns what was found, the remedy and the step."""
    result = await check_upstream(url, *flags)
    assert result.status == 1
    assert "Traceback" not in result.stderr
    lines = result.stdout.splitlines()
    [number] = [number for number, line in enumerate(lines) if line.startswith("FAIL  upstream.url: ")]
    remedy, step = (line.strip() for line in lines[number + 1 : number + 3])
    return lines[number], remedy.removeprefix("to fix: "), step.removeprefix("failed step: ")


# MAIL, RCPT, RSET


@pytest.mark.parametrize(
    ("step", "said", "remedy"),
    [
        ("MAIL", b"530 5.7.0 Must issue a STARTTLS command first", "write smtp+starttls://HOST in upstream.url"),
        ("MAIL", b"530 5.7.0 Authentication required", "write USER@ before the host in upstream.url and the password"),
        ("MAIL", b"550 5.7.1 Client host rejected: Access denied", "allow this host to send through that server"),
        ("RCPT", b"504 5.5.2 <web>: Helo command rejected: need fully-qualified hostname", "set upstream.helo_name"),
        ("RCPT", b"554 5.7.1 <postmaster>: Relay access denied", "allow this host to send through that server"),
        ("RCPT", b"451 4.3.0 Temporary lookup failure", "try again in some minutes; if it stays, see the log"),
        ("MAIL", b"552 5.3.4 Out of room", "see the log of that server, or try other addresses with --mail-from"),
    ],
)
async def test_a_refusal_is_quoted_with_its_remedy(peer: ScriptedPeer, step: str, said: bytes, remedy: str) -> None:
    peer.on(Step[step], say(said))
    addresses = ("--mail-from", "web@example.org", "--rcpt-to", "me@example.org")
    command = {"MAIL": "MAIL FROM:<web@example.org>", "RCPT": "RCPT TO:<me@example.org>"}[step]
    found, fix, failed_step = await failed(peer.url, *addresses)
    assert found == f"FAIL  upstream.url: {peer.url}: {command} was refused: {said.decode()}"
    assert fix.startswith(remedy)
    assert failed_step == step
    assert peer.commands(b"DATA") == []


@pytest.mark.parametrize(
    ("step", "said"), [("RCPT", b"550 No such user"), ("MAIL", b"553 5.1.7 No such sender"), ("RCPT", b"450 4.1.1 Hm")]
)
async def test_an_address_of_our_own_that_is_refused_is_only_a_warning(
    peer: ScriptedPeer, step: str, said: bytes
) -> None:
    peer.on(Step[step], say(said), times=None)
    result = await check_upstream(peer.url)
    assert result.status == 0
    assert f" was refused: {said.decode()}\n      to fix: name addresses that your application uses" in result.stdout
    await failed(peer.url, "--mail-from", "", "--rcpt-to", "me@example.org")


async def test_the_addresses_are_those_of_the_options_or_sensible_ones(peer: ScriptedPeer) -> None:
    await check_upstream(peer.url, "--mail-from", "a@example.org", "--rcpt-to", "b@example.org")
    assert peer.commands(b"MAIL") == [b"MAIL FROM:<a@example.org>"]
    assert peer.commands(b"RCPT") == [b"RCPT TO:<b@example.org>"]
    await check_upstream(f"smtp://localhost:{peer.port}")
    assert peer.commands(b"RCPT")[1:] == [b"RCPT TO:<postmaster@localhost>"]
    wrong = await check_upstream(peer.url, "--rcpt-to", "b@example.org>\r\nDATA")
    assert wrong.status == 2
    assert "without < and >" in wrong.stderr


async def test_a_login_with_an_address_sends_as_that_address(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    flags = ("--set", f"upstream.password_file={tmp_path}/password")
    async with ScriptedPeer(credentials=(b"web@example.org", b"secret")) as peer:
        url = f"smtp://web%40example.org@{HOST}:{peer.port}"
        assert (await check_upstream(url, *flags)).status == 0
        assert peer.commands(b"MAIL") == [b"MAIL FROM:<web@example.org>"]
        assert peer.commands(b"RCPT") == [b"RCPT TO:<web@example.org>"]


async def test_a_connection_that_ends_in_the_transaction_is_reported(peer: ScriptedPeer) -> None:
    peer.on(Step.RCPT, drop())
    found, _, step = await failed(peer.url)
    assert found.endswith(": closed by the upstream")
    assert "the connection ended at RCPT TO:<postmaster@" in found
    assert step == "RCPT"


async def test_a_server_that_hangs_in_the_transaction_is_reported_in_bounded_time(peer: ScriptedPeer) -> None:
    peer.on(Step.MAIL, hang())
    found, _, step = await failed(peer.url, "--set", "upstream.reply_timeout=200ms")
    assert found.endswith("the connection ended at MAIL FROM:<>: no reply within 0.2 s")
    assert step == "MAIL"


async def test_postfix_refuses_and_accepts(authority: Authority, postfix: Postfix) -> None:
    assert (await check_upstream(postfix.url)).status == 0
    with Postfix(settings=["smtpd_client_restrictions = reject"]) as refusing:
        found, remedy, step = await failed(refusing.url)
        assert "Client host rejected: Access denied" in found
        assert (remedy.split(",")[0], step) == (
            "allow this host to send through that server (mynetworks in Postfix)",
            "RCPT",
        )
    with Postfix(certificate=authority.issue(), settings=["smtpd_tls_security_level = encrypt"]) as secure:
        found, remedy, step = await failed(secure.url)
        assert "530 5.7.0 Must issue a STARTTLS command first" in found
        assert (remedy, step) == ("write smtp+starttls://HOST in upstream.url", "MAIL")
        trust = ("--set", f"upstream.ca_file={authority.certificate}")
        assert (await check_upstream(secure.url.replace("smtp:", "smtp+starttls:"), *trust)).status == 0
        assert secure.queued() == 0


# Connecting


@pytest.mark.parametrize(
    ("at", "said", "remedy", "step"),
    [
        (Step.GREETING, b"421 4.7.0 too many connections from you", "lower upstream.connections", "greeting"),
        (Step.GREETING, b"421 4.3.2 Try later", "try again in some minutes", "greeting"),
        (Step.GREETING, b"554 5.7.1 Your IP is on a list", "allow this host to send through", "greeting"),
        (Step.GREETING, b"HTTP/1.1 400 Bad Request", "check that it is an SMTP server", "greeting"),
        (Step.EHLO, b"450 4.7.1 Helo command rejected: Host not found", "try again in some minutes", "EHLO"),
    ],
)
async def test_a_server_that_refuses_early_is_quoted(
    peer: ScriptedPeer, at: Step, said: bytes, remedy: str, step: str
) -> None:
    peer.on(at, say_and_drop(said), times=None)
    found, fix, failed_step = await failed(peer.url)
    assert said.decode() in found
    assert (fix[: len(remedy)], failed_step) == (remedy, step)


@pytest.mark.parametrize("greeted", [False, True])
async def test_the_wrong_scheme_for_a_port_is_named(authority: Authority, *, greeted: bool) -> None:
    """465 with smtp://, 587 with smtps://: the port itself shows which scheme it expects."""
    if greeted:
        async with ScriptedPeer() as peer:
            found, remedy, step = await failed(f"smtps://localhost:{peer.port}")
            assert found.endswith("(it says: 220 peer.example.test ESMTP)")
            scheme = "smtp+starttls"
    else:
        async with ScriptedPeer(tls=server_context(authority.issue())) as peer:
            found, remedy, step = await failed(f"smtp://localhost:{peer.port}")
            scheme = "smtps"
    assert f"write {scheme}://localhost:{peer.port}" in remedy
    assert step == ("TLS" if greeted else "greeting")


async def test_starttls_that_is_not_offered_or_not_possible_is_named(peer: ScriptedPeer) -> None:
    url = f"smtp+starttls://localhost:{peer.port}"
    found, remedy, step = await failed(url)
    assert "STARTTLS extension not supported" in found
    assert remedy.startswith("the server does not offer STARTTLS: write smtps://localhost or")
    assert step == "TLS"
    peer.on(Step.EHLO, say(OFFERS + b"STARTTLS"), times=None)
    found, remedy, step = await failed(url)  # the peer has no certificate and replies 503
    assert "answered 503 5.5.1 TLS is not available" in found
    assert remedy.startswith("repair the TLS settings of that server")
    assert step == "TLS"


@pytest.mark.parametrize(
    ("kind", "trusted", "words", "remedy"),
    [
        ("self_sign", False, "self-signed certificate", "in upstream.ca_file"),
        ("issue", False, "unable to get local issuer certificate", "in upstream.ca_file"),
        ("issue_expired", True, "certificate has expired", "renew the certificate of that server"),
    ],
)
async def test_what_is_wrong_with_a_certificate_is_named(
    authority: Authority, kind: str, trusted: bool, words: str, remedy: str
) -> None:
    flags = ("--set", f"upstream.ca_file={authority.certificate}") if trusted else ()
    async with ScriptedPeer(tls=server_context(getattr(authority, kind)())) as peer:
        found, fix, step = await failed(peer.url, *flags)
    assert words in found
    assert remedy in fix
    assert step == "TLS"


async def test_a_certificate_for_another_name_is_named(authority: Authority) -> None:
    tls = server_context(authority.issue())
    async with (
        ScriptedPeer(tls=tls) as peer,
        await asyncio.start_server(peer._connected, "127.0.0.2", peer.port, ssl=tls),
    ):
        url = f"smtps://127.0.0.2:{peer.port}"
        found, remedy, step = await failed(url, "--set", f"upstream.ca_file={authority.certificate}")
    assert "IP address mismatch" in found
    assert remedy.startswith("write the name that the certificate contains in upstream.url")
    assert step == "TLS"


async def test_an_old_version_of_tls_is_named(authority: Authority) -> None:
    old = server_context(authority.issue())
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1

    def shake_hands() -> None:
        # asyncio would close before the alert is sent; real servers send it.
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as connection, contextlib.suppress(ssl.SSLError):
                    old.wrap_socket(connection, server_side=True)

    with socket.create_server((HOST, 0)) as listener:
        threading.Thread(target=shake_hands, daemon=True).start()
        url = f"smtps://{HOST}:{listener.getsockname()[1]}"
        found, remedy, step = await failed(url, "--set", f"upstream.ca_file={authority.certificate}")
        listener.shutdown(socket.SHUT_RDWR)
    assert "PROTOCOL" in found
    assert "TLS version that is too old" in remedy
    assert step == "TLS"


async def test_a_login_that_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wrong\n")
    flags = ("--set", f"upstream.password_file={tmp_path}/password")
    async with ScriptedPeer(credentials=(b"web", b"right")) as peer:
        url = f"smtp://web@{HOST}:{peer.port}"
        found, remedy, step = await failed(url, *flags)
        assert "answered 535 5.7.8 Wrong name or password" in found
        assert (remedy, step) == (
            "correct the user in upstream.url, or the password in the file that upstream.password_file names",
            "login",
        )
        peer.on(Step.EHLO, say(OFFERS + b"AUTH XOAUTH2"), times=None)
        _, remedy, step = await failed(url, *flags)
        assert "allow PLAIN, LOGIN or CRAM-MD5 on that server" in remedy
        assert step == "login"


async def test_an_access_token_that_is_missing_or_refused_is_named(tmp_path: Path, peer: ScriptedPeer) -> None:
    file = tmp_path / "token"
    url, flags = peer.url.replace("//", "//me@"), ("--set", f"upstream.token_file={file}")
    found, remedy, _ = await failed(url, *flags)
    assert f"upstream.token_file {file}: No such file" in found
    assert remedy == "see that it gives an access token to the relay's user"
    await asyncio.to_thread(file.write_text, "0ld-token\n")
    peer.credentials = (b"me", b"x")
    found, remedy, step = await failed(url, *flags)
    assert "does not offer what the settings ask for: XOAUTH2" in found
    assert (remedy.partition(": ")[0], step) == ("upstream.url names no server for access tokens", "login")
    peer.credentials, peer.tokens = None, {b"me": b"n3w-token"}
    found, remedy, step = await failed(url, *flags)
    assert "answered 535 5.7.8 Username and Password not accepted" in found
    assert (remedy, step) == (
        "see that the token is that of the user in upstream.url, and allows to send mail",
        "login",
    )
    assert "0ld-token" not in found
    await asyncio.to_thread(file.write_text, "n3w-token\n")
    assert (await check_upstream(url, *flags)).status == 0


async def test_a_server_without_logins_is_no_matter_of_tls(tmp_path: Path, peer: ScriptedPeer) -> None:
    (tmp_path / "password").write_text("right\n")
    flags = ("--set", f"upstream.password_file={tmp_path}/password")
    peer.on(Step.EHLO, say(OFFERS + b"8BITMIME"), times=None)
    _, remedy, step = await failed(f"smtp://web@{HOST}:{peer.port}", *flags)
    assert step == "login"
    assert remedy == (
        "write smtp+starttls:// or smtps:// if it offers login after TLS only, or remove USER@ from upstream.url "
        "if it needs no login"
    )


async def test_a_name_and_a_port_that_do_not_answer_are_told_apart() -> None:
    with_no_address = await failed("smtp://nobody.invalid")
    assert with_no_address[1:] == ("correct the host name in upstream.url", "name look-up")


# Bounds


async def test_one_fault_hides_no_other_and_a_file_that_hangs_ends_in_time(tmp_path: Path, peer: ScriptedPeer) -> None:
    """A pipe that is never written stands for a disk that hangs: reading it never ends."""
    os.mkfifo(tmp_path / "key")
    (tmp_path / "key").chmod(0o600)
    peer.on(Step.MAIL, say(b"550 5.7.1 Client host rejected"))
    flags = ("--set", f"record.secret_file={tmp_path}/key", "--set", f"record.keep=maildir:{tmp_path}/key")
    async with asyncio.timeout(3 * 20):
        result = await check("--upstream", peer.url, "--store", f"sqlite:{tmp_path}/key/relay.db", *flags)
    assert result.status == 1
    for key in ("upstream.url", "store.url", "record.keep", "record.secret_file"):
        assert f"FAIL  {key}: " in result.stdout
    assert "FAIL  record.secret_file: no answer within 10 s\n" in result.stdout


async def test_an_unusable_setting_hides_no_finding(tmp_path: Path, peer: ScriptedPeer) -> None:
    flags = ("--set", f"upstream.ca_file={tmp_path}/none", "--set", f"upstream.fallback_urls=smtps://{HOST}:1")
    result = await check_upstream(peer.url, *flags)
    assert result.status == 78
    assert f"ok    upstream.url: {peer.url} answers" in result.stdout
    assert f'upstream.ca_file = "{tmp_path}/none": No such file or directory' in result.stderr


# Files with secrets


@pytest.mark.parametrize("key", ["record.secret_file", "upstream.password_file"])
async def test_a_secret_that_every_user_can_read_is_a_warning(tmp_path: Path, peer: ScriptedPeer, key: str) -> None:
    path = tmp_path / "secret"
    path.write_text("0123456789abcdef" * 4 + "\n")
    url = f"smtp://u@{HOST}:{peer.port}" if key == "upstream.password_file" else peer.url
    peer.on(Step.EHLO, say(OFFERS + b"AUTH PLAIN"), times=None)
    path.chmod(0o600)
    result = await check_upstream(url, "--set", f"{key}={path}")
    assert "every user" not in result.stderr
    path.chmod(0o644)
    result = await check_upstream(url, "--set", f"{key}={path}")
    assert f"warning: {key} {path}: every user of this host can read it; run chmod 600 {path}" in result.stderr
