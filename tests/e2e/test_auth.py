"""Clients by others log in at a relay, which asks a real Postfix or a users file. Nothing shows a secret."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from parts.auth_service import AuthService
from parts.phpmailer import send_as_avideo
from parts.postfix import USERS, Postfix
from parts.relay_process import run_relay
from parts.tools import curl, msmtp, swaks
from parts.waiting import until

from relay.logins.passwords import hash_password

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartRelay
    from parts.relay_process import RelayProcess

NAME, PASSWORD, WRONG = "avideo@example.test", "Geheim/+=1 ü", "Wr0ng-Secret"
OTHER, OTHER_PASSWORD = "other", "An0ther-Secret"
LOGIN = (NAME, PASSWORD)


@pytest.fixture(scope="module")
def service() -> Iterator[AuthService]:
    with AuthService({NAME: PASSWORD, OTHER: OTHER_PASSWORD}) as running:
        yield running


@pytest.fixture(scope="module")
def shared_mta(service: AuthService) -> Iterator[Postfix]:
    with Postfix(settings=service.postfix_settings) as running:
        yield running


@pytest.fixture
def mta(shared_mta: Postfix) -> Postfix:
    shared_mta.clean()
    return shared_mta


@pytest.fixture
def users_file(tmp_path: Path) -> Path:
    file = tmp_path / "users"
    file.write_text(f"{NAME}:{hash_password(PASSWORD.encode())}:@example.test\n")
    return file


async def assert_no_secret(relay: RelayProcess, *secrets: str) -> None:
    """Looks for secrets, and the names of logins, in all that the relay has written and shows."""
    shown = relay.stderr() + (await relay.get("/metrics"))[1]
    for secret in (PASSWORD, WRONG, OTHER_PASSWORD, NAME, *secrets):
        assert secret not in shown


async def test_phpmailer_logs_in_at_the_mta_through_the_relay(
    start_relay: StartRelay, mta: Postfix, service: AuthService
) -> None:
    relay = await start_relay("--set", "log.level=debug", upstream=mta.url, settings={"auth.mode": "passthrough"})
    before = len(service.attempts)
    for number in range(3):
        (chunk,) = await send_as_avideo(relay.port, USERS[:2], f"Notice {number}", "<p>hello</p>", login=LOGIN)
        assert (chunk.ok, chunk.error) == (True, "")
        assert any(said.startswith("235 2.7.0 ") for said in chunk.heard)
    await mta.wait_delivered(6)
    content = mta.messages(USERS[0])[0]
    assert f"(Authenticated sender: {NAME})".encode() in content
    assert b" with ESMTPA id " in content.partition(b"smtp-dedup-relay")[2]
    # One login at the MTA for all of them: the connection is kept.
    assert service.attempts[before:] == [(NAME, True)]
    # The MTA refuses mail without a login, and says so as it does without the relay.
    (refused,) = await send_as_avideo(relay.port, USERS[:1], "No login", "<p>hello</p>")
    assert not refused.ok
    assert any("554 5.7.1" in said for said in refused.heard)
    await assert_no_secret(relay)


async def test_the_mtas_refusal_of_a_password_is_passed_on(
    start_relay: StartRelay, mta: Postfix, service: AuthService
) -> None:
    relay = await start_relay("--set", "log.level=debug", upstream=mta.url, settings={"auth.mode": "passthrough"})
    before = len(service.attempts)
    (chunk,) = await send_as_avideo(relay.port, USERS[:1], "Notice", "<p>hello</p>", login=(NAME, WRONG))
    assert not chunk.ok
    assert any(said.startswith("535 5.7.8 Error: authentication failed") for said in chunk.heard)
    assert service.attempts[before:] == [(NAME, False)]
    # Others are not affected: the upstream counts as up, and another identity logs in.
    assert (await relay.readyz())["status_code"] == 200
    mail = ("--from", "a@example.test", "--to", USERS[0], "--body", "x")
    ran = await swaks(relay.port, *mail, "--auth", "PLAIN", "--auth-user", OTHER, "--auth-password", OTHER_PASSWORD)
    assert ran.status == 0, ran.said
    metrics = await relay.metrics()
    outcomes = metrics.by_label("smtp_dedup_logins_total", "outcome")
    assert (outcomes["accepted"], outcomes["credentials"]) == (1, 1)
    await assert_no_secret(relay)


async def test_mail_waits_for_an_mta_whose_authentication_service_is_away(
    start_relay: StartRelay, service: AuthService
) -> None:
    with Postfix(settings=service.postfix_settings) as mta:
        relay = await start_relay(upstream=mta.url, settings={"auth.mode": "passthrough", "upstream.patience": "30s"})
        service.stop()
        try:
            mta.restart()
            sending = asyncio.create_task(send_as_avideo(relay.port, USERS[:1], "x", "<p>x</p>", login=LOGIN))
            await until(lambda: "no SASL authentication mechanisms" in mta.log(), "an smtpd that ends")
        finally:
            service.start()
        (chunk,) = await sending
        assert (chunk.ok, chunk.error) == (True, "")
        await mta.wait_delivered(1)


async def test_an_unreachable_upstream_defers_the_login(start_relay: StartRelay) -> None:
    relay = await start_relay(
        upstream="smtp://127.0.0.1:9", settings={"auth.mode": "passthrough", "upstream.patience": "0"}
    )
    (chunk,) = await send_as_avideo(relay.port, USERS[:1], "x", "<p>x</p>", login=LOGIN)
    assert not chunk.ok
    assert any(said.startswith("454 4.7.0 ") for said in chunk.heard)
    await assert_no_secret(relay)


@pytest.mark.parametrize("mode", ["any", "file"])
async def test_clients_of_all_kinds_log_in(
    start_relay: StartRelay, postfix: Postfix, users_file: Path, mode: str
) -> None:
    settings = {"auth.mode": mode} | ({"auth.users_file": users_file} if mode == "file" else {})
    relay = await start_relay("--set", "log.level=debug", upstream=postfix.url, settings=settings)
    (chunk,) = await send_as_avideo(relay.port, USERS[:1], "x", "<p>x</p>", sender="a@example.test", login=LOGIN)
    assert (chunk.ok, chunk.error) == (True, "")
    mail = ("--from", "a@example.test", "--to", USERS[0], "--auth-user", NAME, "--auth-password", PASSWORD)
    for mechanism in ("PLAIN", "LOGIN"):
        ran = await swaks(relay.port, *mail, "--auth", mechanism, "--body", mechanism)
        assert ran.status == 0, ran.said
        assert "AUTH PLAIN LOGIN" in ran.said
    path = ("--mail-from", "a@example.test", "--mail-rcpt", USERS[0], "--user", f"{NAME}:{PASSWORD}")
    ran = await curl(relay.port, *path, content="Subject: curl\r\n\r\nx\r\n")
    assert ran.status == 0, ran.said
    password = ("--passwordeval", f"printf '%s\\n' '{PASSWORD}'")
    words = ("--from=a@example.test", "--auth=plain", f"--user={NAME}", *password, USERS[0])
    ran = await msmtp(relay.port, *words, content="Subject: msmtp\n\nx\n")
    assert ran.status == 0, ran.said
    await postfix.wait_delivered(5)
    assert (await relay.metrics()).by_label("smtp_dedup_logins_total", "outcome")["accepted"] == 5
    wrong = await swaks(relay.port, *mail[:-1], WRONG, "--auth", "LOGIN")
    assert (wrong.status == 0) is (mode == "any")
    await assert_no_secret(relay)


async def test_avideo_with_a_login_sends_nothing_if_auth_is_off(start_relay: StartRelay, postfix: Postfix) -> None:
    """The reason for `auth.mode = "any"`."""
    relay = await start_relay(upstream=postfix.url)
    (chunk,) = await send_as_avideo(relay.port, USERS[:1], "x", "<p>x</p>", login=LOGIN)
    assert not chunk.ok
    assert (await relay.metrics()).messages() == {}


async def test_a_user_sends_from_allowed_addresses_only(
    start_relay: StartRelay, postfix: Postfix, users_file: Path
) -> None:
    relay = await start_relay(
        upstream=postfix.url, settings={"auth.mode": "file", "auth.users_file": users_file, "log.addresses": True}
    )
    for sender, is_allowed in (("a@EXAMPLE.test", True), ("a@example.org", False)):
        (chunk,) = await send_as_avideo(relay.port, USERS[:1], sender, "<p>x</p>", sender=sender, login=LOGIN)
        assert chunk.ok is is_allowed
        assert any(said.startswith("553 5.7.1 ") for said in chunk.heard) is not is_allowed
    # With log.addresses the log names the login.
    await until(lambda: relay.stderr().count(NAME) >= 2, "both log lines")
    assert PASSWORD not in relay.stderr()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"listen.networks": "0.0.0.0/0"}, "listen.networks holds 0.0.0.0/0 while listen.address is 0.0.0.0:"),
        ({"listen.networks": "0.0.0.0/1,128.0.0.0/1"}, "listen.networks holds 0.0.0.0/1"),
        ({"listen.networks": "::/0"}, "listen.networks holds ::/0"),
        ({"listen.networks": "198.51.100.0/24", "auth.mode": "any"}, 'auth.mode = "any" accepts every password'),
    ],
)
async def test_an_open_relay_does_not_start(settings: dict[str, str], words: str) -> None:
    flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    for command in ("serve", "check"):
        ended = await run_relay(command, "--listen", "0.0.0.0:0", "--upstream", "smtp://127.0.0.1:9", *flags)
        assert ended.status == 78
        assert words in ended.stderr
        assert "networks only" in ended.stderr


async def test_a_relay_without_its_users_file_does_not_start(tmp_path: Path) -> None:
    flags = ("--set", "auth.mode=file", "--set", f"auth.users_file={tmp_path / 'none'}", "--listen", "127.0.0.1:0")
    ended = await run_relay("serve", *flags)
    assert ended.status == 78
    assert "none: No such file or directory; write it with relay user add" in ended.stderr


async def test_check_asks_an_upstream_whether_it_verifies_logins(
    mta: Postfix, postfix: Postfix, tmp_path: Path
) -> None:
    flags = ("--listen", "127.0.0.1:0", "--http", "", "--set", "auth.mode=passthrough")
    for upstream, status, words in ((mta, 0, "answers and takes"), (postfix, 1, "auth.mode: ")):
        ended = await run_relay("check", *flags, "--upstream", upstream.url, "--store", f"sqlite:{tmp_path / 'db'}")
        assert (ended.status, ended.stderr) == (status, "")
        assert words in ended.stdout
    assert "no AUTH is offered" in ended.stdout


async def test_check_reads_the_users_file(postfix: Postfix, users_file: Path) -> None:
    store = f"sqlite:{users_file.parent / 'db'}"
    flags = ("--listen", "127.0.0.1:0", "--http", "", "--upstream", postfix.url, "--store", store)
    flags += ("--set", "auth.mode=file", "--set", f"auth.users_file={users_file}")
    ended = await run_relay("check", *flags)
    assert ended.status == 0
    assert f"auth.users_file: {users_file} has 1 user" in ended.stdout
    assert "every user of this host can read it" in ended.stderr
    await asyncio.to_thread(users_file.write_text, f"anna:{PASSWORD}\n")
    ended = await run_relay("check", *flags)
    assert ended.status == 1
    assert "line 1: not an argon2id hash" in ended.stdout
    assert PASSWORD not in ended.stdout + ended.stderr
