"""The claims of one process, before a store in memory and a clock that the test holds."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from parts.waiting import until

from relay.claims.book import Book
from relay.claims.memory import MemoryStore
from relay.core.claim import (
    Claim,
    Confirm,
    Fingerprint,
    Free,
    Held,
    Original,
    Peek,
    Release,
    Renew,
    Sent,
    Token,
    Unknown,
    Won,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from relay.core.claim import Answer, Command

LEASE, WINDOW, POLL_EVERY = 30.0, 600.0, 0.001
K, L, M = (Fingerprint(f"v1:{name}") for name in "klm")
A, B, C = Token("a"), Token("b"), Token("c")
ORIGINAL = Original("4f1d", "<one@example.test>", "2.0.0 Ok", 1_700_000_000.0)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Shared:
    """A guarded store: it can be down, and hold its answers back."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.up = True
        self.asked: list[Command] = []
        self.open = asyncio.Event()
        self.open.set()

    async def ask(self, commands: Sequence[Command]) -> list[Answer]:
        self.asked += commands
        if not self.up:
            return [Unknown("down")] * len(commands)
        answers = await self.store.execute(commands)
        await self.open.wait()
        return answers


class Two:
    """Two processes with a book each, on one store and one clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(self.clock)
        self.mine, self.theirs = Shared(self.store), Shared(self.store)
        self.lost = 0
        self.book = Book(self.mine, lease=LEASE, clock=self.clock, poll_every=POLL_EVERY, on_lost=self.lose)
        self.other = Book(self.theirs, lease=LEASE, clock=self.clock, poll_every=POLL_EVERY)

    def lose(self, count: int) -> None:
        self.lost += count

    async def state(self, key: Fingerprint) -> Answer:
        [answer] = await self.store.execute([Peek(key, WINDOW)])
        return answer


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    both = Two()
    yield both
    both.mine.open.set()
    await both.book.close()
    await both.other.close()


async def waiting(*works: object) -> list[asyncio.Task[bool]]:
    """Start to wait, and come back when everybody does."""
    tasks = [asyncio.ensure_future(work) for work in works]  # type: ignore[call-overload]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    return tasks


async def soon(task: asyncio.Task[bool]) -> bool:
    async with asyncio.timeout(5):
        return await task


async def test_a_claim_is_won_once_and_sent_once_it_is_settled(two: Two) -> None:
    assert await two.book.claim([K, L], A, WINDOW) == {K: Won(), L: Won()}
    assert two.book.held == 2
    assert await two.book.claim([L, K, M], B, WINDOW) == {L: Held(LEASE), K: Held(LEASE), M: Won()}
    assert await two.other.claim([K], C, WINDOW) == {K: Held(LEASE)}
    await two.book.settle(A, {K: ORIGINAL}, [L], WINDOW)
    two.clock.now += 34
    assert await two.book.claim([K, L], B, WINDOW) == {K: Sent(ORIGINAL, 34), L: Won()}
    assert await two.state(K) == Sent(ORIGINAL, 34)
    assert two.book.held == 2


async def test_what_is_known_here_is_not_asked_for(two: Two) -> None:
    await two.book.claim([K], A, WINDOW)
    await two.book.settle(A, {K: ORIGINAL}, [], WINDOW)
    two.mine.asked.clear()
    assert await two.book.claim([K], B, WINDOW) == {K: Sent(ORIGINAL, 0)}
    assert two.mine.asked == []
    two.clock.now += WINDOW
    assert await two.book.claim([K], B, WINDOW) == {K: Won()}


async def test_asking_again_for_what_is_ours_is_won(two: Two) -> None:
    await two.book.claim([K], A, WINDOW)
    assert await two.book.claim([K], A, WINDOW) == {K: Won()}


async def test_a_shorter_window_counts(two: Two) -> None:
    await two.book.claim([K], A, WINDOW)
    await two.book.settle(A, {K: ORIGINAL}, [], WINDOW)
    two.clock.now += 10
    assert await two.book.claim([K], B, 9.0) == {K: Won()}


@pytest.mark.parametrize("accepted", [True, False])
async def test_all_who_wait_hear_of_the_end_and_one_takes_over(two: Two, accepted: bool) -> None:
    await two.book.claim([K], A, WINDOW)
    tasks = await waiting(*(two.book.changed([K], 60) for _ in range(3)))
    await two.book.settle(A, {K: ORIGINAL} if accepted else {}, [] if accepted else [K], WINDOW)
    assert [await soon(task) for task in tasks] == [True] * 3
    verdicts = [(await two.book.claim([K], Token(f"t{number}"), WINDOW))[K] for number in range(3)]
    assert verdicts == ([Sent(ORIGINAL, 0)] * 3 if accepted else [Won(), Held(LEASE), Held(LEASE)])


async def test_a_wait_for_several_ends_with_the_first_of_them(two: Two) -> None:
    await two.book.claim([K, L], A, WINDOW)
    [task] = await waiting(two.book.changed([K, L], 60))
    await two.book.settle(A, {}, [L], WINDOW)
    assert await soon(task)
    assert await two.book.changed([L], 60), "what nobody holds any more is not waited for"


async def test_a_wait_ends_in_time_and_leaves_nothing_behind(two: Two) -> None:
    await two.book.claim([K], A, WINDOW)
    assert not await two.book.changed([K], 0.001)
    [task] = await waiting(two.book.changed([K], 60))
    two.book.give_up()
    assert not await soon(task)
    assert not await two.book.changed([K], 60)


@pytest.mark.parametrize(
    ("end", "verdict"),
    [("accepted", Sent(ORIGINAL, 0)), ("released", Won()), ("lease", Won())],
)
async def test_the_poller_sees_what_becomes_of_another_processes_claim(two: Two, end: str, verdict: Answer) -> None:
    await two.other.claim([K], C, WINDOW)
    assert await two.book.claim([K], A, WINDOW) == {K: Held(LEASE)}
    assert two.book.held == 0
    tasks = await waiting(two.book.changed([K], 60), two.book.changed([K], 60))
    if end == "lease":
        two.clock.now += LEASE
    else:
        await two.other.settle(C, {K: ORIGINAL} if end == "accepted" else {}, [K] if end == "released" else [], WINDOW)
    assert [await soon(task) for task in tasks] == [True, True]
    assert await two.book.claim([K], A, WINDOW) == {K: verdict}


async def test_with_the_store_down_another_processes_lease_still_counts(two: Two) -> None:
    await two.other.claim([K], C, WINDOW)
    await two.book.claim([K], A, WINDOW)
    two.mine.up = False
    [task] = await waiting(two.book.changed([K], 60))
    asked = len(two.mine.asked)
    await until(lambda: len(two.mine.asked) >= asked + 3, "three looks at it")
    assert not task.done()
    two.clock.now += LEASE
    assert await soon(task)
    assert await two.book.claim([K], A, WINDOW) == {K: Won()}


async def test_while_the_store_answers_twins_here_already_wait(two: Two) -> None:
    two.mine.open.clear()
    first = asyncio.ensure_future(two.book.claim([K], A, WINDOW))
    await asyncio.sleep(0)
    assert await two.book.claim([K], B, WINDOW) == {K: Held(LEASE)}
    [task] = await waiting(two.book.changed([K], 60))
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    assert await soon(task), "a claim that was never answered is nobody's"
    await until(lambda: Release(K, A) in two.mine.asked, "a release that nobody waits for")
    assert await two.state(K) == Free(), "although the store had given it"


async def test_a_release_that_nobody_waits_for_comes_before_the_end(two: Two) -> None:
    two.mine.open.clear()
    claiming = asyncio.ensure_future(two.book.claim([K], A, WINDOW))
    await asyncio.sleep(0)
    claiming.cancel()
    await asyncio.wait([claiming])
    two.mine.open.set()
    await two.book.close()
    assert await two.state(K) == Free()


async def test_renewing_keeps_a_claim_from_the_others(two: Two) -> None:
    await two.book.claim([K], A, WINDOW)
    for _ in range(3):
        two.clock.now += LEASE - 1
        await two.book.renew()
    assert await two.other.claim([K], C, WINDOW) == {K: Held(LEASE)}
    assert await two.book.assure([K], A, WINDOW) == {}


async def test_a_claim_that_the_store_lost_is_taken_back_by_renewing(two: Two) -> None:
    await two.book.claim([K], A, WINDOW)
    await two.store.execute([Release(K, A)])
    await two.book.renew()
    assert await two.other.claim([K], C, WINDOW) == {K: Held(LEASE)}


async def test_a_claim_that_is_released_meanwhile_is_not_taken_back(two: Two) -> None:
    await two.book.claim([K], A, WINDOW)
    await two.store.execute([Release(K, A)])
    two.mine.open.clear()
    renewing = asyncio.ensure_future(two.book.renew())
    settling = asyncio.ensure_future(two.book.settle(A, {}, [K], WINDOW))
    await asyncio.sleep(0)
    two.mine.open.set()
    await asyncio.gather(renewing, settling)
    assert await two.state(K) == Free()


async def test_a_lease_that_ran_out_is_claimed_again_before_content_goes_out(two: Two) -> None:
    await two.book.claim([K, L, M], A, WINDOW)
    two.clock.now += LEASE
    await two.other.claim([K, L], C, WINDOW)
    await two.other.settle(C, {L: ORIGINAL}, [], WINDOW)
    assert await two.book.assure([K, L, M], A, WINDOW) == {K: Held(LEASE), L: Sent(ORIGINAL, 0)}
    # What is not ours any more is not ours to free.
    await two.book.settle(A, {M: ORIGINAL}, [K, L], WINDOW)
    assert await two.state(K) == Held(LEASE)
    assert await two.book.claim([K, L, M], B, WINDOW) == {K: Held(LEASE), L: Sent(ORIGINAL, 0), M: Sent(ORIGINAL, 0)}
    assert two.lost == 0, "their owner knows"


@pytest.mark.parametrize("theirs", ["held", "sent", "released"])
async def test_a_claim_that_another_process_took_is_counted_once(
    two: Two, theirs: str, caplog: pytest.LogCaptureFixture
) -> None:
    await two.book.claim([K, L], A, WINDOW)
    two.clock.now += LEASE
    await two.other.claim([K], C, WINDOW)
    await two.other.settle(C, {K: ORIGINAL} if theirs == "sent" else {}, [K] if theirs == "released" else [], WINDOW)
    for _ in range(3):
        await two.book.renew()
    assert await two.book.claim([K], B, WINDOW) == {K: Held(LEASE if theirs == "released" else 0)}, "its owner is alive"
    await two.book.settle(A, {K: ORIGINAL}, [L], WINDOW)
    lost = theirs != "released"
    assert two.lost == lost
    assert ("another process took 1 claims" in caplog.text) is lost


async def test_what_renewing_found_and_assure_gives_is_not_counted_twice(two: Two) -> None:
    await two.book.claim([K], A, WINDOW)
    two.clock.now += LEASE
    await two.other.claim([K], C, WINDOW)
    await two.book.renew()
    assert await two.book.assure([K], A, WINDOW) == {K: Held(LEASE)}
    await two.book.settle(A, {}, [K], WINDOW)
    assert two.lost == 0


async def test_a_store_that_returns_hears_at_once_what_is_held_here(two: Two) -> None:
    await two.book.claim([K], A, WINDOW)
    await two.store.execute([Release(K, A)])
    two.book.store_returned()
    await until(lambda: Claim(K, A, LEASE, WINDOW) in two.mine.asked[1:], "a claim taken back")
    assert await two.other.claim([K], C, WINDOW) == {K: Held(LEASE)}


async def test_what_was_never_claimed_is_claimed_before_content_goes_out(two: Two) -> None:
    await two.book.claim([K], B, WINDOW)
    assert await two.book.assure([K, L], A, WINDOW) == {K: Held(LEASE)}
    assert await two.other.claim([K, L], C, WINDOW) == {K: Held(LEASE), L: Held(LEASE)}
    assert await two.book.assure([K], B, WINDOW) == {}, "the one that holds it is not disturbed"


async def test_as_long_as_leases_run_nothing_is_asked_before_content_goes_out(two: Two) -> None:
    await two.book.claim([K], A, WINDOW)
    two.mine.asked.clear()
    assert await two.book.assure([K], A, WINDOW) == {}
    assert two.mine.asked == []


async def test_without_a_store_the_process_decides_alone_and_writes_back_later(two: Two) -> None:
    two.mine.up = False
    assert await two.book.claim([K, L], A, WINDOW) == {K: Won(), L: Won()}
    assert await two.book.claim([K], B, WINDOW) == {K: Held(LEASE)}
    await two.book.settle(A, {K: ORIGINAL}, [L], WINDOW)
    assert await two.book.claim([K], B, WINDOW) == {K: Sent(ORIGINAL, 0)}
    two.clock.now += 10
    two.mine.up = True
    await two.book.close()
    assert await two.state(K) == Sent(ORIGINAL, 10), "with its true age"
    assert await two.state(L) == Free()


async def test_a_store_that_comes_back_empty_hears_of_what_this_process_sent(two: Two) -> None:
    await two.book.claim([K, L], A, WINDOW)
    await two.book.settle(A, {K: ORIGINAL, L: ORIGINAL}, [], WINDOW)
    await two.other.claim([M], C, WINDOW)
    await two.other.settle(C, {M: ORIGINAL}, [], WINDOW)
    assert await two.book.claim([M], A, WINDOW) == {M: Sent(ORIGINAL, 0)}
    two.mine.asked.clear()
    two.book.store_returned()
    await two.book.close()
    assert {command.key for command in two.mine.asked if isinstance(command, Confirm)} == {K, L}


async def test_what_the_window_has_passed_is_not_written_back(two: Two) -> None:
    await two.book.claim([K], A, WINDOW)
    two.mine.up = False
    await two.book.settle(A, {K: ORIGINAL}, [], WINDOW)
    two.clock.now += WINDOW
    two.mine.up = True
    two.mine.asked.clear()
    await two.book.close()
    assert two.mine.asked == []


async def test_only_so_much_is_remembered_here_the_oldest_goes_first(two: Two) -> None:
    small = Book(two.mine, lease=LEASE, clock=two.clock, remembered=2)
    for key in (K, L, M):
        await small.claim([key], A, WINDOW)
        await small.settle(A, {key: ORIGINAL}, [], WINDOW)
    two.mine.asked.clear()
    assert await small.claim([K, L, M], B, WINDOW) == dict.fromkeys([K, L, M], Sent(ORIGINAL, 0))
    assert two.mine.asked == [Claim(K, B, LEASE, WINDOW)], "the store still knows"
    await small.close()


async def test_leases_are_renewed_all_the_time(two: Two) -> None:
    book = Book(two.mine, lease=0.003, clock=two.clock)
    book.start()
    await book.claim([K], A, WINDOW)
    await until(lambda: sum(isinstance(command, Renew) for command in two.mine.asked) >= 3, "three renewals")
    await book.close()
