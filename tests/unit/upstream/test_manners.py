"""Upstreams that limit messages, connections or logins, and those that cannot be reached."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from parts.faults import Step, drop, hang, say, say_and_drop
from parts.logged import events
from parts.peer import ScriptedPeer
from parts.ports import HOST
from parts.upstream_delivery import MAIL, ONE, SENDER, THREE, TWO, code, deliver, offer, prepare, upstream

from relay.core.errors import LoginRefused, UpstreamDown
from relay.core.reply import UNREACHABLE, Reply
from relay.upstream.connect import Target
from relay.upstream.login import FIRST_LOGIN_PAUSE, LONGEST_LOGIN_PAUSE, LoginGuard
from relay.upstream.pool import Pool
from relay.upstream.route import Route
from relay.upstream.smtp import SmtpUpstream

if TYPE_CHECKING:
    from parts.faults import Action, Caller


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


FULL = b"421 4.7.0 too many connections"
USER = {"user": "user", "password": "wrong"}


def limit_messages(peer: ScriptedPeer, step: Step, most: int, reply: bytes) -> None:
    """Makes the peer reply 4yz at a step once a session has had `most` messages, without closing it."""

    async def refuse_further(session: Caller) -> bytes | None:
        served = sum(message.session == session.number for message in peer.accepted)
        return reply if served >= most else None

    peer.on(step, refuse_further, times=None)


def limit_sessions(peer: ScriptedPeer, most: int, refusal: Action) -> None:
    """Makes the peer refuse sessions beyond `most` open ones."""

    async def refuse_further(session: Caller) -> bytes | None:
        served = [one for one in peer.open_sessions if one.number <= session.number and one.number not in refused]
        if len(served) <= most:
            return None
        refused.add(session.number)
        return await refusal(session)

    refused: set[int] = set()
    peer.on(Step.GREETING, refuse_further, times=None)


# A 4yz on a connection that was used before


@pytest.mark.parametrize("step", [Step.MAIL, Step.RCPT, Step.DATA])
async def test_an_upstream_that_limits_messages_per_session_accepts_all(peer: ScriptedPeer, step: Step) -> None:
    limit_messages(peer, step, 10, b"452 4.4.5 Maximum number of messages per session exceeded")
    async with upstream(peer.port) as up:
        assert [code(await deliver(up, ONE, TWO)) for _ in range(60)] == [250] * 60
    assert len(peer.sessions) == 6
    assert peer.copies() == {ONE: 60, TWO: 60}
    assert len(peer.received) == 60


@pytest.mark.parametrize("step", [Step.MAIL, Step.RCPT, Step.DATA])
async def test_a_4yz_on_a_fresh_connection_is_the_verdict_after_one_try(peer: ScriptedPeer, step: Step) -> None:
    async with upstream(peer.port) as up:
        refusal = peer.on(step, say(b"451 4.3.0 not now"), times=None)
        assert code(await deliver(up, ONE)) == 451
        assert refusal.visits == 1
        peer.forgive()
        assert code(await deliver(up, ONE)) == 250
        refusal = peer.on(step, say(b"451 4.3.0 not now"), times=None)
        assert code(await deliver(up, TWO)) == 451
        assert refusal.visits == 2
    assert len(peer.sessions) == 2


async def test_a_transaction_moves_to_a_fresh_connection_once(peer: ScriptedPeer) -> None:
    async with upstream(peer.port) as up:
        assert code(await deliver(up, ONE)) == 250
        peer.on(Step.RCPT, say(b"450 4.2.0 greylisted"), matching=b"grey", times=None)
        delivery = up.begin(SENDER)
        grey = [b"grey%d@example.test" % number for number in range(20)]
        assert await offer(delivery, ONE, *grey, TWO) == [250, *[450] * 20, 250]
        assert await prepare(delivery, ONE, TWO) == [250, 250]
        assert code(await delivery.send(b"", MAIL)) == 250
        await delivery.finish()
    assert len(peer.sessions) == 2
    assert len(peer.commands(b"RCPT")) <= 1.5 * 23
    assert peer.copies() == {ONE: 2, TWO: 1}


async def test_a_5yz_is_a_verdict_on_any_connection(peer: ScriptedPeer) -> None:
    async with upstream(peer.port) as up:
        assert code(await deliver(up, ONE)) == 250
        peer.on(Step.RCPT, say(b"550 5.1.1 unknown"))
        assert code(await deliver(up, TWO)) == 550
    assert len(peer.sessions) == 1


async def test_after_the_dot_a_4yz_is_the_outcome_on_any_connection(peer: ScriptedPeer) -> None:
    async with upstream(peer.port) as up:
        assert code(await deliver(up, ONE)) == 250
        peer.on(Step.DOT, say(b"452 4.3.1 full"))
        assert code(await deliver(up, TWO)) == 452
    assert len(peer.received) == 2


# Few connections


@pytest.mark.parametrize("refusal", [say_and_drop(FULL), drop()], ids=["421", "no greeting"])
async def test_an_upstream_that_allows_three_connections_is_full_and_not_down(
    peer: ScriptedPeer, refusal: Action
) -> None:
    reports: list[bool] = []
    limit_sessions(peer, 3, refusal)
    up = SmtpUpstream(
        [Target(HOST, peer.port)],
        connections=20,
        reply_timeout=20.0,
        dot_timeout=20.0,
        patience=5.0,
        report=reports.append,
    )
    # The first connection works before the burst begins.
    assert code(await deliver(up, ONE)) == 250
    sent = await asyncio.gather(*(deliver(up, b"user%d@example.test" % number) for number in range(60)))
    assert Counter(code(one) for one in sent) == {250: 60}
    assert False not in reports
    assert len(peer.sessions) <= 3 * 20
    served = {message.session for message in peer.accepted}
    assert len(served) <= 3, "the good connections are kept"
    assert len(peer.accepted) == 61
    await up.close()


async def test_a_burst_at_an_upstream_with_few_connections_is_accepted_from_the_start(peer: ScriptedPeer) -> None:
    limit_sessions(peer, 3, say_and_drop(FULL))
    async with upstream(peer.port, connections=20) as up:
        sent = await asyncio.gather(*(deliver(up, b"user%d@example.test" % number) for number in range(60)))
    assert Counter(code(one) for one in sent) == {250: 60}
    assert len(peer.sessions) <= 3 * 20


async def test_the_only_connection_that_is_refused_with_421_is_a_failure(peer: ScriptedPeer) -> None:
    peer.on(Step.GREETING, say_and_drop(FULL), times=None)
    async with upstream(peer.port, patience=0.1) as up:
        assert await deliver(up, ONE) == UNREACHABLE


# Logins


async def test_a_refused_login_is_tried_once_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedPeer(credentials=(b"user", b"right")) as peer:
        up = SmtpUpstream(
            [Target(HOST, peer.port, **USER)], connections=20, reply_timeout=20.0, dot_timeout=20.0, patience=0.0
        )
        sent = await asyncio.gather(*(deliver(up, ONE) for _ in range(50)))
        for _ in range(10):
            with pytest.raises(LoginRefused, match="535"):
                await up.probe()
        await up.close()
        assert set(sent) == {UNREACHABLE}
        assert len(peer.commands(b"AUTH")) == 1
        assert len(peer.sessions) == 1
    [(level, text, fields)] = events(caplog)
    assert (level, text) == ("ERROR", "upstream refuses user and password; the next login follows in minutes")
    assert str(fields["error"]).endswith("answered 535 5.7.8 Wrong name or password")
    assert "wrong" not in str(fields)


@pytest.mark.parametrize("secret", [b"wrong", b"\0user\0wrong"], ids=["LOGIN", "PLAIN"])
async def test_a_password_that_the_upstream_quotes_is_not_logged(
    caplog: pytest.LogCaptureFixture, secret: bytes
) -> None:
    async with ScriptedPeer(credentials=(b"user", b"right")) as peer:
        peer.on(Step.AUTH, say(b"535 5.7.8 cannot decode " + b64encode(secret)), times=None)
        async with upstream(peer.port, **USER) as up:
            assert await deliver(up, ONE) == UNREACHABLE
    [(_, _, fields)] = events(caplog)
    assert str(fields["error"]).endswith("answered 535 5.7.8 cannot decode <password>")


async def test_the_pause_after_a_refused_login_doubles_up_to_its_limit() -> None:
    clock = Clock()
    guard = LoginGuard()
    tries = 0

    async def connect() -> Any:
        nonlocal tries
        tries += 1
        if tries <= 6:
            raise LoginRefused("h:25 answered 535")
        return "connection"

    pause = FIRST_LOGIN_PAUSE
    assert pause >= 60
    for expected in range(1, 7):
        with pytest.raises(LoginRefused):
            await guard.run(connect, clock)
        assert tries == expected
        clock.now += pause - 0.1
        with pytest.raises(LoginRefused):
            await guard.run(connect, clock)
        assert tries == expected
        clock.now += 0.1
        pause = min(2 * pause, LONGEST_LOGIN_PAUSE)
    assert [await guard.run(connect, clock) for _ in range(2)] == ["connection"] * 2


async def test_a_mechanism_that_is_refused_as_such_is_followed_by_the_next() -> None:
    async with ScriptedPeer(credentials=(b"user", b"wrong")) as peer, _logging_in(peer) as up:
        peer.on(Step.AUTH, say(b"504 5.5.4 mechanism not supported"), matching=b"PLAIN")
        assert code(await deliver(up, ONE)) == 250
        assert [command.split()[1] for command in peer.commands(b"AUTH")] == [b"PLAIN", b"LOGIN"]


def _logging_in(peer: ScriptedPeer) -> Any:
    return upstream(peer.port, **USER)


def test_a_password_is_not_in_the_representation() -> None:
    assert "secret" not in repr(Target(HOST, 25, user="user", password="secret"))


# Unreachable


async def test_those_who_wait_hear_at_once_that_the_upstream_is_unreachable(peer: ScriptedPeer) -> None:
    """200 transactions, 2 places, and an upstream that never answers: not 100 time limits, one after the other."""
    peer.on(Step.GREETING, hang(), times=None)
    async with upstream(peer.port, connections=2, patience=0.5, greeting_limit=0.5) as up:
        begun = asyncio.get_running_loop().time()
        sent = await asyncio.gather(*(up.begin(SENDER).rcpt(ONE) for _ in range(200)))
        assert asyncio.get_running_loop().time() - begun < 3 * (0.5 + 0.5), "in a queue it takes 50 s"
    assert set(sent) == {UNREACHABLE}
    assert len(peer.sessions) <= 8


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), OSError("odd")])
async def test_an_error_of_the_connection_is_a_reply_and_no_exception(error: OSError) -> None:
    async def fail(target: Target) -> Any:
        raise error

    async with upstream(1, patience=0.0) as up:
        context = up._context
        route = Route([Target(HOST, 1)], fail, asyncio.get_running_loop().time)
        pool = Pool(route.connection, 1)
        failing = type(context)(route, pool, 1.0, 1.0, 0.0)
        up._context = failing
        assert await up.begin(SENDER).rcpt(ONE) == UNREACHABLE


# Penalties


async def test_a_transaction_leaves_a_connection_on_which_refusals_are_penalised(peer: ScriptedPeer) -> None:
    """As in Postfix, which delays each reply by 1 s from the tenth refusal on."""
    refusals: Counter[int] = Counter()

    async def refuse(session: Caller) -> bytes:
        refusals[session.number] += 1
        if refusals[session.number] >= 10:
            await asyncio.sleep(1.0)
        return b"550 5.1.1 unknown"

    peer.on(Step.RCPT, refuse, matching=b"unknown", times=None)
    async with upstream(peer.port) as up:
        delivery = up.begin(SENDER)
        unknown = [b"unknown%d@example.test" % number for number in range(50)]
        assert await offer(delivery, *unknown, ONE) == [*[550] * 50, 250]
        assert await prepare(delivery, ONE) == [250]
        assert code(await delivery.send(b"", MAIL)) == 250
        await delivery.finish()
    assert sum(count >= 10 for count in refusals.values()) == 1, "learned from the first delay"
    assert len(peer.commands(b"RCPT")) == 51


# Loans


async def test_a_transaction_that_never_pauses_lends_its_connection_when_others_wait(peer: ScriptedPeer) -> None:
    async with upstream(peer.port, connections=1, longest_idle_in_transaction=60.0, longest_loan=0.3) as up:
        chatty, stop = up.begin(SENDER), asyncio.Event()
        named: list[bytes] = []

        async def name_recipients() -> None:
            while not stop.is_set():
                named.append(b"chatty%d@example.test" % len(named))
                assert (await chatty.rcpt(named[-1])).code == 250
                await asyncio.sleep(0.02)

        task = asyncio.create_task(name_recipients())
        async with asyncio.timeout(3 * 5 * 0.3):
            for path in (ONE, TWO, THREE, ONE, TWO):
                assert code(await deliver(up, path)) == 250
        stop.set()
        await task
        assert set(await prepare(chatty, *named)) == {250}
        assert code(await chatty.send(b"", MAIL)) == 250
        await chatty.finish()
    assert peer.copies() == {ONE: 2, TWO: 2, THREE: 1, **dict.fromkeys(named, 1)}
    assert len(peer.commands(b"RCPT")) <= 2 * (len(named) + 5)


# Long replies


@pytest.mark.parametrize("step", [Step.GREETING, Step.EHLO, Step.MAIL, Step.RCPT])
async def test_a_long_reply_is_cut_before_it_is_stored_or_quoted(
    peer: ScriptedPeer, step: Step, caplog: pytest.LogCaptureFixture
) -> None:
    peer.on(step, say_and_drop(b"421 " + b"a@b." * 1500), times=None)
    async with upstream(peer.port, patience=0.0) as up:
        assert await deliver(up, ONE) == UNREACHABLE
    assert events(caplog)
    assert max(len(str(fields["error"])) for *_, fields in events(caplog)) < 700


async def test_a_line_of_64_kib_reaches_the_client_cut(peer: ScriptedPeer) -> None:
    peer.on(Step.RCPT, say(b"550 user@example.test " + b"a" * 65_000))
    peer.on(Step.MAIL, say(b"".join(b"550-%d\r\n" % number for number in range(5000)) + b"550 end"), skip=1)
    async with upstream(peer.port) as up:
        for _ in range(2):
            reply = await deliver(up, ONE)
            assert isinstance(reply, Reply)
            assert reply.code == 550
            assert len(reply.encode()) < 2000


async def test_the_steps_of_a_connection_and_a_transaction_are_observed(peer: ScriptedPeer) -> None:
    steps: Counter[str] = Counter()
    up = SmtpUpstream(
        [Target(HOST, peer.port)],
        connections=1,
        reply_timeout=20.0,
        dot_timeout=20.0,
        patience=0.0,
        observe=lambda step, seconds: steps.update({step: seconds >= 0}),
    )
    assert code(await deliver(up, ONE, TWO)) == 250
    assert steps == {"connect": 1, "greeting": 1, "ehlo": 1, "mail": 1, "rcpt": 1, "data": 1, "dot": 1}
    delivery = up.begin(SENDER)
    await offer(delivery, ONE)
    assert up.connections_in_use == 1
    await delivery.finish()
    assert up.connections_in_use == 0
    await up.close()
    with pytest.raises(UpstreamDown):
        await Route([Target(HOST, 1)], _down, asyncio.get_running_loop().time).connection()


async def _down(target: Target) -> Any:
    raise UpstreamDown(str(target))
