"""Sequences in one process, and what it does while the store does not answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from parts.waiting import until

from relay.claims.local_sequences import LocalSequences
from relay.claims.manager import STORE, ClaimManager
from relay.claims.memory import MemoryStore
from relay.core.claim import Fingerprint, Follow, Unknown
from relay.core.sequence import Arrival, SequenceName, SequenceState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from relay.core.claim import Answer, Command

KEEP_FOR = 660.0
SEQUENCE = SequenceName("q4:s")
A, B, C = (Fingerprint(f"v4:{name}") for name in "abc")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeClient:
    """A store client. A test can take the store down, or let calls fail while it is up."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.up = True
        self.fails = False
        self.data_losses = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def ask(self, commands: Sequence[Command]) -> list[Answer]:
        if not self.up:
            return [Unknown("down")] * len(commands)
        fails = self.fails
        answers = [] if fails else await self.store.execute(commands)
        await self.may_answer.wait()
        return [Unknown("failed")] * len(commands) if fails else answers


class Process:
    """The claims of one process."""

    def __init__(self, store: MemoryStore, clock: Clock) -> None:
        self.client = FakeClient(store)
        self.beyond: Counter[str] = Counter()
        self.manager = ClaimManager(
            self.client,
            lease=30,
            clock=clock,
            on_beyond_bound=lambda bound, count: self.beyond.update({bound: count}),
        )

    async def follow(self, *mails: Fingerprint, sequence: SequenceName = SEQUENCE) -> list[str]:
        """Places the mails one after the other. Returns the epochs."""
        states = [await self.manager.follow([arrival(mail, sequence)]) for mail in mails]
        return [state[sequence].epoch for state in states]


def arrival(mail: Fingerprint, sequence: SequenceName = SEQUENCE, *, takes_part: bool = True) -> Arrival:
    return Arrival(sequence, b"sender@example.test", mail, KEEP_FOR, takes_part)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock)


@pytest.fixture
async def one(store: MemoryStore, clock: Clock) -> AsyncIterator[Process]:
    process = Process(store, clock)
    yield process
    process.client.may_answer.set()
    await process.manager.close()


@pytest.fixture
async def other(store: MemoryStore, clock: Clock) -> AsyncIterator[Process]:
    process = Process(store, clock)
    yield process
    await process.manager.close()


async def test_a_mail_of_no_rule_takes_part_in_a_known_sequence_only(one: Process, clock: Clock) -> None:
    assert await one.manager.follow([arrival(B, takes_part=False)]) == {}
    assert not one.manager.knows_sender(b"sender@example.test")
    [first] = await one.follow(A)
    assert one.manager.knows_sender(b"sender@example.test")
    assert not one.manager.knows_sender(b"eve@example.test")
    assert SEQUENCE in await one.manager.follow([arrival(B, takes_part=False)])
    [second] = await one.follow(A)
    assert second != first
    clock.now += KEEP_FOR
    assert await one.manager.follow([arrival(B, takes_part=False)]) == {}


async def test_a_sequence_is_known_before_the_store_has_answered(one: Process) -> None:
    one.client.may_answer.clear()
    placing = [asyncio.ensure_future(one.manager.follow([arrival(A)]))]
    await asyncio.sleep(0)
    placing += [
        asyncio.ensure_future(one.manager.follow([each])) for each in (arrival(B, takes_part=False), arrival(A))
    ]
    await asyncio.sleep(0)
    one.client.may_answer.set()
    first, between, last = await asyncio.gather(*placing)
    assert between[SEQUENCE].fingerprints == (B, A)
    assert last[SEQUENCE].epoch != first[SEQUENCE].epoch


async def test_a_process_works_alone_while_the_store_is_down(one: Process) -> None:
    [before] = await one.follow(A)
    one.client.up = False
    same, between, back, again = await one.follow(A, B, A, A)
    assert before == same
    assert len({same, between, back}) == 3
    assert back == again


@pytest.mark.parametrize("mails", [(B,), (B, A), (B, A, B, A)])
async def test_a_returning_store_is_told_that_something_came_in_between(
    one: Process, other: Process, mails: tuple[Fingerprint, ...]
) -> None:
    epochs = await one.follow(A)
    one.client.up = False
    epochs += await one.follow(*mails)
    one.client.up = True
    one.manager.store_returned()
    await until(lambda: not one.manager._sequences.unwritten, "the changes written")
    [after] = await other.follow(A)
    assert after not in epochs, "the other process may have delivered something too"
    assert await one.follow(A) == [after]


async def test_a_mail_right_after_the_return_of_the_store_tells_it_too(one: Process, other: Process) -> None:
    epochs = await one.follow(A)
    one.client.up = False
    epochs += await one.follow(B, A)
    one.client.up = True  # nothing was written back yet
    [after] = await one.follow(A)
    assert after not in epochs
    assert await other.follow(A) == await one.follow(A) == [after]


async def test_in_doubt_a_new_epoch_begins(one: Process, other: Process) -> None:
    [first] = await one.follow(A)
    await other.follow(B)
    one.client.fails = True
    second, twin = await one.follow(A, A)
    assert second != first
    assert second == twin, "this process saw nothing in between"
    await other.follow(C)
    one.client.fails = False
    assert (await one.follow(A))[0] not in (first, second)


async def test_a_mail_that_the_store_did_not_hear_of_counts_for_one_that_is_being_placed(one: Process) -> None:
    [first] = await one.follow(A)
    one.client.fails = True
    one.client.may_answer.clear()
    between = asyncio.ensure_future(one.manager.follow([arrival(B)]))
    await asyncio.sleep(0)
    one.client.fails = False
    after = asyncio.ensure_future(one.manager.follow([arrival(A)]))
    await asyncio.sleep(0)
    one.client.may_answer.set()
    await between
    assert (await after)[SEQUENCE].epoch != first
    await until(lambda: not one.manager._sequences.unwritten, "the change written")


async def test_after_a_loss_of_data_the_next_mail_is_no_repeat(one: Process, other: Process) -> None:
    [first] = await one.follow(A)
    one.client.data_losses += 1  # perhaps it has lost a mail in between
    one.manager.store_returned()
    await until(lambda: not one.manager._sequences.unwritten, "the sequences written")
    [second] = await other.follow(A)
    assert second != first
    assert await one.follow(A) == [second]


async def test_a_full_store_is_reported_and_the_process_works_alone(clock: Clock) -> None:
    process = Process(MemoryStore(clock, most_claims=0), clock)
    first, second, between, back = await process.follow(A, A, B, A)
    assert first == second
    assert len({first, between, back}) == 3
    assert process.beyond[STORE] == 4
    assert not process.manager._sequences.unwritten
    await process.manager.close()


def names(count: int) -> list[SequenceName]:
    return [SequenceName(f"q4:{number}") for number in range(count)]


def test_beyond_the_bound_the_oldest_sequence_is_dropped_and_its_next_mail_is_no_repeat(clock: Clock) -> None:
    table = LocalSequences(clock, most=2)
    first, second, third = names(3)
    for name in (first, second, third):
        assert table.begin(arrival(A, name)) is None
        clock.now += 1
    assert [table.knows(name) for name in (first, second, third)] == [False, True, True]
    assert table.knows_sender(b"sender@example.test")
    between = table.begin(arrival(A, first))
    assert between
    assert between.sequence == first
    assert between.fingerprint != A
    clock.now += KEEP_FOR
    assert table.begin(arrival(A, second)) is None, "what was dropped has ended"


def test_an_answer_without_what_was_told_before_is_not_believed(clock: Clock) -> None:
    table = LocalSequences(clock)
    command, told = (Follow(SEQUENCE, mail, epoch * 16, KEEP_FOR) for mail, epoch in ((A, "1"), (B, "2")))
    for fingerprints, epoch in (((A, B), "0"), ((A, C), "1")):
        table.begin(arrival(A))
        state = table.apply(command, SequenceState("0" * 16, fingerprints), told, alone=False)
        assert state.epoch == epoch * 16


def test_sequences_that_have_ended_are_dropped(clock: Clock) -> None:
    table = LocalSequences(clock)
    first, second = names(2)
    table.begin(Arrival(first, b"gone@example.test", A, KEEP_FOR, takes_part=True))
    follow = Follow(first, A, "0" * 16, KEEP_FOR)
    table.apply(follow, Unknown("down"), None, alone=True)
    assert table.unwritten.keys() == {first}
    clock.now += KEEP_FOR
    assert not table.knows(first)
    table.begin(arrival(A, second))
    assert not table.knows_sender(b"gone@example.test")
    assert not table.unwritten


def test_a_sequence_that_has_ended_begins_anew(clock: Clock) -> None:
    table = LocalSequences(clock)
    for epoch in ("0" * 16, "1" * 16):
        table.begin(arrival(A))
        state = table.apply(Follow(SEQUENCE, A, epoch, KEEP_FOR), Unknown("down"), None, alone=True)
        assert state == SequenceState(epoch, (A,))
        clock.now += KEEP_FOR
