"""Which connection a transaction checks out, and when a connection is retired."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from relay.core.errors import UpstreamBusy, UpstreamDown
from relay.core.reply import OK
from relay.upstream import connection
from relay.upstream.connection import Connection
from relay.upstream.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from relay.core.login import Credentials
    from relay.upstream.checkout import Checkout


class Wire:
    """What the pool uses of a wire."""

    def __init__(self) -> None:
        self.ended = ""
        self.resets = 0
        self.quit_sent = asyncio.Event()

    def quit(self) -> None:
        self.ended = "closed by us"
        self.quit_sent.set()

    async def leave(self, limit: float) -> None:
        self.quit()

    def reset(self) -> None:
        self.resets += 1


class Connector:
    """Opens connections and keeps a list of them."""

    def __init__(self) -> None:
        self.opened: list[Connection] = []
        self.down = False

    async def __call__(self, identity: Credentials | None = None) -> Connection:
        if self.down:
            raise UpstreamDown("down")
        wire: Any = Wire()
        self.opened.append(Connection(wire, {"size": "1000", "pipelining": ""}, asyncio.get_running_loop().time()))
        return self.opened[-1]

    @property
    def still_open(self) -> list[Connection]:
        return [connection for connection in self.opened if not connection.wire.ended]


async def check_out(pool: Pool, *, new: bool = False) -> Checkout:
    await pool.wait_for_slot()
    return await pool.check_out(new=new)


async def check_out_idle(pool: Pool) -> Checkout:
    """Returns a connection whose transaction is idle."""
    checkout = await check_out(pool)
    checkout.recipients = {b"one@example.test": OK}
    pool.set_idle(checkout)
    return checkout


async def test_the_last_used_connection_is_reused_first() -> None:
    pool = Pool(Connector(), 3)
    one, two = await check_out(pool), await check_out(pool)
    pool.check_in(one)
    pool.check_in(two)
    assert (await check_out(pool)).connection is two.connection
    assert (await check_out(pool)).connection is one.connection
    assert pool.extensions == {0: {"size": "1000", "pipelining": ""}}


@pytest.mark.parametrize("why", ["messages", "resets", "refusals", "age", "ended"])
async def test_a_connection_is_retired(why: str) -> None:
    pool = Pool(Connector(), 1)
    checkout = await check_out(pool)
    one = checkout.connection
    limits = {
        "messages": connection.MOST_MESSAGES,
        "resets": connection.MOST_RESETS,
        "refusals": connection.MOST_REFUSALS,
    }
    assert limits == {"messages": 100, "resets": 50, "refusals": 5}
    if why in limits:
        setattr(one, why, limits[why] - 1)
        pool.check_in(checkout)
        checkout = await check_out(pool)
        assert checkout.connection is one
        setattr(one, why, limits[why])
    elif why == "age":
        one.opened_at -= connection.LONGEST_LIFE + 1
    else:
        one.wire.ended = "lost"
    pool.check_in(checkout)
    assert (await check_out(pool)).connection is not one


async def test_an_accepted_message_resets_the_counts_of_refusals_and_resets() -> None:
    one = await Connector()()
    one.refusals, one.resets = connection.MOST_REFUSALS, connection.MOST_RESETS
    assert one.penalised
    one.count_accepted()
    assert not one.penalised
    assert one.messages == 1


async def test_a_connection_that_ended_or_aged_while_free_is_not_reused() -> None:
    pool = Pool(connector := Connector(), 3)
    checkouts = [await check_out(pool) for _ in range(3)]
    for checkout in checkouts:
        pool.check_in(checkout)
    checkouts[2].connection.wire.ended = "lost"
    checkouts[1].connection.opened_at -= connection.LONGEST_LIFE + 1
    assert (await check_out(pool)).connection is checkouts[0].connection
    assert connector.still_open == [checkouts[0].connection]


async def test_a_connection_is_checked_in_once_and_out_of_its_transaction() -> None:
    pool = Pool(Connector(), 2)
    checkout = await check_out_idle(pool)
    pool.check_in(checkout)
    pool.check_in(checkout)
    again = await check_out(pool)
    assert again.connection is checkout.connection
    assert again.connection.resets == 1
    pool.check_in(checkout)
    assert (await check_out(pool)).connection is not again.connection


async def test_no_more_connections_than_the_size_are_in_use_and_waiters_are_served_in_turn() -> None:
    pool = Pool(connector := Connector(), 2)
    one, _ = await check_out(pool), await check_out(pool)
    first = asyncio.create_task(check_out(pool))
    second = asyncio.create_task(check_out(pool))
    await asyncio.sleep(0)
    assert not first.done()
    pool.check_in(one)
    assert (await first).connection is one.connection
    assert not second.done()
    pool.check_in(await first)
    assert (await second).connection is one.connection
    assert len(connector.opened) == 2


async def test_waiting_for_a_slot_has_its_own_limit_and_error() -> None:
    pool = Pool(Connector(), 1, longest_wait=0.02)
    one = await check_out(pool)
    with pytest.raises(UpstreamBusy):
        await pool.wait_for_slot()
    pool.check_in(one)
    assert (await check_out(pool)).connection is one.connection


async def test_a_connection_that_is_idle_in_transaction_is_reclaimed_for_a_waiter_the_longest_idle_first() -> None:
    pool = Pool(connector := Connector(), 2, longest_idle_in_transaction=0.05)
    loop = asyncio.get_running_loop()
    one = await check_out_idle(pool)
    begun = loop.time()
    two = await check_out_idle(pool)
    async with asyncio.timeout(5):
        assert (await check_out(pool)).connection is one.connection
        assert loop.time() - begun >= 0.045
        assert one.checked_in
        assert not two.checked_in
        assert (await check_out(pool)).connection is two.connection
    assert len(connector.opened) == 2


async def test_connections_long_idle_in_transaction_are_reclaimed_at_once_one_for_each_waiter() -> None:
    pool = Pool(Connector(), 3, longest_idle_in_transaction=0.05)
    idle = [await check_out_idle(pool) for _ in range(3)]
    await asyncio.sleep(0.1)
    assert not any(checkout.checked_in for checkout in idle)
    async with asyncio.timeout(5):
        waiting = [asyncio.create_task(check_out(pool)) for _ in range(2)]
        assert [(await task).connection for task in waiting] == [idle[0].connection, idle[1].connection]
    await asyncio.sleep(0.01)
    assert [checkout.checked_in for checkout in idle] == [True, True, False]


@pytest.mark.parametrize(
    "scenario",
    [
        test_a_connection_that_is_idle_in_transaction_is_reclaimed_for_a_waiter_the_longest_idle_first,
        test_connections_long_idle_in_transaction_are_reclaimed_at_once_one_for_each_waiter,
    ],
)
def test_connections_are_reclaimed_on_uvloop_too(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    """The relay runs on uvloop, whose timers differ from asyncio's."""
    uvloop.run(scenario())


async def test_a_connection_that_is_used_again_is_not_reclaimed() -> None:
    pool = Pool(Connector(), 2, longest_wait=0.2, longest_idle_in_transaction=0.05)
    one, two = await check_out_idle(pool), await check_out_idle(pool)
    pool.set_active(one)
    assert (await check_out(pool)).connection is two.connection
    with pytest.raises(UpstreamBusy):
        await pool.wait_for_slot()
    assert not one.checked_in


async def test_a_connection_that_becomes_idle_while_others_wait_is_reclaimed() -> None:
    pool = Pool(Connector(), 1, longest_idle_in_transaction=0.01)
    one = await check_out(pool)
    waiting = asyncio.create_task(check_out(pool))
    await asyncio.sleep(0)
    pool.set_idle(one)
    async with asyncio.timeout(5):
        assert (await waiting).connection is one.connection
    assert one.checked_in


async def test_an_exchange_needs_no_further_slot() -> None:
    connector = Connector()
    pool = Pool(connector, 1)
    one = await check_out(pool)
    waiting = asyncio.create_task(check_out(pool))
    await asyncio.sleep(0)
    other = await pool.exchange(one)
    assert connector.still_open == [other.connection]
    assert not waiting.done()
    connector.down = True
    with pytest.raises(UpstreamDown):
        await pool.exchange(other)
    connector.down = False
    async with asyncio.timeout(5):
        # No connection works any more: the waiting transaction need not find that out for itself.
        with pytest.raises(UpstreamDown):
            await waiting
        assert (await check_out(pool)).connection is connector.opened[-1]


async def test_a_slot_is_free_again_after_a_failure_and_after_a_waiter_was_cancelled() -> None:
    connector = Connector()
    pool = Pool(connector, 1)
    connector.down = True
    for _ in range(3):
        with pytest.raises(UpstreamDown):
            await check_out(pool)
    connector.down = False
    one = await check_out(pool)
    cancelled = asyncio.create_task(pool.wait_for_slot())
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    pool.check_in(one)
    assert (await check_out(pool)).connection is one.connection


async def test_a_new_connection_replaces_a_free_one() -> None:
    pool = Pool(connector := Connector(), 2)
    checkouts = [await check_out(pool), await check_out(pool)]
    for checkout in checkouts:
        pool.check_in(checkout)
    new = await check_out(pool, new=True)
    assert new.connection not in [checkout.connection for checkout in checkouts]
    assert connector.still_open == [checkouts[1].connection, new.connection]
    for _ in range(5):
        pool.check_in(new)
        new = await check_out(pool, new=True)
    assert len(connector.still_open) <= 2


async def test_free_connections_are_retired_one_by_one() -> None:
    pool = Pool(Connector(), 2, longest_idle=0.05)
    one, two = await check_out(pool), await check_out(pool)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    pool.check_in(one)
    loop.call_later(0.03, pool.check_in, two)
    await asyncio.wait_for(one.connection.wire.quit_sent.wait(), 5)  # type: ignore[attr-defined]
    assert loop.time() - begun >= 0.045
    assert not two.connection.wire.ended
    await asyncio.wait_for(two.connection.wire.quit_sent.wait(), 5)  # type: ignore[attr-defined]
    assert loop.time() - begun >= 0.075
    assert pool._retire_timer is None


async def test_close_retires_free_connections_now_and_those_in_use_when_checked_in() -> None:
    pool = Pool(connector := Connector(), 2)
    one, two = await check_out(pool), await check_out(pool)
    pool.check_in(one)
    pool.close()
    assert connector.still_open == [two.connection]
    pool.check_in(two)
    assert not connector.still_open
