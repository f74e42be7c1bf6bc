"""What one session, and one client, may use up: commands, time, and the rate of content."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from contextlib import suppress
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
from parts import dialog_servers as servers
from parts import virtual_time
from parts.client import GONE, RawClient, stuff
from parts.faults import Step, wait
from parts.waiting import LONGEST, until

from relay.core import reply as replies
from relay.core.client import LOCAL
from relay.core.login import Login
from relay.core.session_refusal import SessionRefusal
from relay.logins.passwords import hash_password
from relay.settings import Settings
from relay.smtp.rate_limits import MOST_KEYS, RateLimit
from relay.smtp.reader import Reader, TimedOut
from relay.smtp.session import Session
from relay.smtp.session_table import SessionLimits, SessionTable

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from parts.client import Answer
    from parts.peer import ScriptedPeer

SENDER, ONE = b"sender@example.test", b"one@example.test"
MAIL = b"Subject: x\r\n\r\nhello\r\n"
KIB, MIB = 1 << 10, 1 << 20
IDLE, RATE = 300.0, KIB
"""Seconds, and bytes per second: the defaults."""


def refused(relay: servers.Relay) -> dict[str, int]:
    counts = {item.reason: int(c._value.get()) for item, c in relay.service.metrics.sessions_refused.items()}
    return {reason: count for reason, count in counts.items() if count}


async def expect_end(client: RawClient, answer: Answer, text: bytes) -> None:
    assert answer.code == 421
    assert answer.text.startswith(text)
    assert await client.read_reply() == GONE


def session_of(relay: servers.Relay) -> Session:
    [session] = relay.service.listener.table._sessions
    return session


def test_the_defaults_are_those_of_the_documentation() -> None:
    limits = Settings().limits
    assert (limits.client_sessions, limits.commands, limits.session_idle) == (50, 300, IDLE)
    assert (limits.session_time, limits.min_data_rate) == (7200.0, RATE)
    assert (limits.message_rate, limits.recipient_rate) == (600, 10_000)


# Commands


@pytest.mark.parametrize(
    "command", [b"NOOP", b"RSET", b"EHLO me", b"HELP", b"VRFY x", b"DATA", b"MAIL FROM:<a@x.test>"]
)
async def test_commands_without_a_message_end_the_session(peer: ScriptedPeer, command: bytes) -> None:
    async with servers.relay(peer.url, {"limits.commands": 8}) as relay, await RawClient.open(relay.port) as client:
        await client.command(b"EHLO me")
        assert 421 not in {(await client.command(command)).code for _ in range(7)}
        await expect_end(client, await client.command(command), b"4.7.0 Too many commands")
        assert refused(relay) == {"commands": 1}


async def test_an_accepted_message_and_its_recipients_do_not_count(peer: ScriptedPeer) -> None:
    recipients = [b"r%d@example.test" % number for number in range(20)]
    async with servers.relay(peer.url, {"limits.commands": 8}) as relay, await RawClient.open(relay.port) as client:
        for number in range(10):
            assert {answer.code for answer in await client.begin(SENDER, *recipients)} == {250}
            assert (await client.content(b"mail %d" % number)).code == 250
        assert len(peer.accepted) == 10


async def test_any_number_of_commands_without_the_limit(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url, {"limits.commands": 0}) as relay, await RawClient.open(relay.port) as client:
        await client.send_raw(b"NOOP\r\n" * 1000)
        assert {(await client.read_reply()).code for _ in range(1000)} == {250}


async def test_too_many_errors_are_counted(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url) as relay, await RawClient.open(relay.port) as client:
        codes = [(await client.command(b"EXPN list")).code for _ in range(20)]
        assert codes == [500] * 19 + [421]
        assert refused(relay) == {"errors": 1}


async def test_a_recipient_that_is_named_again_and_again_is_refused_in_the_end(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url, {"limits.recipients": 5}) as relay, await RawClient.open(relay.port) as client:
        await client.begin(SENDER, ONE)
        await client.send_raw(b"RCPT TO:<%b>\r\n" % ONE * 1005)
        codes = [(await client.read_reply()).code for _ in range(1005)]
        assert codes == [250] * 1004 + [452]
        assert (await client.content(MAIL)).code == 250
    assert peer.copies() == {ONE: 1}


# Sessions of one client


def places(**limits: object) -> SessionTable:
    networks = [ip_network("127.0.0.0/8")]
    return SessionTable(SessionLimits(networks, 0, 2000, IDLE, logins=True, **limits), None)  # type: ignore[arg-type]


class Place:
    in_transaction = False

    def __init__(self, peer: str) -> None:
        self.peer = peer


@pytest.mark.parametrize(("peer", "most"), [("192.0.2.1", 50), ("2001:db8::1", 50), ("127.0.0.1", 1900)])
async def test_a_client_that_must_log_in_has_a_number_of_sessions(peer: str, most: int) -> None:
    table, count = places(client_sessions=50), 0
    while not (refusal := table.refusal(peer)):
        table.add(Place(peer))  # type: ignore[arg-type]
        count += 1
    assert count == most
    assert refusal is (SessionRefusal.CLIENT_SHARE if most == 1900 else SessionRefusal.CLIENT_SESSIONS)
    assert not table.refusal("192.0.2.2")


async def test_one_session_too_many_of_a_client_receives_421(peer: ScriptedPeer, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("")
    settings = {
        "listen.networks": ["192.0.2.0/24"],
        "auth.mode": "file",
        "auth.users_file": str(users),
        "limits.client_sessions": 1,
    }
    async with servers.relay(peer.url, settings) as relay, await RawClient.open(relay.port) as one:
        assert one.greeting.code == 220
        async with await RawClient.open(relay.port) as two:
            await expect_end(two, two.greeting, b"4.3.2 ")
        assert refused(relay) == {"client_sessions": 1}


# Time


async def test_an_idle_session_is_counted(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url, {"limits.session_idle": "0.1s"}) as relay:
        async with await RawClient.open(relay.port) as client:
            await expect_end(client, await client.read_reply(), b"4.4.2 Idle")
        assert refused(relay) == {"idle": 1}


async def test_a_session_ends_after_its_time_while_it_waits(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url, {"limits.session_time": "0.2s"}) as relay:
        async with await RawClient.open(relay.port) as client:
            await expect_end(client, await client.read_reply(), b"4.4.2 The session")
        assert refused(relay) == {"session_time": 1}


async def test_a_session_ends_after_its_time_at_the_next_transaction(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url) as relay, await RawClient.open(relay.port) as client:
        await client.command(b"EHLO me")
        session_of(relay)._session_until = 0.0
        await expect_end(client, await client.command(b"MAIL FROM:<a@x.test>"), b"4.4.2 The session")
        assert refused(relay) == {"session_time": 1}


async def test_a_transaction_outlives_the_time_of_its_session(peer: ScriptedPeer) -> None:
    """Also its own time, once its content is complete."""
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    async with servers.relay(peer.url) as relay, await RawClient.open(relay.port) as client:
        await client.begin(SENDER, ONE)
        session = session_of(relay)
        session._session_until = 0.0
        assert (await client.command(b"NOOP")).code == 250
        assert (await client.command(b"DATA")).code == 354
        await client.send_raw(stuff(MAIL))
        await peer.wait_waiting(Step.DOT)
        session._transaction_until = 0.0
        gate.set()
        assert (await client.read_reply()).code == 250
        await expect_end(client, await client.read_reply(), b"4.4.2 The session")
    assert peer.copies() == {ONE: 1}


@pytest.mark.parametrize("command", [b"NOOP", b"DATA"])
async def test_a_transaction_without_an_end_ends_after_its_time(peer: ScriptedPeer, command: bytes) -> None:
    async with servers.relay(peer.url) as relay, await RawClient.open(relay.port) as client:
        table = relay.service.listener.table
        table.limits = dataclasses.replace(table.limits, session_time=0.3)
        await client.begin(SENDER, ONE)
        await client.command(command)
        await expect_end(client, await client.read_reply(), b"4.4.2 The session")
        assert refused(relay) == {"session_time": 1}
    assert not peer.received


# The rate of content


async def test_slow_content_ends_the_session(peer: ScriptedPeer) -> None:
    """The client is never silent: one octet follows the other."""
    settings = {"limits.session_idle": "0.3s", "limits.min_data_rate": "1GiB"}
    async with servers.relay(peer.url, settings) as relay, await RawClient.open(relay.port) as client:
        await client.begin(SENDER, ONE)
        await client.command(b"DATA")
        answer = None
        async with asyncio.timeout(LONGEST):
            while answer is None:
                await client.send_raw(b"x")
                with suppress(TimeoutError):
                    answer = await client.read_reply(seconds=0.02)
        await expect_end(client, answer, b"4.4.2 The content")
        assert refused(relay) == {"data_rate": 1}
        await until(lambda: relay.service._memory.used == 0, "the memory")
    assert not peer.received


async def upload(*steps: tuple[float, int], rate: int = RATE, session_time: float = math.inf) -> tuple[str, float]:
    """Feeds a reader: for each step waits some seconds, then sends octets. Returns why it ended, and when."""
    loop = asyncio.get_running_loop()
    source = Reader(lambda: None, lambda: None, IDLE, rate)
    source.until = session_time
    reading = asyncio.create_task(source.content(100 * MIB))
    for seconds, size in steps:
        await asyncio.wait([reading], timeout=seconds)
        if reading.done():
            break
        source.feed(b"x" * size)
    else:
        source.feed(b"\r\n.\r\n")
    return await _end(reading), loop.time()


async def _end(reading: Awaitable[bytes]) -> str:
    try:
        await reading
    except TimedOut as limit:
        return limit.refusal.reason
    return "complete"


@pytest.mark.parametrize(
    ("steps", "rate", "end", "at"),
    [
        ([(299, 1)] * 100, RATE, "data_rate", 300.0),  # one octet each 299 s
        ([(0, 49 * MIB), *[(299, 1)] * 100], RATE, "data_rate", 300.0),  # the same after nearly all was sent at once
        ([(299, 1)] * 10, 0, "complete", 2990.0),
        ([(10, 10 * KIB)] * 1000, RATE, "complete", 10_000.0),  # exactly the rate
        ([(10, 9 * KIB)] * 1000, RATE, "data_rate", 2910.0),  # a tenth less
        ([(0, MIB), (299, 300 * KIB)] * 20, RATE, "complete", 5980.0),  # long pauses
        ([(299, 300 * KIB), (301, 1)], RATE, "idle", 599.0),
    ],
)
def test_content_must_keep_the_rate(steps: list[tuple[float, int]], rate: int, end: str, at: float) -> None:
    ended, when = virtual_time.run(upload(*steps, rate=rate))
    assert ended == end
    assert at <= when <= at * 1.01 + 1


def test_content_must_end_with_its_session() -> None:
    assert virtual_time.run(upload(*[(10, 10 * KIB)] * 1000, session_time=7200.0)) == ("session_time", 7200.0)


# The rate of messages and recipients


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_minutes_number_may_come_at_once_and_comes_back_evenly() -> None:
    clock = Clock()
    rate = RateLimit(600, clock)
    assert [rate.admit(["a"]) for _ in range(601)] == [True] * 600 + [False]
    assert rate.admit(["b"])
    clock.now = 0.1
    assert [rate.admit(["a"]) for _ in range(2)] == [True, False]
    clock.now = 60.1
    assert [rate.admit(["a"]) for _ in range(601)] == [True] * 600 + [False]


def test_a_refusal_counts_for_no_key() -> None:
    rate = RateLimit(2, Clock())
    assert [rate.admit(["client"]) for _ in range(2)] == [True, True]
    assert not rate.admit(["client", "user"])
    assert [rate.admit(["user"]) for _ in range(3)] == [True, True, False]


def test_a_bounded_number_of_clients_is_remembered() -> None:
    rate = RateLimit(1, Clock())
    for number in range(MOST_KEYS + 100):
        assert rate.admit([str(number)])
    assert len(rate._counted) == MOST_KEYS
    assert not rate.admit(["100"])
    assert rate.admit(["99"])


@pytest.fixture
def users(tmp_path: Path) -> Path:
    file = tmp_path / "users"
    file.write_text(f"anna:{hash_password(b's3cret')}\nbert:{hash_password(b's3cret')}\n")
    return file


async def logged_in(relay: servers.Relay, peer_address: str, name: str) -> Session:
    """Returns a session of a client of any address: all sockets of a test are on loopback."""
    listener = relay.service.listener
    session = Session(listener.table, peer_address, lambda reply: None)
    await session.ehlo(b"me")
    session.login.current = Login(name)
    return session


async def message(session: Session, *recipients: bytes) -> list[int]:
    codes = [(await session.mail(SENDER, ())).code, *[(await session.rcpt(path, ())).code for path in recipients]]
    await session.abandon()
    return codes


async def test_the_rate_counts_for_each_client_and_each_user(peer: ScriptedPeer, users: Path) -> None:
    settings = {"auth.mode": "file", "auth.users_file": str(users), "limits.message_rate": 2}
    async with servers.relay(peer.url, settings) as relay:
        first = await logged_in(relay, "192.0.2.1", "anna")
        refusal = replies.TOO_MANY_MESSAGES_PER_MINUTE
        assert [(await message(first, ONE))[0] for _ in range(2)] == [250, 250]
        assert await first.mail(SENDER, ()) == refusal
        assert refusal.encode().startswith(b"450 4.7.1 ")
        for address, name, code in [
            ("192.0.2.2", "anna", 450),  # the same user from another address
            ("192.0.2.1", "bert", 450),  # another user from the same address
            ("192.0.2.2", "bert", 250),
            ("127.0.0.1", "anna", 250),  # trusted
            (LOCAL, "anna", 250),
        ]:
            session = await logged_in(relay, address, name)
            assert (await session.mail(SENDER, ())).code == code, (address, name)
            await session.abandon()
        counts = relay.service.metrics.senders_refused
        assert counts["rate"]._value.get() == 3


async def test_too_many_recipients_per_minute_receive_450(peer: ScriptedPeer, users: Path) -> None:
    settings = {"auth.mode": "file", "auth.users_file": str(users), "limits.recipient_rate": 3}
    async with servers.relay(peer.url, settings) as relay:
        session = await logged_in(relay, "192.0.2.1", "anna")
        paths = [b"r%d@example.test" % number for number in range(4)]
        assert await message(session, *paths) == [250, 250, 250, 250, 450]
        assert replies.TOO_MANY_RECIPIENTS_PER_MINUTE.encode().startswith(b"450 4.7.1 ")
        assert relay.service.metrics._rcpt_refused["rate"]._value.get() == 1
        assert await message(await logged_in(relay, "127.0.0.1", "anna"), *paths) == [250] * 5


async def test_a_trusted_client_sends_any_number_per_minute(peer: ScriptedPeer) -> None:
    settings = {"limits.message_rate": 1, "limits.recipient_rate": 1}
    async with servers.relay(peer.url, settings) as relay, await RawClient.open(relay.port) as client:
        for number in range(5):
            assert {answer.code for answer in await client.begin(SENDER, ONE, b"two@example.test")} == {250}
            assert (await client.content(b"mail %d" % number)).code == 250
