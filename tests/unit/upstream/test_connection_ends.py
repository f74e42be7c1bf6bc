"""The end of a transaction with an upstream, and its time limits."""

from __future__ import annotations

import asyncio

import pytest
from parts.faults import Step, drop, hang, say, say_and_drop, wait
from parts.logged import events
from parts.peer import ScriptedPeer
from parts.ports import free_port
from parts.upstream_delivery import MAIL, ONE, SENDER, THREE, TWO, code, deliver, offer, prepare, upstream

from relay.core.envelope import Envelope
from relay.core.reply import UNREACHABLE, UPSTREAM_BUSY


async def test_a_transaction_that_ends_after_354_closes_the_connection(peer: ScriptedPeer) -> None:
    """After 354 the upstream would read RSET as content."""
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


async def test_send_before_prepare_raises_and_sends_nothing(peer: ScriptedPeer) -> None:
    async with upstream(peer.port) as up:
        delivery = up.begin(SENDER)
        await offer(delivery, ONE)
        with pytest.raises(RuntimeError):
            await delivery.send(b"", MAIL)
        await delivery.finish()
        await peer.wait_for(lambda: peer.sessions[0].count(b"RSET"), "RSET")
    assert not peer.received


@pytest.mark.parametrize("step", [Step.MAIL, Step.RCPT, Step.DATA, Step.DOT])
async def test_a_cancelled_command_leaves_no_reply_for_the_next_transaction(peer: ScriptedPeer, step: Step) -> None:
    gate = asyncio.Event()
    peer.on(step, wait(gate), say(b"559 reply to a cancelled command"))
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


async def test_a_delivery_cancelled_while_connecting_frees_its_slot(peer: ScriptedPeer) -> None:
    peer.on(Step.EHLO, hang())
    async with upstream(peer.port, connections=1) as up:
        task = asyncio.create_task(deliver(up, ONE))
        await peer.wait_waiting(Step.EHLO)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert code(await deliver(up, TWO)) == 250


# Time limits


async def test_patience_is_spent_once_per_transaction(peer: ScriptedPeer) -> None:
    async with upstream(free_port(), patience=0.3) as up:
        begun = asyncio.get_running_loop().time()
        delivery = up.begin(SENDER)
        assert {await delivery.rcpt(b"user%d@example.test" % number) for number in range(50)} == {UNREACHABLE}
        await delivery.finish()
        assert asyncio.get_running_loop().time() - begun < 8, "50 times the patience would be 15 s"


async def test_patience_spent_on_one_recipient_is_not_available_for_the_next(peer: ScriptedPeer) -> None:
    async with upstream(peer.port, patience=0.3) as up:
        delivery = up.begin(SENDER)
        assert await offer(delivery, ONE) == [250]
        await peer.stop()
        assert await offer(delivery, TWO) == [451]
        await peer.start()
        assert await offer(delivery, THREE) == [451]
        assert await prepare(delivery, ONE) == [451]
        await delivery.finish()


async def test_a_5yz_greeting_is_not_retried_and_is_451_for_the_client(peer: ScriptedPeer) -> None:
    peer.on(Step.GREETING, say(b"554 5.7.1 not you"), times=None)
    async with upstream(peer.port) as up:
        assert await deliver(up, ONE) == UNREACHABLE
    assert len(peer.sessions) == 1


async def test_a_missing_reply_counts_as_a_lost_connection(peer: ScriptedPeer) -> None:
    peer.on(Step.RCPT, hang())
    async with upstream(peer.port, reply_timeout=0.1) as up:
        assert code(await deliver(up, ONE)) == 250
    assert len(peer.sessions) == 2


async def test_a_pooled_connection_that_hangs_costs_patience(peer: ScriptedPeer) -> None:
    """A dead connection is replaced at no cost. A hanging one spends the patience."""
    async with upstream(peer.port, reply_timeout=0.3, patience=0.2) as up:
        assert code(await deliver(up, ONE)) == 250
        peer.on(Step.MAIL, hang(), times=None)
        assert await deliver(up, TWO) == UNREACHABLE
    assert len(peer.commands(b"MAIL")) == 2


@pytest.mark.parametrize("step", [Step.MAIL, Step.RCPT])
async def test_the_log_names_the_upstream_and_its_last_reply(
    peer: ScriptedPeer, caplog: pytest.LogCaptureFixture, step: Step
) -> None:
    peer.on(step, say_and_drop(b"421 4.3.2 going down"), times=None)
    async with upstream(peer.port, patience=0.05) as up:
        assert await deliver(up, ONE) == UNREACHABLE
    fields = {"error": f"127.0.0.1:{peer.port}: answered 421 4.3.2 going down", "seconds": 0.05, "transactions": 1}
    assert events(caplog) == [("WARNING", "no transaction with the upstream could begin", fields)]


@pytest.mark.parametrize(
    ("greeting", "text"),
    [
        (b"421 4.3.2 going down", "no transaction with the upstream could begin"),
        (b"554 5.7.1 go away", "upstream refuses the relay"),
    ],
)
async def test_messages_that_fail_alike_are_one_line_in_the_log(
    peer: ScriptedPeer, caplog: pytest.LogCaptureFixture, greeting: bytes, text: str
) -> None:
    peer.on(Step.GREETING, say_and_drop(greeting), times=None)
    async with upstream(peer.port, patience=0.0) as up:
        for _ in range(5):
            assert await deliver(up, ONE) == UNREACHABLE
    assert [event[1] for event in events(caplog) if event[0] != "DEBUG"] == [text]


async def test_transactions_that_are_idle_do_not_block_others(peer: ScriptedPeer) -> None:
    """Two transactions pause after RCPT. A third one is delivered, and then the two."""
    async with upstream(peer.port, connections=2, longest_idle_in_transaction=0.1) as up:
        paused = [up.begin(SENDER), up.begin(SENDER)]
        assert [await offer(delivery, ONE, TWO) for delivery in paused] == [[250, 250]] * 2
        async with asyncio.timeout(5):
            assert code(await deliver(up, THREE)) == 250
        # One continues with another recipient, both with DATA.
        assert await offer(paused[0], THREE) == [250]
        assert await prepare(paused[0], ONE, TWO, THREE) == [250, 250, 250]
        assert code(await paused[0].send(b"", MAIL)) == 250
        await paused[0].finish()
        assert await prepare(paused[1], ONE, TWO) == [250, 250]
        assert code(await paused[1].send(b"", MAIL)) == 250
        await paused[1].finish()
    assert peer.copies() == {ONE: 2, TWO: 2, THREE: 2}
    assert len(peer.sessions) == 2


@pytest.mark.parametrize("step", [Step.RCPT, Step.DATA, Step.DOT])
async def test_a_connection_in_use_is_not_reclaimed(peer: ScriptedPeer, step: Step) -> None:
    """Neither while a reply is pending, nor after 354."""
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


async def test_waiting_for_a_connection_has_its_own_limit_and_reply(peer: ScriptedPeer) -> None:
    async with upstream(peer.port, connections=1, longest_wait=0.05) as up:
        first, second = up.begin(SENDER), up.begin(SENDER)
        await offer(first, ONE)
        assert await second.rcpt(TWO) == UPSTREAM_BUSY
        await first.finish()
        await second.finish()
        assert code(await deliver(up, TWO)) == 250
    assert len(peer.sessions) == 1


async def test_waiting_for_a_connection_spends_no_patience(peer: ScriptedPeer) -> None:
    """After the wait two connections fail. The delivery still has all its patience."""
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


async def test_extensions_decide_which_parameters_are_passed_on() -> None:
    envelope = Envelope(b"sender@example.test", (b"BODY=8BITMIME", b"SMTPUTF8", b"RET=HDRS", b"ENVID=x"))
    for offered, passed_on in (
        ([b"8BITMIME"], (b"BODY=8BITMIME",)),
        ([b"SMTPUTF8"], (b"SMTPUTF8",)),
        ([b"DSN"], (b"RET=HDRS", b"ENVID=x")),
        ([], ()),
    ):
        async with ScriptedPeer(extensions=offered) as peer, upstream(peer.port) as up:
            delivery = up.begin(envelope)
            assert await offer(delivery, ONE) == [250]
            assert await prepare(delivery, ONE) == [250]
            await delivery.send(b"", MAIL)
            await delivery.finish()
            assert peer.accepted[0].parameters == passed_on
            assert peer.accepted[0].reverse_path == envelope.reverse_path


@pytest.mark.parametrize(
    ("size", "limit"),
    [(b"SIZE 1000", 1000), (b"SIZE 0", None), (b"SIZE", None), (b"SIZE x", None), (b"SIZE " + b"9" * 5000, None)],
)
async def test_the_size_limit_is_the_one_the_upstream_offers(size: bytes, limit: int | None) -> None:
    async with ScriptedPeer(extensions=[size]) as peer, upstream(peer.port) as up:
        assert up.size_limit() is None
        await up.probe()
        assert up.size_limit() == limit
