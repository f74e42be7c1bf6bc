"""A transaction with a faulty upstream: what is retried, which reply follows, and what is never sent twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from parts.faults import Step, drop, hang, reset, say, say_and_drop
from parts.peer import ScriptedPeer
from parts.upstream_delivery import LARGE, MAIL, ONE, SENDER, THREE, TWO, code, deliver, offer, prepare, upstream

from relay.core.delivery import Unclear
from relay.core.reply import Reply
from relay.upstream import connection

if TYPE_CHECKING:
    from parts.faults import Action, Caller

    from relay.core.content import Content

NO_PIPELINING = [b"SIZE 10240000", b"8BITMIME"]

# Before the dot: retried, unnoticed by the client


@pytest.mark.parametrize(
    "end",
    [drop(), reset(), say_and_drop(b"421 4.3.2 going down"), say(b"200-x\r\n300 y"), say(b"garbage"), say(b"299"[:2])],
    ids=["drop", "reset", "421", "two codes", "garbage", "two digits"],
)
@pytest.mark.parametrize(("step", "word"), [(Step.MAIL, b""), (Step.RCPT, ONE), (Step.RCPT, TWO), (Step.DATA, b"")])
async def test_a_transaction_lost_before_the_dot_is_reopened(
    peer: ScriptedPeer, step: Step, word: bytes, end: Action
) -> None:
    peer.on(step, end, matching=word)
    async with upstream(peer.port) as up:
        assert code(await deliver(up, ONE, TWO)) == 250
    assert len(peer.received) == 1
    assert peer.copies() == {ONE: 1, TWO: 1}
    assert peer.sessions[1].commands[1:] == [
        b"MAIL FROM:<sender@example.test>",
        # The recipient in progress first. Those named before follow with DATA.
        *(b"RCPT TO:<%b>" % path for path in ([TWO, ONE] if word == TWO else [ONE, TWO])),
        b"DATA",
        b".",
        *([b"QUIT"] if peer.sessions[1].count(b"QUIT") else []),
    ]


@pytest.mark.parametrize("reply", [b"354 go on", b"220 hello"])
@pytest.mark.parametrize("step", [Step.MAIL, Step.RCPT, Step.DATA])
async def test_a_reply_that_does_not_fit_its_command_ends_the_connection(
    peer: ScriptedPeer, step: Step, reply: bytes
) -> None:
    fits = {(Step.MAIL, 220), (Step.RCPT, 220), (Step.DATA, 354)}
    unfit = (step, int(reply[:3])) not in fits
    peer.on(step, say(reply))
    async with upstream(peer.port) as up:
        assert code(await deliver(up, ONE)) == 250
    assert len(peer.sessions) == 1 + unfit
    assert peer.copies() == {ONE: 1}


@pytest.mark.parametrize("step", [Step.GREETING, Step.EHLO])
@pytest.mark.parametrize("end", [drop(), say_and_drop(b"421 4.3.2 later"), say(b"450 4.3.2 later")])
async def test_a_failed_connect_is_retried(peer: ScriptedPeer, step: Step, end: Action) -> None:
    peer.on(step, end)
    async with upstream(peer.port) as up:
        assert code(await deliver(up, ONE)) == 250
    assert peer.copies() == {ONE: 1}


@pytest.mark.parametrize("farewell", [b"", b"421 4.4.2 idle for too long"])
async def test_a_connection_that_died_while_free_costs_no_patience(peer: ScriptedPeer, farewell: bytes) -> None:
    async with upstream(peer.port, patience=0.1) as up:
        assert code(await deliver(up, ONE)) == 250
        peer.hang_up(farewell=farewell)
        await peer.wait_for(lambda: not peer.open_sessions, "the end of the idle session")
        assert code(await deliver(up, ONE)) == 250
    assert peer.copies() == {ONE: 2}
    assert len(peer.sessions) == 2


@pytest.mark.parametrize("end", [drop(), reset(), say_and_drop(b"421 4.3.2 going down")], ids=["drop", "reset", "421"])
async def test_large_content_that_was_not_sent_completely_is_sent_again(peer: ScriptedPeer, end: Action) -> None:
    """The peer closes soon after 354, when the relay cannot have sent five megabytes."""

    async def start_and_end(caller: object) -> bytes | None:
        caller.writer.write(b"354 go on\r\n")  # type: ignore[attr-defined]
        await caller.reader.readexactly(100_000)  # type: ignore[attr-defined]
        return await end(caller)  # type: ignore[arg-type]

    peer.on(Step.DATA, start_and_end)
    async with upstream(peer.port) as up:
        assert code(await deliver(up, ONE, TWO, content=LARGE)) == 250
    assert peer.copies() == {ONE: 1, TWO: 1}
    assert len(peer.received) == 1
    assert peer.received[0].content == LARGE.plain


@pytest.mark.parametrize("refusal", [b"552 5.3.4 too much", b"452 4.3.1 disk full"])
async def test_a_refusal_in_the_middle_of_content_is_the_reply(peer: ScriptedPeer, refusal: bytes) -> None:
    over = asyncio.Event()

    async def refuse_early(caller: object) -> bytes:
        caller.writer.write(b"354 go on\r\n")  # type: ignore[attr-defined]
        await caller.reader.readexactly(100_000)  # type: ignore[attr-defined]
        caller.writer.write(refusal + b"\r\n")  # type: ignore[attr-defined]
        await over.wait()
        return b"554 5.5.1 not here"

    peer.on(Step.DATA, refuse_early)
    async with upstream(peer.port) as up:
        assert code(await deliver(up, ONE, content=LARGE)) == int(refusal[:3])
        over.set()
        assert code(await deliver(up, ONE)) == 250
    assert peer.copies() == {ONE: 1}
    assert len(peer.sessions) == 2


async def test_large_content_arrives_completely(peer: ScriptedPeer) -> None:
    async with upstream(peer.port) as up:
        assert code(await deliver(up, ONE, content=LARGE)) == 250
        assert code(await deliver(up, ONE)) == 250
    assert [message.content for message in peer.accepted] == [LARGE.plain, MAIL.plain]
    assert len(peer.sessions) == 1


# After the dot: never sent again


@pytest.mark.parametrize("content", [MAIL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("step", [Step.DOT, Step.REPLY])
@pytest.mark.parametrize(
    "end", [drop(), reset(), say(b"garbage"), say(b"354 go on")], ids=["drop", "reset", "garbage", "354"]
)
async def test_after_the_dot_the_outcome_is_unclear_and_nothing_is_sent_again(
    peer: ScriptedPeer, step: Step, end: Action, content: Content
) -> None:
    peer.on(step, end)
    async with upstream(peer.port) as up:
        assert isinstance(await deliver(up, ONE, content=content), Unclear)
        assert len(peer.received) == 1
        assert code(await deliver(up, TWO)) == 250
    assert len(peer.received) == 2
    assert len(peer.sessions) == 2


async def test_a_dot_without_a_reply_is_unclear_after_the_dot_timeout(peer: ScriptedPeer) -> None:
    peer.on(Step.REPLY, hang())
    async with upstream(peer.port, dot_timeout=0.3) as up:
        assert isinstance(await deliver(up, ONE), Unclear)
    assert peer.copies() == {ONE: 1}


@pytest.mark.parametrize(
    "reply", [b"451 4.3.0 later", b"554 5.7.1 spam", b"250-one\r\n250 two \xff", b"251 2.0.0 fine"]
)
async def test_the_reply_to_the_dot_is_the_outcome(peer: ScriptedPeer, reply: bytes) -> None:
    peer.on(Step.DOT, say(reply))
    async with upstream(peer.port) as up:
        outcome = await deliver(up, ONE)
        assert isinstance(outcome, Reply)
        assert outcome.encode() == reply + b"\r\n"
        assert code(await deliver(up, ONE)) == 250
    assert len(peer.sessions) == 1


async def test_421_to_the_dot_is_the_outcome_and_ends_the_connection(peer: ScriptedPeer) -> None:
    peer.on(Step.DOT, say(b"421 4.3.2 going down"))
    async with upstream(peer.port) as up:
        assert code(await deliver(up, ONE)) == 421
        assert code(await deliver(up, ONE)) == 250
    assert len(peer.sessions) == 2
    assert peer.copies() == {ONE: 1}


# Transactions that are narrowed, reopened or moved to another connection


async def test_a_narrowed_transaction_is_pipelined(peer: ScriptedPeer) -> None:
    async with upstream(peer.port) as up:
        delivery = up.begin(SENDER)
        assert await offer(delivery, ONE, TWO, THREE) == [250, 250, 250]
        ahead = peer.sessions[0].ahead
        assert await prepare(delivery, TWO) == [250]
        assert code(await delivery.send(b"", MAIL)) == 250
        await delivery.finish()
    [session] = peer.sessions
    assert session.commands[5:9] == [b"RSET", b"MAIL FROM:<sender@example.test>", b"RCPT TO:<%b>" % TWO, b"DATA"]
    assert session.ahead - ahead == 3
    assert peer.copies() == {TWO: 1}


async def test_a_recipient_that_is_refused_when_sent_again_is_not_accepted(peer: ScriptedPeer) -> None:
    """The connection is lost between two RCPTs. On the next one the first recipient is refused."""
    peer.on(Step.RCPT, drop(), matching=TWO)
    peer.on(Step.RCPT, say(b"450 4.2.0 not now"), matching=ONE, session=2, times=None)
    async with upstream(peer.port) as up:
        delivery = up.begin(SENDER)
        assert await offer(delivery, ONE, TWO) == [250, 250]
        assert await prepare(delivery, ONE, TWO) == [450, 250]
        assert code(await delivery.send(b"", MAIL)) == 250
        await delivery.finish()
    assert peer.copies() == {TWO: 1}


@pytest.mark.parametrize("start", [b"354 go on", b"554 5.5.1 no valid recipients"])
async def test_a_lone_dot_follows_354_if_every_recipient_is_refused(peer: ScriptedPeer, start: bytes) -> None:
    """RFC 2920 section 3.1: an upstream may reply 354 although it refused all recipients."""
    async with upstream(peer.port) as up:
        delivery = up.begin(SENDER)
        assert await offer(delivery, ONE, TWO) == [250, 250]
        peer.on(Step.RCPT, say(b"550 5.1.1 gone"), times=None)
        peer.on(Step.DATA, say(start))
        assert await prepare(delivery, ONE) == [550]
        await delivery.finish()
        peer.forgive()
        assert code(await deliver(up, TWO)) == 250
    assert [message.content for message in peer.received] == [b""] * start.startswith(b"3") + [MAIL.plain]
    assert peer.copies() == {TWO: 1}
    assert len(peer.sessions) == 1


@pytest.mark.parametrize("reply", [b"452 4.3.1 full", b"550 5.7.1 not you"])
async def test_each_recipient_receives_the_refusal_of_the_sender(peer: ScriptedPeer, reply: bytes) -> None:
    peer.on(Step.MAIL, say(reply))
    async with upstream(peer.port) as up:
        delivery = up.begin(SENDER)
        assert await offer(delivery, ONE, TWO) == [int(reply[:3])] * 2
        await delivery.finish()
        assert code(await deliver(up, ONE)) == 250
    assert len(peer.commands(b"MAIL")) == 2


@pytest.mark.parametrize("reply", [b"451 4.3.0 full", b"554 5.7.1 not that"])
async def test_each_recipient_receives_the_refusal_of_data(peer: ScriptedPeer, reply: bytes) -> None:
    peer.on(Step.DATA, say(reply))
    async with upstream(peer.port) as up:
        delivery = up.begin(SENDER)
        assert await offer(delivery, ONE, TWO) == [250, 250]
        assert await prepare(delivery, ONE, TWO) == [int(reply[:3])] * 2
        await delivery.finish()
        assert code(await deliver(up, ONE)) == 250
    assert len(peer.sessions) == 1


async def test_commands_are_sent_one_by_one_without_pipelining() -> None:
    async with ScriptedPeer(extensions=NO_PIPELINING) as peer, upstream(peer.port) as up:
        for _ in range(2):
            delivery = up.begin(SENDER)
            assert await offer(delivery, ONE, TWO) == [250, 250]
            assert await prepare(delivery, TWO) == [250]
            assert code(await delivery.send(b"", MAIL)) == 250
            await delivery.finish()
        delivery = up.begin(SENDER)
        await offer(delivery, ONE)
        await delivery.finish()
        assert code(await deliver(up, THREE)) == 250
        assert peer.copies() == {TWO: 2, THREE: 1}
        assert [session.ahead for session in peer.sessions] == [0]
        assert peer.sessions[0].count(b"RSET") == 3


async def test_refused_recipients_cost_no_connection_and_no_repeated_rcpt(peer: ScriptedPeer) -> None:
    """A connection is retired between transactions, not in one: 600 recipients, 200 of them refused."""
    peer.on(Step.RCPT, say(b"550 5.1.1 unknown"), matching=b"unknown", times=None)
    paths = [b"%s%d@example.test" % (b"unknown" if number % 3 else b"user", number) for number in range(300)]
    paths = [path for number in range(300) for path in (paths[number], b"other%d@example.test" % number)]
    accepted = [path for path in paths if not path.startswith(b"unknown")]
    assert (len(paths), len(accepted)) == (600, 400)
    async with upstream(peer.port) as up:
        delivery = up.begin(SENDER)
        assert [reply for reply in await offer(delivery, *paths) if reply == 250] == [250] * 400
        assert await prepare(delivery, *accepted) == [250] * 400
        assert code(await delivery.send(b"", MAIL)) == 250
        await delivery.finish()
        assert len(peer.commands(b"RCPT")) == 600
        assert len(peer.sessions) == 1
        assert code(await deliver(up, ONE)) == 250
    assert peer.copies() == {**dict.fromkeys(accepted, 1), ONE: 1}


async def test_each_recipient_is_sent_twice_at_most_if_the_upstream_closes_after_each_20_refusals(
    peer: ScriptedPeer,
) -> None:
    """As Postfix does (smtpd_hard_error_limit)."""
    refusals: Counter[int] = Counter()

    async def refuse(session: Caller) -> bytes:
        refusals[session.number] += 1
        if refusals[session.number] > 20:
            return await say_and_drop(b"421 4.7.0 too many errors")(session) or b""
        return b"550 5.1.1 unknown"

    peer.on(Step.RCPT, refuse, matching=b"unknown", times=None)
    paths = [b"%s%d@example.test" % (b"unknown" if number % 3 == 0 else b"user", number) for number in range(300)]
    accepted = [path for path in paths if not path.startswith(b"unknown")]
    async with upstream(peer.port) as up:
        assert code(await deliver(up, *paths)) == 250
    assert peer.copies() == dict.fromkeys(accepted, 1)
    assert len(peer.sessions) == 5
    assert len(peer.commands(b"RCPT")) <= 2 * len(paths)


async def test_a_connection_with_five_refusals_serves_no_further_transaction(peer: ScriptedPeer) -> None:
    peer.on(Step.RCPT, say(b"550 5.1.1 unknown"), matching=b"unknown", times=None)
    async with upstream(peer.port) as up:
        delivery = up.begin(SENDER)
        unknown = [b"unknown%d@example.test" % number for number in range(connection.MOST_REFUSALS)]
        assert await offer(delivery, *unknown) == [550] * connection.MOST_REFUSALS
        await delivery.finish()
        assert code(await deliver(up, ONE)) == 250
    assert [session.count(b"RCPT") for session in peer.sessions] == [connection.MOST_REFUSALS, 1]


async def test_a_transaction_with_many_transient_refusals_keeps_its_connection_while_others_wait(
    peer: ScriptedPeer,
) -> None:
    peer.on(Step.RCPT, say(b"450 4.2.0 greylisted"), matching=b"grey", times=None)
    async with upstream(peer.port, connections=1) as up:
        delivery = up.begin(SENDER)
        assert await offer(delivery, ONE) == [250]
        waiting = asyncio.create_task(deliver(up, TWO))
        assert await offer(delivery, *[b"grey%d@example.test" % number for number in range(12)]) == [450] * 12
        assert await prepare(delivery, ONE) == [250]
        assert not waiting.done()
        assert code(await delivery.send(b"", MAIL)) == 250
        await delivery.finish()
        assert code(await waiting) == 250
    assert [message.recipients for message in peer.accepted] == [(ONE,), (TWO,)]


async def test_transient_refusals_count_towards_the_limit_too(peer: ScriptedPeer) -> None:
    peer.on(Step.DOT, say(b"451 4.3.0 later"), times=connection.MOST_REFUSALS)
    async with upstream(peer.port) as up:
        for _ in range(connection.MOST_REFUSALS):
            assert code(await deliver(up, ONE)) == 451
        assert code(await deliver(up, ONE)) == 250
    assert [session.count(b"DATA") for session in peer.sessions] == [connection.MOST_REFUSALS, 1]
