"""How a transaction with an upstream ends, and how long it may last."""

from __future__ import annotations

import asyncio

import pytest
from dialogs.delivery import MAIL, ONE, SENDER, THREE, TWO, code, deliver, offer, prepare, upstream
from parts.faults import Step, drop, hang, say, wait
from parts.peer import ScriptedPeer
from parts.ports import free_port

from relay.core.envelope import Envelope
from relay.core.reply import UNREACHABLE, UPSTREAM_BUSY


async def test_content_that_never_comes_ends_the_connection(peer: ScriptedPeer) -> None:
    """After 354 whatever we said would be content, also RSET."""
    async with upstream(peer.port) as up:
        delivery = up.begin(SENDER)
        await offer(delivery, ONE)
        assert await prepare(delivery, ONE) == [250]
        await delivery.finish()
        await delivery.finish()
        await peer.wait_for(lambda: not peer.open_sessions, "the end of the session")
        assert code(await deliver(up, TWO)) == 250
    assert [message.content for message in peer.received] == [MAIL.plain]
    assert len(peer.sessions) == 2


async def test_without_content_wanted_nothing_is_sent(peer: ScriptedPeer) -> None:
    async with upstream(peer.port) as up:
        delivery = up.begin(SENDER)
        await offer(delivery, ONE)
        with pytest.raises(RuntimeError):
            await delivery.send(b"", MAIL)
        await delivery.finish()
        await peer.wait_for(lambda: peer.sessions[0].count(b"RSET"), "RSET")
    assert not peer.received


@pytest.mark.parametrize("step", [Step.MAIL, Step.RCPT, Step.DATA, Step.DOT])
async def test_an_abandoned_command_leaves_no_reply_behind(peer: ScriptedPeer, step: Step) -> None:
    gate = asyncio.Event()
    peer.on(step, wait(gate), say(b"559 this reply is nobody's"))
    async with upstream(peer.port, connections=1) as up:
        task = asyncio.create_task(deliver(up, ONE))
        await peer.wait_waiting(step)
        task.cancel()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert code(await deliver(up, TWO)) == 250
    assert peer.copies()[TWO] == 1
    assert len(peer.sessions) == 2


async def test_who_leaves_while_we_connect_leaves_no_connection_behind(peer: ScriptedPeer) -> None:
    peer.on(Step.EHLO, hang())
    async with upstream(peer.port, connections=1) as up:
        task = asyncio.create_task(deliver(up, ONE))
        await peer.wait_waiting(Step.EHLO)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert code(await deliver(up, TWO)) == 250


# Limits


async def test_patience_is_spent_once(peer: ScriptedPeer) -> None:
    async with upstream(free_port(), patience=0.3) as up:
        begun = asyncio.get_running_loop().time()
        delivery = up.begin(SENDER)
        assert {await delivery.rcpt(b"user%d@example.test" % number) for number in range(50)} == {UNREACHABLE}
        await delivery.finish()
        assert asyncio.get_running_loop().time() - begun < 2


async def test_patience_that_was_spent_on_one_recipient_is_not_there_for_the_next(peer: ScriptedPeer) -> None:
    async with upstream(peer.port, patience=0.3) as up:
        delivery = up.begin(SENDER)
        assert await offer(delivery, ONE) == [250]
        await peer.stop()
        assert await offer(delivery, TWO) == [451]
        await peer.start()
        assert await offer(delivery, THREE) == [451]
        assert await prepare(delivery, ONE) == [451]
        await delivery.finish()


async def test_a_5yz_greeting_is_not_tried_again_and_never_5yz_for_the_client(peer: ScriptedPeer) -> None:
    peer.on(Step.GREETING, say(b"554 5.7.1 not you"), times=None)
    async with upstream(peer.port) as up:
        assert await deliver(up, ONE) == UNREACHABLE
    assert len(peer.sessions) == 1


async def test_a_reply_that_does_not_come_is_a_lost_connection(peer: ScriptedPeer) -> None:
    peer.on(Step.RCPT, hang())
    async with upstream(peer.port, reply_timeout=0.1) as up:
        assert code(await deliver(up, ONE)) == 250
    assert len(peer.sessions) == 2


async def test_waiting_for_a_connection_has_its_own_limit_and_answer(peer: ScriptedPeer) -> None:
    async with upstream(peer.port, connections=1) as up:
        first, second = up.begin(SENDER), up.begin(SENDER)
        await offer(first, ONE)
        up.pool._longest_wait = 0.05
        assert await second.rcpt(TWO) == UPSTREAM_BUSY
        await first.finish()
        await second.finish()
        assert code(await deliver(up, TWO)) == 250
    assert len(peer.sessions) == 1


async def test_waiting_for_a_connection_uses_no_patience_up(peer: ScriptedPeer) -> None:
    """The one that waited gets a connection that has died, and another that dies: it has all its patience left."""
    async with upstream(peer.port, connections=1, patience=0.2) as up:
        first = up.begin(SENDER)
        await offer(first, ONE)
        begun = asyncio.get_running_loop().time()
        second = asyncio.create_task(deliver(up, TWO))
        peer.on(Step.MAIL, drop(), session=1)
        peer.on(Step.MAIL, drop(), session=2)
        asyncio.get_running_loop().call_at(begun + 0.4, lambda: asyncio.ensure_future(first.finish()))
        assert code(await second) == 250
        assert asyncio.get_running_loop().time() - begun > 0.4
    assert len(peer.sessions) == 3


async def test_extensions_decide_which_parameters_travel() -> None:
    envelope = Envelope(b"s\xc3\xa4@example.test", (b"BODY=8BITMIME", b"SMTPUTF8"))
    for offered, travels in (([b"8BITMIME"], (b"BODY=8BITMIME",)), ([b"SMTPUTF8"], (b"SMTPUTF8",)), ([], ())):
        async with ScriptedPeer(extensions=offered) as peer, upstream(peer.port) as up:
            delivery = up.begin(envelope)
            assert await offer(delivery, ONE) == [250]
            assert await prepare(delivery, ONE) == [250]
            await delivery.send(b"", MAIL)
            await delivery.finish()
            assert peer.accepted[0].parameters == travels
            assert peer.accepted[0].reverse_path == envelope.reverse_path


@pytest.mark.parametrize(
    ("size", "limit"),
    [(b"SIZE 1000", 1000), (b"SIZE 0", None), (b"SIZE", None), (b"SIZE x", None), (b"SIZE " + b"9" * 5000, None)],
)
async def test_the_size_limit_is_what_the_upstream_says(size: bytes, limit: int | None) -> None:
    async with ScriptedPeer(extensions=[size]) as peer, upstream(peer.port) as up:
        assert up.size_limit() is None
        await up.probe()
        assert up.size_limit() == limit
