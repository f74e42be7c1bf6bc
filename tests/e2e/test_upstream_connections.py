"""Connections to the upstream: kept, reused, replaced, and how little clients notice of their faults."""

from __future__ import annotations

import contextlib
import itertools
import time
from typing import TYPE_CHECKING, Any

import pytest
from parts.client import Answer, RawClient, send
from parts.faults import Step, drop, hang, reset, say, say_and_drop
from parts.logged import wait_logged, wait_upstream
from parts.peer import ScriptedPeer
from parts.waiting import until

if TYPE_CHECKING:
    from conftest import StartRelay
    from parts.peer_session import Session
    from parts.relay_process import RelayProcess

SENDER = b"sender@example.test"
USER, OTHER = b"user@example.test", b"other@example.test"
UNREACHABLE = Answer(451, (b"4.4.1 The upstream mail server cannot be reached, try again later",))
BUSY = b"421 4.3.2 busy, ask user@example.test"


@pytest.fixture
async def relay(start_relay: StartRelay, peer: ScriptedPeer) -> RelayProcess:
    started = await start_relay(upstream=peer.url)
    await wait_upstream(started, "up")
    return started


def mail(text: object) -> bytes:
    return f"Subject: {text}\r\n\r\n{text}\r\n".encode()


async def sends(relay: RelayProcess, text: object, *recipients: bytes) -> bool:
    sent = await send(relay.port, SENDER, recipients or [USER], mail(text))
    return sent.ok and all(answer.code == 250 for answer in sent.rcpt)


# Kept


async def test_connections_are_kept_and_retired_by_count(relay: RelayProcess, peer: ScriptedPeer) -> None:
    for number in range(120):
        assert await sends(relay, number)
    assert len(peer.accepted) == 120
    # The first one ended with QUIT after 100 messages.
    await peer.wait_for(lambda: not peer.sessions[0].open, "the end of the first session")
    assert [session.count(b"DATA") for session in peer.sessions] == [100, 20]
    assert peer.sessions[0].commands[-1] == b"QUIT"
    assert peer.commands(b"NOOP") == []


async def test_a_connection_that_died_while_idle_costs_the_client_nothing(
    relay: RelayProcess, peer: ScriptedPeer
) -> None:
    assert await sends(relay, "before")
    ends: list[dict[str, Any]] = [{}, {"farewell": b"421 4.4.2 idle"}, {"broken": True}]
    for number, end in enumerate(ends):
        peer.hang_up(**end)
        await peer.wait_for(lambda: not peer.open_sessions, "the end of the idle session")
        assert await sends(relay, number), end
    assert [message.session for message in peer.accepted] == [1, 2, 3, 4]


async def test_a_dead_connection_found_at_its_next_use_costs_no_patience(
    start_relay: StartRelay, peer: ScriptedPeer
) -> None:
    relay = await start_relay(upstream=peer.url, settings={"upstream.patience": "0s"})
    await wait_upstream(relay, "up")
    peer.on(Step.MAIL, reset(), session=1)
    assert await sends(relay, 1)
    assert [message.session for message in peer.accepted] == [2]


# Repeated before the dot only


async def test_a_connection_lost_before_the_dot_is_repeated_unnoticed(relay: RelayProcess, peer: ScriptedPeer) -> None:
    cases = list(itertools.product((Step.MAIL, Step.RCPT, Step.DATA), (say_and_drop(BUSY), drop(), reset())))
    for number, (step, action) in enumerate(cases):
        fault = peer.on(step, action)
        assert await sends(relay, number, USER, OTHER), step
        assert fault.visits >= 1
    assert [message.recipients for message in peer.accepted] == [(USER, OTHER)] * len(cases)
    assert len(peer.received) == len(cases)


async def test_a_negative_greeting_is_repeated_unnoticed(relay: RelayProcess, peer: ScriptedPeer) -> None:
    for number, action in enumerate((say_and_drop(b"450 4.3.2 later"), say_and_drop(BUSY), drop())):
        peer.hang_up()
        await peer.wait_for(lambda: not peer.open_sessions, "the end of the idle session")
        fault = peer.on(Step.GREETING, action, times=3)
        assert await sends(relay, number)
        assert fault.visits > 3
    assert len(peer.accepted) == 3


async def test_a_client_that_waits_for_an_upstream_to_come_back_is_served(
    relay: RelayProcess, peer: ScriptedPeer
) -> None:
    await peer.stop()
    async with await RawClient.open(relay.port) as client:
        await client.begin(SENDER)
        await client.send_raw(b"RCPT TO:<%b>\r\n" % USER)
        await wait_upstream(relay, "down")
        await peer.start()
        assert (await client.read_reply()).code == 250
        assert (await client.content(mail(1))).code == 250
    assert peer.copies() == {USER: 1}


async def test_with_the_upstream_down_fifty_recipients_cost_patience_once(
    start_relay: StartRelay, peer: ScriptedPeer
) -> None:
    relay = await start_relay(upstream=peer.url, settings={"upstream.patience": "1s"})
    await wait_upstream(relay, "up")
    await peer.stop()
    begun = time.monotonic()
    sent = await send(relay.port, SENDER, [b"user%d@example.test" % number for number in range(50)], mail(1))
    assert time.monotonic() - begun < 25, "each for itself they would cost 50 s"
    assert sent.rcpt == (UNREACHABLE,) * 50
    await wait_logged(relay, f'"error": "no connection to 127.0.0.1:{peer.port}: Connection refused", "seconds": 1')
    await peer.start()
    assert await sends(relay, 1)


async def test_421_for_as_long_as_patience_lasts_is_451_to_the_client(
    start_relay: StartRelay, peer: ScriptedPeer
) -> None:
    relay = await start_relay(upstream=peer.url, settings={"upstream.patience": "0.5s"})
    for step in (Step.MAIL, Step.RCPT):
        peer.forgive()
        peer.on(step, say_and_drop(BUSY), times=None)
        assert (await send(relay.port, SENDER, [USER], mail(1))).rcpt == (UNREACHABLE,)
    # The log has the upstream's text without addresses.
    await wait_logged(relay, 'answered 421 4.3.2 busy, ask <address>", "seconds": 0.5')
    assert "user@" not in relay.stderr()
    peer.forgive()
    peer.on(Step.DATA, say_and_drop(BUSY), times=None)
    assert (await send(relay.port, SENDER, [USER], mail(1))).final == UNREACHABLE
    assert peer.received == []
    peer.forgive()
    assert await sends(relay, 1)
    metrics = await relay.metrics()
    assert metrics.outcomes() == {"deferred": 1, "forwarded": 1}
    assert metrics.messages() == {"4xx": 1, "2xx": 1}


# After the dot


async def test_after_the_dot_nothing_is_sent_again(relay: RelayProcess, peer: ScriptedPeer) -> None:
    cases = [(say_and_drop(BUSY), 451), (say(b"452 4.3.1 full"), 452), (say(b"554 5.7.1 spam"), 554), (drop(), 451)]
    for number, (action, code) in enumerate(cases):
        peer.on(Step.DOT, action)
        assert (await send(relay.port, SENDER, [USER], mail(number))).final.code == code
        assert (len(peer.received), len(peer.accepted)) == (2 * number + 1, number)
        # The client's retry is forwarded.
        assert await sends(relay, number)
        assert (len(peer.received), len(peer.accepted)) == (2 * number + 2, number + 1)


async def test_a_dot_that_is_never_answered_ends_at_its_limit(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=peer.url, settings={"upstream.dot_timeout": "2s"})
    peer.on(Step.DOT, hang())
    sent = await send(relay.port, SENDER, [USER], mail(1))
    assert sent.final.code == 451
    assert sent.final.text.startswith(b"4.4.2 ")
    assert (await relay.metrics()).outcomes() == {"uncertain": 1}
    assert await sends(relay, 1)
    assert (len(peer.received), len(peer.accepted)) == (2, 1)


# Shared


async def test_clients_that_stall_leave_the_upstream_to_others(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=peer.url, settings={"upstream.connections": 2})
    await wait_upstream(relay, "up")
    async with await RawClient.open(relay.port) as silent, await RawClient.open(relay.port) as slow:
        for client in (silent, slow):
            assert [answer.code for answer in await client.begin(SENDER, USER)] == [250]
        assert (await slow.command(b"DATA")).code == 354
        await slow.send_raw(b"Subject: slow\r\n")
        begun = time.monotonic()
        assert await sends(relay, 1)
        assert time.monotonic() - begun < 10
        assert (await silent.command(b"RCPT TO:<%b>" % OTHER)).code == 250
        assert (await silent.content(mail("silent"))).code == 250
        assert (await slow.command(b"\r\nslow\r\n.")).code == 250
    # Another connection gets the recipient that was named last first, the earlier one with DATA.
    assert [message.recipients for message in peer.accepted] == [(USER,), (OTHER, USER), (USER,)]


# Without PIPELINING


async def test_an_upstream_without_pipelining_gets_one_command_at_a_time(start_relay: StartRelay) -> None:
    behind: list[bytes] = []

    async def look_behind(session: Session) -> None:
        with contextlib.suppress(TimeoutError):
            await until(lambda: session.reader._buffer, "more", seconds=0.3)
        behind.append(bytes(session.reader._buffer))

    async with ScriptedPeer(extensions=[b"8BITMIME"]) as peer:
        peer.on(Step.RSET, look_behind, times=None)
        relay = await start_relay(upstream=peer.url, settings={"upstream.connections": 1})
        await wait_upstream(relay, "up")
        assert await sends(relay, 1, USER)
        assert await sends(relay, 1, USER)  # a repeat: the transaction is left
        assert await sends(relay, 1, USER, OTHER)  # left, and a narrower one begun
        assert await sends(relay, 2, USER)
        assert [message.recipients for message in peer.accepted] == [(USER,), (OTHER,), (USER,)]
        assert len(peer.sessions) == 1
        assert peer.sessions[0].count(b"RSET") == 2
        assert peer.sessions[0].ahead == 0
        assert behind == [b"", b""]
