"""AUTH: the exchange with the client, who may log in and send, and the limits of failed logins."""

from __future__ import annotations

import asyncio
import dataclasses
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from parts import dialog_servers as servers
from parts.client import GONE, RawClient
from parts.logged import events
from parts.waiting import until

from relay.core.envelope import fold
from relay.core.login import Credentials, Login
from relay.core.reply import LOGIN_REFUSED, LOGIN_UNAVAILABLE, Reply
from relay.logins import limits as auth_limits
from relay.logins.limits import LoginLimits
from relay.logins.passwords import hash_password
from relay.smtp.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parts.peer import ScriptedPeer

    from relay.core.login import LoginOutcome

SENDER, ONE = b"sender@example.test", b"one@example.test"
MAIL = b"Subject: x\r\n\r\nhello\r\n"
GOOD = b"\0anna\0s3cret"
BAD = b"\0anna\0wrong"
ELSEWHERE = "198.51.100.7"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    file = tmp_path / "users"
    file.write_text(f"anna:{hash_password(b's3cret')}:@example.test\n")
    return file


def with_file(users: Path, **more: object) -> dict[str, object]:
    return {"auth.mode": "file", "auth.users_file": str(users), **more}


def outcomes(relay: servers.Relay) -> dict[LoginOutcome, int]:
    logins = relay.service.metrics.logins
    return {outcome: int(metric._value.get()) for outcome, metric in logins.items() if metric._value.get()}


async def greeted(port: int) -> RawClient:
    client = await RawClient.open(port)
    await client.command(b"EHLO me")
    return client


async def exchange(client: RawClient, *lines: bytes) -> list[int]:
    return [(await client.command(line)).code for line in lines]


@pytest.mark.parametrize(
    ("lines", "codes"),
    [
        ([b"AUTH PLAIN " + b64encode(GOOD)], [235]),
        ([b"auth plain", b64encode(GOOD)], [334, 235]),
        ([b"AUTH PLAIN", b64encode(b"anna" + GOOD)], [334, 235]),
        ([b"AUTH LOGIN", b64encode(b"anna"), b64encode(b"s3cret")], [334, 334, 235]),
        ([b"AUTH LOGIN " + b64encode(b"anna"), b64encode(b"s3cret")], [334, 235]),
        ([b"AUTH PLAIN", b"*"], [334, 501]),
        ([b"AUTH LOGIN", b64encode(b"anna"), b"*"], [334, 334, 501]),
        ([b"AUTH PLAIN ="], [501]),
        ([b"AUTH PLAIN", b""], [334, 501]),
        ([b"AUTH PLAIN x x"], [501]),
        ([b"AUTH PLAIN ***"], [501]),
        ([b"AUTH PLAIN " + b64encode(b"anna\0s3cret")], [501]),
        ([b"AUTH PLAIN", b"A" * 12289], [334, 500]),
        ([b"AUTH PLAIN " + b"A" * 4096], [500]),
        ([b"AUTH CRAM-MD5"], [504]),
        ([b"AUTH"], [501]),
    ],
)
async def test_exchanges(peer: ScriptedPeer, users: Path, lines: list[bytes], codes: list[int]) -> None:
    async with servers.relay(peer.url, with_file(users)) as relay, await greeted(relay.port) as client:
        assert await exchange(client, *lines) == codes
        # Whatever the exchange was, it has ended: the next line is a command.
        assert await exchange(client, b"NOOP") == [250]


@pytest.mark.parametrize(
    "lines",
    [
        [b"AUTH PLAIN " + b64encode(BAD)],
        [b"AUTH PLAIN " + b64encode(b"bert" + GOOD)],
        [b"AUTH PLAIN " + b64encode(b"\0\xff\0s3cret")],
        [b"AUTH PLAIN " + b64encode(b"\0anna\0")],
        [b"AUTH LOGIN =", b64encode(b"s3cret")],
        [b"AUTH LOGIN " + b64encode(b"anna\0s3cret"), b64encode(b"s3cret")],
        [b"AUTH PLAIN " + b64encode(b"\0nobody\0s3cret")],
    ],
)
async def test_wrong_credentials_receive_535_after_a_delay(
    peer: ScriptedPeer, users: Path, lines: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async with servers.relay(peer.url, with_file(users)) as relay, await greeted(relay.port) as client:
        began = asyncio.get_running_loop().time()
        *_, last = [await client.command(line) for line in lines]
        assert last.code == 535
        assert last.text.startswith(b"5.7.8 ")
        assert asyncio.get_running_loop().time() - began >= auth_limits.FIRST_DELAY * 0.9
        assert outcomes(relay) == {"credentials": 1}
    assert "s3cret" not in f"{caplog.text} {events(caplog)}"


async def test_a_too_long_line_has_its_own_code(peer: ScriptedPeer, users: Path) -> None:
    async with servers.relay(peer.url, with_file(users)) as relay, await greeted(relay.port) as client:
        await client.command(b"AUTH PLAIN")
        assert (await client.command(b"A" * 20000)).text.startswith(b"5.5.6 ")


async def test_auth_out_of_sequence_receives_503(peer: ScriptedPeer, users: Path) -> None:
    login = b"AUTH PLAIN " + b64encode(GOOD)
    async with servers.relay(peer.url, with_file(users)) as relay:
        async with await RawClient.open(relay.port) as client:
            assert await exchange(client, login) == [503]
        async with await greeted(relay.port) as client:
            codes = await exchange(client, b"MAIL FROM:<%b>" % SENDER, login, b"RSET", login, login)
            assert codes == [250, 503, 250, 235, 503]


async def test_auth_is_unknown_unless_it_is_on(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url) as relay, await greeted(relay.port) as client:
        assert not [line for line in (await client.command(b"EHLO me")).lines if line.startswith(b"AUTH")]
        assert await exchange(client, b"AUTH PLAIN " + b64encode(GOOD)) == [500]


async def test_the_third_failure_ends_the_session(peer: ScriptedPeer, users: Path) -> None:
    async with servers.relay(peer.url, with_file(users)) as relay, await greeted(relay.port) as client:
        assert await exchange(client, *[b"AUTH PLAIN ***"] * 3) == [501, 501, 421]
        assert await client.command(b"NOOP") == GONE


async def test_a_client_that_leaves_during_its_delay_leaves_nothing(peer: ScriptedPeer, users: Path) -> None:
    async with servers.relay(peer.url, with_file(users)) as relay:
        client = await greeted(relay.port)
        await client.send_raw(b"AUTH PLAIN " + b64encode(BAD) + b"\r\n")
        await until(lambda: outcomes(relay), "a failed login")
        await client.close()
        await until(lambda: not relay.busy, "the end of the session")
        assert not relay.service.listener.table.logins._in_progress


# Who may send


async def test_a_client_of_another_network_sends_after_a_login_only(peer: ScriptedPeer, users: Path) -> None:
    settings = with_file(users, **{"listen.networks": ["192.0.2.0/24"], "upstream.received_field": True})
    async with servers.relay(peer.url, settings) as relay, await RawClient.open(relay.port) as client:
        offered = (await client.command(b"EHLO me")).lines
        assert b"AUTH PLAIN LOGIN" in offered
        assert not [line for line in offered if line.startswith(b"XFORWARD")]
        refused = await client.command(b"MAIL FROM:<%b>" % SENDER)
        assert (refused.code, refused.text) == (530, b"5.7.0 Authentication required")
        assert await exchange(client, b"RCPT TO:<%b>" % ONE, b"DATA", b"XFORWARD ADDR=192.0.2.1") == [503, 503, 500]
        assert await exchange(client, b"AUTH PLAIN " + b64encode(GOOD)) == [235]
        # A login makes no trusted client.
        assert await exchange(client, b"XFORWARD ADDR=192.0.2.1") == [500]
        assert [answer.code for answer in await client.begin(SENDER, ONE)] == [250]
        assert (await client.content(MAIL)).code == 250
        assert b" with ESMTPA id " in peer.accepted[0].content
        refusals = relay.service.metrics.senders_refused
        assert (refusals["no_login"]._value.get(), refusals["not_allowed"]._value.get()) == (1, 0)


async def test_mail_without_a_login_is_refused_until_the_session_ends(peer: ScriptedPeer, users: Path) -> None:
    settings = with_file(users, **{"listen.networks": []})
    async with servers.relay(peer.url, settings) as relay, await greeted(relay.port) as client:
        codes = await exchange(client, *[b"MAIL FROM:<%b>" % SENDER] * 20)
        assert codes == [530] * 19 + [421]


async def test_a_trusted_client_may_send_without_a_login(peer: ScriptedPeer, users: Path) -> None:
    async with servers.relay(peer.url, with_file(users)) as relay, await RawClient.open(relay.port) as client:
        assert [answer.code for answer in await client.begin(b"any@example.org", ONE)] == [250]


async def test_a_user_may_use_its_own_sender_addresses_only(peer: ScriptedPeer, users: Path) -> None:
    async with servers.relay(peer.url, with_file(users)) as relay, await greeted(relay.port) as client:
        await exchange(client, b"AUTH PLAIN " + b64encode(GOOD))
        refused = await client.command(b"MAIL FROM:<boss@example.org>")
        assert (refused.code, refused.text[:6]) == (553, b"5.7.1 ")
        for allowed in (b"<Any@Example.TEST>", b"<>"):
            assert await exchange(client, b"MAIL FROM:" + allowed, b"RSET") == [250, 250]


def test_senders_are_compared_as_recipients_are() -> None:
    login = Login("anna", tuple(fold(sender) for sender in (b"Anna@example.org", b"@B\xc3\xbccher.example")))
    for path in (b"anna@EXAMPLE.org", b"x@xn--bcher-kva.example", b"x@b\xc3\xbccher.example", b""):
        assert login.may_send_from(path)
    for path in (b"bert@example.org", b"anna@sub.b\xc3\xbccher.example", b"anna", b"@example.org", b"a@b@example.org"):
        assert not login.may_send_from(path)
    assert Login("anna").may_send_from(b"any@where")


async def test_a_password_needs_tls_outside_the_trusted_networks(peer: ScriptedPeer, users: Path) -> None:
    async with servers.relay(peer.url, with_file(users)) as relay:
        listener = relay.service.listener
        assert listener.table.refusal(ELSEWHERE) is None
        session = Session(listener.table, ELSEWHERE, lambda reply: None)
        assert b"AUTH PLAIN LOGIN" not in (await session.ehlo(b"me")).lines
        refused = session.before_auth(b"PLAIN")
        assert refused is not None
        assert (refused.code, refused.text[:7]) == (538, "5.7.11 ")
        assert outcomes(relay) == {"not_encrypted": 1}
        session.is_encrypted = True
        assert b"AUTH PLAIN LOGIN" in (await session.ehlo(b"me")).lines
        assert session.before_auth(b"PLAIN") is None
        session.login.current = Login("anna")
        assert (await session.mail(SENDER, [])).code == 250
        assert session._transaction is not None
        assert session._transaction._protocol == "ESMTPSA"
        await session.abandon()
    async with servers.relay(peer.url, {"auth.mode": "any"}) as relay:
        refusal = relay.service.listener.table.refusal(ELSEWHERE)
        assert refusal is not None
        assert refusal.reason == "network"


async def test_any_login_is_accepted_in_mode_any(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url, {"auth.mode": "any"}) as relay, await greeted(relay.port) as client:
        assert await exchange(client, b"AUTH PLAIN " + b64encode(b"\0who\0ever")) == [235]
        assert outcomes(relay) == {"accepted": 1}


# Limits


class HeldAuthenticator:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.waiting = 0
        self.answer: asyncio.Future[Login | Reply] = asyncio.get_running_loop().create_future()

    async def log_in(self, credentials: Credentials, peer: str, *, trusted: bool) -> Login | Reply:
        self.waiting += 1
        return await asyncio.shield(self.answer)


def sessions(relay: servers.Relay, authenticator: HeldAuthenticator, peer: str) -> Callable[[], Session]:
    listener: Any = relay.service.listener
    listener.table.dependencies = dataclasses.replace(listener.table.dependencies, authenticator=authenticator)
    return lambda: Session(listener.table, peer, lambda reply: None)


async def test_one_client_tries_few_logins_at_a_time(peer: ScriptedPeer, users: Path) -> None:
    given = Credentials("anna", b"x")
    async with servers.relay(peer.url, with_file(users)) as relay:
        for address, most in ((ELSEWHERE, auth_limits.MOST_AT_A_TIME), ("127.0.0.1", 20)):
            authenticator = HeldAuthenticator()
            session = sessions(relay, authenticator, address)
            tasks = [asyncio.create_task(session().log_in(given)) for _ in range(20)]
            await until(lambda authenticator=authenticator, most=most: authenticator.waiting == most, "logins")
            authenticator.answer.set_result(LOGIN_UNAVAILABLE)
            replies = [await task for task in tasks]
            assert [reply.code for reply in replies] == [454] * 20
            assert sum(reply == LOGIN_UNAVAILABLE for reply in replies) == most
        assert outcomes(relay) == {"unavailable": auth_limits.MOST_AT_A_TIME + 20, "too_many": 16}


def test_the_delay_grows_per_client_and_is_bounded_and_forgotten() -> None:
    now = 0.0
    limits = LoginLimits(lambda: now)
    assert [limits.fail("a") for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    assert limits.fail("b") == 1
    now = auth_limits.FORGET_AFTER
    assert limits.fail("a") == 1
    for number in range(auth_limits.MOST_CLIENTS):
        limits.fail(f"client {number}")
    assert len(limits._failures) == auth_limits.MOST_CLIENTS
    assert limits.fail("a") == 1


def test_a_password_is_in_no_repr() -> None:
    assert "s3cret" not in repr(Login("anna", identity=Credentials("anna", b"s3cret")))
    assert LOGIN_REFUSED.permanent
