"""Logins of clients at the upstream: connections of each identity, refusals, and what they leave of others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from parts.faults import Step, say, wait
from parts.peer import ScriptedPeer
from parts.ports import free_port
from parts.upstream_delivery import MAIL, ONE, SENDER, code, deliver, upstream
from parts.waiting import until

from relay.core.login import Credentials, Login
from relay.core.reply import LOGIN_UNAVAILABLE, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay.upstream.smtp import SmtpUpstream

ANNA, BERT = Credentials("anna", b"s3cret \xff"), Credentials("bert", b"geheim")
WRONG = Credentials("anna", b"wrong")


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer() as server:
        server.users = {b"anna": ANNA.password, b"bert": BERT.password}
        yield server


async def log_in(up: SmtpUpstream, credentials: Credentials) -> Login | Reply:
    return await up.log_in(credentials, "192.0.2.1", trusted=False)


async def deliver_as(up: SmtpUpstream, identity: Credentials | None) -> int:
    delivery = up.begin(SENDER, "192.0.2.1", identity)
    try:
        assert (await delivery.rcpt(ONE)).code == 250
        await delivery.prepare([ONE])
        outcome = await delivery.send(b"", MAIL)
        assert isinstance(outcome, Reply)
        return outcome.code
    finally:
        await delivery.finish()


def users(peer: ScriptedPeer) -> list[bytes]:
    """Returns the users of the sessions in which messages arrived."""
    return [peer.sessions[message.session - 1].user for message in peer.accepted]


async def test_each_identity_has_its_own_connections(peer: ScriptedPeer) -> None:
    async with upstream(peer.port) as up:
        for _ in range(2):
            for credentials in (ANNA, BERT):
                login = await log_in(up, credentials)
                assert isinstance(login, Login)
                assert (login.name, login.identity) == (credentials.name, credentials)
                assert await deliver_as(up, credentials) == 250
            assert await deliver_as(up, None) == 250
    assert users(peer) == [b"anna", b"bert", b""] * 2
    # One connection for each: a login is not repeated while its connection is there.
    assert len(peer.sessions) == 3
    assert len(peer.commands(b"AUTH")) == 2


async def test_another_password_uses_no_connection_of_the_right_one(peer: ScriptedPeer) -> None:
    async with upstream(peer.port) as up:
        assert isinstance(await log_in(up, ANNA), Login)
        refusal = await log_in(up, WRONG)
        assert refusal == Reply.of(535, "5.7.8 Wrong name or password")


async def test_all_identities_share_the_bound_of_connections(peer: ScriptedPeer) -> None:
    peer.users = {b"user %d" % number: b"x" for number in range(12)}
    async with upstream(peer.port, connections=3) as up:
        logins = (log_in(up, Credentials(f"user {number}", b"x")) for number in range(12))
        assert all(isinstance(login, Login) for login in await asyncio.gather(*logins))
        assert up.connections_in_use == 0
        assert len(up._pool._free) == 3
        await until(lambda: len(peer.open_sessions) == 3, "three connections")


async def test_a_refused_login_changes_nothing_for_others(peer: ScriptedPeer) -> None:
    states = []
    async with upstream(peer.port, peer.port) as up:
        up._report = states.append
        for _ in range(3):
            refusal = await log_in(up, WRONG)
            assert isinstance(refusal, Reply)
            assert refusal.code == 535
        assert states == []
        assert all(up.states().values())
        assert code(await deliver(up, ONE)) == 250
    # The first upstream that answers decides: the second one is not asked.
    assert len(peer.commands(b"AUTH")) == 3


async def test_who_waits_for_a_connection_does_not_hear_the_refusal_of_another_client(peer: ScriptedPeer) -> None:
    gate = asyncio.Event()
    peer.on(Step.AUTH, wait(gate), times=1)
    async with upstream(peer.port, connections=1) as up:
        wrong = asyncio.create_task(log_in(up, WRONG))
        await peer.wait_waiting(Step.AUTH)
        right = asyncio.create_task(up.log_in(BERT, "127.0.0.1", trusted=True))
        await until(lambda: up._pool._slots.waiting, "a login that waits")
        gate.set()
        assert isinstance(await wrong, Reply)
        assert isinstance(await right, Login)


async def test_logins_of_clients_that_are_not_trusted_leave_connections_for_others(peer: ScriptedPeer) -> None:
    gate = asyncio.Event()
    peer.on(Step.AUTH, wait(gate), times=None)
    async with upstream(peer.port, connections=8) as up:
        flood = [asyncio.create_task(log_in(up, Credentials("anna", b"%d" % number))) for number in range(20)]
        await peer.wait_waiting(Step.AUTH, 2)
        own = asyncio.create_task(up.log_in(BERT, "127.0.0.1", trusted=True))
        await peer.wait_waiting(Step.AUTH, 3)
        assert await deliver_as(up, None) == 250
        assert peer.waiting(Step.AUTH) == 3
        gate.set()
        assert isinstance(await own, Login)
        assert [reply.code for reply in await asyncio.gather(*flood) if isinstance(reply, Reply)] == [535] * 20


@pytest.mark.parametrize("words", [b"454 4.7.0 Temporary authentication failure", b"421 4.3.2 busy"])
async def test_a_login_that_cannot_be_verified_is_tried_again_and_then_deferred(
    peer: ScriptedPeer, words: bytes
) -> None:
    fault = peer.on(Step.AUTH, say(words), times=2)
    async with upstream(peer.port) as up:
        assert isinstance(await log_in(up, ANNA), Login)
        assert fault.visits == 3
    peer.forgive()
    peer.on(Step.AUTH, say(words), times=None)
    async with upstream(peer.port, patience=0.0) as up:
        assert await log_in(up, ANNA) == LOGIN_UNAVAILABLE


async def test_an_upstream_whose_logins_fail_for_now_still_takes_other_mail(peer: ScriptedPeer) -> None:
    peer.on(Step.AUTH, say(b"454 4.7.0 later"), times=None)
    async with upstream(peer.port, free_port(), patience=0.0) as up:
        assert await log_in(up, ANNA) == LOGIN_UNAVAILABLE
        assert next(iter(up.states().values()))
        assert await deliver_as(up, None) == 250


async def test_an_unreachable_upstream_and_one_without_auth_defer_the_login(peer: ScriptedPeer) -> None:
    async with upstream(free_port(), patience=0.0) as up:
        assert await log_in(up, ANNA) == LOGIN_UNAVAILABLE
    peer.users = {}
    async with upstream(peer.port, patience=0.0) as up:
        assert await log_in(up, ANNA) == LOGIN_UNAVAILABLE


async def test_a_connection_that_died_after_the_login_is_replaced_with_a_login(peer: ScriptedPeer) -> None:
    async with upstream(peer.port) as up:
        await log_in(up, ANNA)
        peer.hang_up()
        assert await deliver_as(up, ANNA) == 250
    assert users(peer) == [b"anna"]


async def test_a_password_that_changed_meanwhile_defers_the_mail(peer: ScriptedPeer) -> None:
    async with upstream(peer.port, patience=0.0) as up:
        await log_in(up, ANNA)
        peer.users = {b"anna": b"new"}
        peer.hang_up()
        delivery = up.begin(SENDER, "192.0.2.1", ANNA)
        assert (await delivery.rcpt(ONE)).code == 451
        await delivery.finish()


async def test_control_characters_of_a_refusal_are_hidden(peer: ScriptedPeer) -> None:
    peer.on(Step.AUTH, say(b"535-5.7.8 one\r\x07two\r\n535 5.7.8 three"))
    async with upstream(peer.port) as up:
        refusal = await log_in(up, ANNA)
        assert isinstance(refusal, Reply)
        assert refusal.encode() == b"535-5.7.8 one??two\r\n535 5.7.8 three\r\n"


async def test_the_client_s_login_replaces_the_relay_s(peer: ScriptedPeer) -> None:
    async with upstream(peer.port, user="bert", password="geheim") as up:
        for identity in (None, ANNA, None):
            assert await deliver_as(up, identity) == 250
    assert users(peer) == [b"bert", b"anna", b"bert"]
