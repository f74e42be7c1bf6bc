"""Which connection a transaction gets, and when one is left alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from relay.core.errors import UpstreamBusy, UpstreamDown
from relay.upstream import connect
from relay.upstream.connect import Connection
from relay.upstream.patience import Patience
from relay.upstream.pool import Pool


class Wire:
    """What the pool sees of one."""

    def __init__(self) -> None:
        self.ended = ""
        self.said_goodbye = asyncio.Event()

    def quit(self) -> None:
        self.ended = "closed by us"
        self.said_goodbye.set()

    def reset(self) -> None:
        pass


class Makers:
    """Makes connections, and keeps them."""

    def __init__(self) -> None:
        self.made: list[Connection] = []
        self.down = False

    async def __call__(self) -> Connection:
        if self.down:
            raise UpstreamDown("down")
        wire: Any = Wire()
        self.made.append(Connection(wire, {"size": "1000", "pipelining": ""}, asyncio.get_running_loop().time()))
        return self.made[-1]

    @property
    def open(self) -> list[Connection]:
        return [connection for connection in self.made if not connection.wire.ended]


async def take(some: Pool, *, fresh: bool = False) -> Connection:
    await some.wait_for_place()
    return await some.connection(fresh=fresh)


async def test_the_connection_that_was_used_last_is_used_first() -> None:
    some = Pool(Makers(), 3)
    one, two = await take(some), await take(some)
    some.give_back(one)
    some.give_back(two)
    assert await take(some) is two
    assert await take(some) is one
    assert some.offered == {0: {"size": "1000", "pipelining": ""}}


@pytest.mark.parametrize("why", ["messages", "resets", "refusals", "age", "ended"])
async def test_a_connection_retires(why: str) -> None:
    some = Pool(Makers(), 1)
    one = await take(some)
    limits = {"messages": connect.MOST_MESSAGES, "resets": connect.MOST_RESETS, "refusals": connect.MOST_REFUSALS}
    assert limits == {"messages": 100, "resets": 50, "refusals": 5}
    if why in limits:
        setattr(one, why, limits[why] - 1)
        some.give_back(one)
        assert await take(some) is one
        setattr(one, why, limits[why])
    elif why == "age":
        one.born -= connect.LONGEST_LIFE + 1
    else:
        one.wire.ended = "lost"
    some.give_back(one)
    assert await take(some) is not one


async def test_an_accepted_message_makes_up_for_refusals_and_resets() -> None:
    one = await Makers()()
    one.refusals, one.resets = connect.MOST_REFUSALS, connect.MOST_RESETS
    assert one.tired
    one.accepted()
    assert not one.tired
    assert one.messages == 1


async def test_one_that_ended_or_grew_old_while_idle_is_not_given() -> None:
    some = Pool(makers := Makers(), 3)
    taken = [await take(some) for _ in range(3)]
    for connection in taken:
        some.give_back(connection)
    taken[2].wire.ended = "lost"
    taken[1].born -= connect.LONGEST_LIFE + 1
    assert await take(some) is taken[0]
    assert makers.open == [taken[0]]


async def test_no_more_than_its_size_are_in_use_and_whoever_waits_is_served_in_turn() -> None:
    some = Pool(makers := Makers(), 2)
    one, _ = await take(some), await take(some)
    first = asyncio.create_task(take(some))
    second = asyncio.create_task(take(some))
    await asyncio.sleep(0)
    assert not first.done()
    some.give_back(one)
    assert await first is one
    assert not second.done()
    some.give_back(one)
    assert await second is one
    assert len(makers.made) == 2


async def test_waiting_has_its_limit_and_its_own_name() -> None:
    some = Pool(Makers(), 1, longest_wait=0.02)
    one = await take(some)
    with pytest.raises(UpstreamBusy):
        await some.wait_for_place()
    some.give_back(one)
    assert await take(some) is one


class Silent:
    """Has a connection and does nothing with it."""

    def __init__(self, some: Pool, connection: Connection) -> None:
        self.some = some
        self.connection = connection
        self.asked = False
        some.is_silent(self.give_back)

    def give_back(self) -> None:
        self.asked = True
        self.some.give_back(self.connection)


async def test_who_is_silent_gives_its_place_to_who_waits_the_most_silent_first() -> None:
    some = Pool(makers := Makers(), 2, longest_silence=0.05)
    loop = asyncio.get_running_loop()
    one = Silent(some, await take(some))
    begun = loop.time()
    two = Silent(some, await take(some))
    async with asyncio.timeout(5):
        assert await take(some) is one.connection
        assert loop.time() - begun >= 0.045
        assert not two.asked
        assert await take(some) is two.connection
    assert len(makers.made) == 2


async def test_who_has_long_been_silent_gives_its_place_at_once_one_for_each_that_waits() -> None:
    some = Pool(Makers(), 3, longest_silence=0.05)
    silent = [Silent(some, await take(some)) for _ in range(3)]
    await asyncio.sleep(0.1)
    assert not any(one.asked for one in silent)
    async with asyncio.timeout(5):
        waiting = [asyncio.create_task(take(some)) for _ in range(2)]
        assert [await task for task in waiting] == [silent[0].connection, silent[1].connection]
    await asyncio.sleep(0.01)
    assert [one.asked for one in silent] == [True, True, False]


async def test_who_speaks_again_keeps_its_place() -> None:
    some = Pool(Makers(), 2, longest_wait=0.2, longest_silence=0.05)
    one, two = [Silent(some, await take(some)) for _ in range(2)]
    some.speaks(one.give_back)
    assert await take(some) is two.connection
    with pytest.raises(UpstreamBusy):
        await some.wait_for_place()
    assert not one.asked


async def test_who_falls_silent_while_others_wait_is_asked_in_its_turn() -> None:
    some = Pool(Makers(), 1, longest_silence=0.01)
    one = await take(some)
    waiting = asyncio.create_task(take(some))
    await asyncio.sleep(0)
    silent = Silent(some, one)
    async with asyncio.timeout(5):
        assert await waiting is one
    assert silent.asked


async def test_an_exchange_needs_no_place() -> None:
    makers = Makers()
    some = Pool(makers, 1)
    one = await take(some)
    waiting = asyncio.create_task(take(some))
    await asyncio.sleep(0)
    other = await some.exchange(one)
    assert makers.open == [other]
    assert not waiting.done()
    makers.down = True
    with pytest.raises(UpstreamDown):
        await some.exchange(other)
    makers.down = False
    async with asyncio.timeout(5):
        assert await waiting is makers.made[-1]


async def test_a_place_is_free_again_after_a_failure_and_after_who_waited_left() -> None:
    makers = Makers()
    some = Pool(makers, 1)
    makers.down = True
    for _ in range(3):
        with pytest.raises(UpstreamDown):
            await take(some)
    makers.down = False
    one = await take(some)
    gone = asyncio.create_task(some.wait_for_place())
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    some.give_back(one)
    assert await take(some) is one


async def test_a_fresh_one_takes_the_place_of_an_idle_one() -> None:
    some = Pool(makers := Makers(), 2)
    taken = [await take(some), await take(some)]
    for connection in taken:
        some.give_back(connection)
    fresh = await take(some, fresh=True)
    assert fresh not in taken
    assert makers.open == [taken[1], fresh]
    for _ in range(5):
        some.give_back(fresh)
        fresh = await take(some, fresh=True)
    assert len(makers.open) <= 2


async def test_idle_connections_go_one_by_one_as_their_time_comes() -> None:
    some = Pool(Makers(), 2, longest_idle=0.05)
    one, two = await take(some), await take(some)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    some.give_back(one)
    loop.call_later(0.03, some.give_back, two)
    await asyncio.wait_for(one.wire.said_goodbye.wait(), 5)  # type: ignore[attr-defined]
    assert loop.time() - begun >= 0.045
    assert not two.wire.ended
    await asyncio.wait_for(two.wire.said_goodbye.wait(), 5)  # type: ignore[attr-defined]
    assert loop.time() - begun >= 0.075
    assert some._tidying is None


async def test_closing_ends_what_is_idle_now_and_what_is_in_use_later() -> None:
    some = Pool(makers := Makers(), 2)
    one, two = await take(some), await take(some)
    some.give_back(one)
    some.close()
    assert makers.open == [two]
    some.give_back(two)
    assert not makers.open


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_patience_ends_when_attempts_have_used_it_up() -> None:
    clock = Clock()
    patience = Patience(1.0, clock)
    patience.begin()
    clock.now += 0.4
    assert await patience.pause()
    patience.begin()
    clock.now += 5
    patience.overlook()
    clock.now += 0.4
    assert await patience.pause()
    clock.now += 0.3
    assert not await patience.pause()
    patience.begin()
    assert not await patience.pause()
