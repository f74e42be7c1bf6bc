"""How a transaction with an upstream ends, and how long it may last."""

from __future__ import annotations

import asyncio

import pytest
from parts.faults import Step, drop, hang, say, say_and_drop, wait
from parts.peer import ScriptedPeer
from parts.ports import free_port
from parts.upstream_delivery import MAIL, ONE, SENDER, THREE, TWO, code, deliver, offer, prepare, upstream

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
        assert asyncio.get_running_loop().time() - begun < 8, "each for itself they would cost 15 s"


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


async def test_a_kept_connection_that_hangs_costs_patience(peer: ScriptedPeer) -> None:
    """One that died is replaced for nothing; one that hangs has used up its time, and there is no second helping."""
    async with upstream(peer.port, reply_timeout=0.3, patience=0.2) as up:
        assert code(await deliver(up, ONE)) == 250
        peer.on(Step.MAIL, hang(), times=None)
        assert await deliver(up, TWO) == UNREACHABLE
    assert len(peer.commands(b"MAIL")) == 2


@pytest.mark.parametrize("step", [Step.MAIL, Step.RCPT])
async def test_the_log_names_the_upstream_and_its_last_words(
    peer: ScriptedPeer, caplog: pytest.LogCaptureFixture, step: Step
) -> None:
    peer.on(step, say_and_drop(b"421 4.3.2 going down"), times=None)
    async with upstream(peer.port, patience=0.05) as up:
        assert await deliver(up, ONE) == UNREACHABLE
    told = f"127.0.0.1:{peer.port}: answered 421 4.3.2 going down; tried for 0.05 s"
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [told]


async def test_who_stops_in_the_middle_keeps_nobody_from_the_upstream(peer: ScriptedPeer) -> None:
    """Two have their recipients taken and stop; the third gets through, and then the two."""
    async with upstream(peer.port, connections=2, longest_idle_in_transaction=0.1) as up:
        stuck = [up.begin(SENDER), up.begin(SENDER)]
        assert [await offer(delivery, ONE, TWO) for delivery in stuck] == [[250, 250]] * 2
        async with asyncio.timeout(5):
            assert code(await deliver(up, THREE)) == 250
        # One asks for another recipient, both for the content.
        assert await offer(stuck[0], THREE) == [250]
        assert await prepare(stuck[0], ONE, TWO, THREE) == [250, 250, 250]
        assert code(await stuck[0].send(b"", MAIL)) == 250
        await stuck[0].finish()
        assert await prepare(stuck[1], ONE, TWO) == [250, 250]
        assert code(await stuck[1].send(b"", MAIL)) == 250
        await stuck[1].finish()
    assert peer.copies() == {ONE: 2, TWO: 2, THREE: 2}
    assert len(peer.sessions) == 2


@pytest.mark.parametrize("step", [Step.RCPT, Step.DATA, Step.DOT])
async def test_a_connection_in_use_is_not_taken_away(peer: ScriptedPeer, step: Step) -> None:
    """Neither one that waits for a reply, nor one on which content was asked for."""
    gate = asyncio.Event()
    peer.on(step, wait(gate))
    async with upstream(peer.port, connections=1, longest_idle_in_transaction=0.0) as up:
        first = asyncio.create_task(deliver(up, ONE))
        await peer.wait_waiting(step)
        second = asyncio.create_task(deliver(up, TWO))
        await asyncio.sleep(0.1)
        assert not second.done()
        assert len(peer.received) == (step is Step.DOT)
        gate.set()
        assert code(await first) == 250
        assert code(await second) == 250
        third = up.begin(SENDER)
        assert await offer(third, THREE) == [250]
        assert await prepare(third, THREE) == [250]
        fourth = asyncio.create_task(deliver(up, TWO))
        await asyncio.sleep(0.1)
        assert not fourth.done()
        assert code(await third.send(b"", MAIL)) == 250
        await third.finish()
        assert code(await fourth) == 250
    assert peer.copies() == {ONE: 1, TWO: 2, THREE: 1}
    assert len(peer.sessions) == 1


async def test_waiting_for_a_connection_has_its_own_limit_and_answer(peer: ScriptedPeer) -> None:
    async with upstream(peer.port, connections=1, longest_wait=0.05) as up:
        first, second = up.begin(SENDER), up.begin(SENDER)
        await offer(first, ONE)
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
