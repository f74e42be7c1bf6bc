"""The claims of one process, before a store in memory and a clock that the test holds."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
from typing import TYPE_CHECKING

import pytest
from parts.waiting import until

from relay.claims.manager import ClaimManager
from relay.claims.memory import MemoryStore
from relay.claims.write_back import WRITE_BACK_BATCH
from relay.core.claim import (
    AskGeneration,
    Claim,
    ClaimTerms,
    Confirm,
    Entry,
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
    from collections.abc import AsyncIterator, Callable, Sequence

    from relay.core.claim import Answer, Command

LEASE, WINDOW, POLL_EVERY = 30.0, 600.0, 0.001
K, L, M = (Fingerprint(f"v1:{name}") for name in "klm")
A, B, C = Token("a"), Token("b"), Token("c")
TERMS = {key: ClaimTerms(WINDOW, f"to {key}") for key in (K, L, M)}
ORIGINAL = Original("4f1d", "<one@example.test>", "2.0.0 Ok", 1_700_000_000.0)


def on(*keys: Fingerprint, window: float = WINDOW) -> dict[Fingerprint, ClaimTerms]:
    return {key: ClaimTerms(window, f"to {key}") for key in keys}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Shared:
    """A guarded store: it can be down, and hold its answers back."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.up = True
        self.away: set[Fingerprint] = set()
        """Keys of a node that does not answer."""
        self.asked: list[Command] = []
        self.open = asyncio.Event()
        self.open.set()

    async def ask(self, commands: Sequence[Command]) -> list[Answer]:
        self.asked += commands
        if not self.up:
            return [Unknown("down")] * len(commands)
        served = [isinstance(command, AskGeneration) or command.key not in self.away for command in commands]
        answers = iter(await self.store.execute([*itertools.compress(commands, served)]))
        await self.open.wait()
        return [next(answers) if is_served else Unknown("away") for is_served in served]


class Two:
    """Two processes with a book each, on one store and one clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(self.clock)
        self.mine, self.theirs = Shared(self.store), Shared(self.store)
        self.lost = 0
        self.book = ClaimManager(self.mine, lease=LEASE, clock=self.clock, poll_every=POLL_EVERY, on_lost=self.lose)
        self.other = ClaimManager(self.theirs, lease=LEASE, clock=self.clock, poll_every=POLL_EVERY)

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
    assert await two.book.claim(on(K, L), A) == {K: Won(), L: Won()}
    assert two.book.held == 2
    assert await two.book.claim(on(L, K, M), B) == {L: Held(LEASE), K: Held(LEASE), M: Won()}
    assert await two.other.claim(on(K), C) == {K: Held(LEASE)}
    await two.book.settle(A, {K: ORIGINAL}, [L], TERMS)
    two.clock.now += 34
    assert await two.book.claim(on(K, L), B) == {K: Sent(ORIGINAL, 34), L: Won()}
    assert await two.state(K) == Sent(ORIGINAL, 34)
    assert two.book.held == 2


async def test_what_is_known_here_is_asked_for_by_nobody(two: Two) -> None:
    await two.book.claim(on(K), A)
    await two.book.settle(A, {K: ORIGINAL}, [], TERMS)
    two.mine.asked.clear()
    assert await two.book.claim(on(K), B) == {K: Sent(ORIGINAL, 0)}
    assert two.mine.asked == [AskGeneration()], "but whether anything was forgotten"
    two.clock.now += WINDOW
    assert await two.book.claim(on(K), B) == {K: Won()}


async def test_asking_again_for_what_is_ours_is_won(two: Two) -> None:
    await two.book.claim(on(K), A)
    assert await two.book.claim(on(K), A) == {K: Won()}


async def test_a_shorter_window_counts(two: Two) -> None:
    await two.book.claim(on(K), A)
    await two.book.settle(A, {K: ORIGINAL}, [], TERMS)
    two.clock.now += 10
    assert await two.book.claim(on(K, window=9.0), B) == {K: Won()}


async def test_each_key_has_a_window_of_its_own(two: Two) -> None:
    terms = {**on(K), **on(L, window=9.0)}
    await two.book.claim(terms, A)
    await two.book.settle(A, {K: ORIGINAL, L: ORIGINAL}, [], terms)
    two.clock.now += 10
    for book, token in ((two.book, B), (two.other, C)):
        assert await book.claim(terms, token) == {K: Sent(ORIGINAL, 10), L: Won()}
        await book.settle(token, {}, [L], terms)


async def test_the_window_of_an_acceptance_counts_wherever_it_is_heard_of(two: Two) -> None:
    await two.other.claim(on(K, window=20.0), C)
    await two.other.settle(C, {K: ORIGINAL}, [], on(K, window=20.0))
    two.clock.now += 10
    assert await two.book.claim(on(K), A) == {K: Sent(ORIGINAL, 10)}
    two.clock.now += 10
    assert await two.book.claim(on(K), A) == {K: Won()}


@pytest.mark.parametrize("accepted", [True, False])
async def test_all_who_wait_hear_of_the_end_and_one_takes_over(two: Two, accepted: bool) -> None:
    await two.book.claim(on(K), A)
    tasks = await waiting(*(two.book.wait_for_change([K], 60) for _ in range(3)))
    await two.book.settle(A, {K: ORIGINAL} if accepted else {}, [] if accepted else [K], TERMS)
    assert [await soon(task) for task in tasks] == [True] * 3
    verdicts = [(await two.book.claim(on(K), Token(f"t{number}")))[K] for number in range(3)]
    assert verdicts == ([Sent(ORIGINAL, 0)] * 3 if accepted else [Won(), Held(LEASE), Held(LEASE)])


async def test_a_wait_for_several_ends_with_the_first_of_them(two: Two) -> None:
    await two.book.claim(on(K, L), A)
    [task] = await waiting(two.book.wait_for_change([K, L], 60))
    await two.book.settle(A, {}, [L], TERMS)
    assert await soon(task)
    assert await two.book.wait_for_change([L], 60), "what nobody holds any more is not waited for"


async def test_a_wait_ends_in_time_and_leaves_nothing_behind(two: Two) -> None:
    await two.book.claim(on(K), A)
    assert not await two.book.wait_for_change([K], 0.001)
    [task] = await waiting(two.book.wait_for_change([K], 60))
    two.book.end_waits()
    assert not await soon(task)
    assert not await two.book.wait_for_change([K], 60)


@pytest.mark.parametrize(
    ("end", "verdict"),
    [("accepted", Sent(ORIGINAL, 0)), ("released", Won()), ("lease", Won())],
)
async def test_the_poller_sees_what_becomes_of_another_processes_claim(two: Two, end: str, verdict: Answer) -> None:
    await two.other.claim(on(K), C)
    assert await two.book.claim(on(K), A) == {K: Held(LEASE)}
    assert two.book.held == 0
    tasks = await waiting(two.book.wait_for_change([K], 60), two.book.wait_for_change([K], 60))
    if end == "lease":
        two.clock.now += LEASE
    else:
        await two.other.settle(C, {K: ORIGINAL} if end == "accepted" else {}, [K] if end == "released" else [], TERMS)
    assert [await soon(task) for task in tasks] == [True, True]
    assert await two.book.claim(on(K), A) == {K: verdict}


async def test_with_the_store_down_another_processes_lease_still_counts(two: Two) -> None:
    await two.other.claim(on(K), C)
    await two.book.claim(on(K), A)
    two.mine.up = False
    [task] = await waiting(two.book.wait_for_change([K], 60))
    asked = len(two.mine.asked)
    await until(lambda: len(two.mine.asked) >= asked + 3, "three looks at it")
    assert not task.done()
    two.clock.now += LEASE
    assert await soon(task)
    assert await two.book.claim(on(K), A) == {K: Won()}


async def test_while_the_store_answers_twins_here_already_wait(two: Two) -> None:
    two.mine.open.clear()
    first = asyncio.ensure_future(two.book.claim(on(K), A))
    await asyncio.sleep(0)
    assert await two.book.claim(on(K), B) == {K: Held(LEASE)}
    [task] = await waiting(two.book.wait_for_change([K], 60))
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    assert await soon(task), "a claim that was never answered is nobody's"
    await until(lambda: Release(K, A) in two.mine.asked, "a release that nobody waits for")
    assert await two.state(K) == Free(), "although the store had given it"


async def test_a_release_that_nobody_waits_for_comes_before_the_end(two: Two) -> None:
    two.mine.open.clear()
    claiming = asyncio.ensure_future(two.book.claim(on(K), A))
    await asyncio.sleep(0)
    claiming.cancel()
    await asyncio.wait([claiming])
    two.mine.open.set()
    await two.book.close()
    assert await two.state(K) == Free()


async def test_renewing_keeps_a_claim_from_the_others(two: Two) -> None:
    await two.book.claim(on(K), A)
    for _ in range(3):
        two.clock.now += LEASE - 1
        await two.book._lease_renewal.renew()
    assert await two.other.claim(on(K), C) == {K: Held(LEASE)}
    assert await two.book.find_lost_claims(on(K), A) == {}


async def test_a_claim_that_the_store_lost_is_taken_back_by_renewing(two: Two) -> None:
    await two.book.claim(on(K), A)
    await two.store.execute([Release(K, A)])
    await two.book._lease_renewal.renew()
    assert await two.other.claim(on(K), C) == {K: Held(LEASE)}


async def test_a_claim_that_is_released_meanwhile_is_not_taken_back(two: Two) -> None:
    await two.book.claim(on(K), A)
    await two.store.execute([Release(K, A)])
    two.mine.open.clear()
    renewing = asyncio.ensure_future(two.book._lease_renewal.renew())
    settling = asyncio.ensure_future(two.book.settle(A, {}, [K], TERMS))
    await asyncio.sleep(0)
    two.mine.open.set()
    await asyncio.gather(renewing, settling)
    assert await two.state(K) == Free()


async def test_a_lease_that_ran_out_is_claimed_again_before_content_goes_out(two: Two) -> None:
    await two.book.claim(on(K, L, M), A)
    two.clock.now += LEASE
    await two.other.claim(on(K, L), C)
    await two.other.settle(C, {L: ORIGINAL}, [], TERMS)
    assert await two.book.find_lost_claims(on(K, L, M), A) == {K: Held(LEASE), L: Sent(ORIGINAL, 0)}
    # What is not ours any more is not ours to free.
    await two.book.settle(A, {M: ORIGINAL}, [K, L], TERMS)
    assert await two.state(K) == Held(LEASE)
    assert await two.book.claim(on(K, L, M), B) == {K: Held(LEASE), L: Sent(ORIGINAL, 0), M: Sent(ORIGINAL, 0)}
    assert two.lost == 2


@pytest.mark.parametrize("theirs", ["held", "sent", "released"])
async def test_a_claim_that_another_process_took_is_counted_once(
    two: Two, theirs: str, caplog: pytest.LogCaptureFixture
) -> None:
    await two.book.claim(on(K, L), A)
    two.clock.now += LEASE
    await two.other.claim(on(K), C)
    await two.other.settle(C, {K: ORIGINAL} if theirs == "sent" else {}, [K] if theirs == "released" else [], TERMS)
    for _ in range(3):
        await two.book._lease_renewal.renew()
    assert await two.book.claim(on(K), B) == {K: Held(LEASE if theirs == "released" else 0)}, "its owner is alive"
    await two.book.settle(A, {K: ORIGINAL}, [L], TERMS)
    lost = theirs != "released"
    assert two.lost == lost
    assert ("another process took 1 claims" in caplog.text) is lost


@pytest.mark.parametrize("theirs", ["held", "sent", "released"])
async def test_a_claim_taken_while_nobody_could_renew_it_is_counted(
    two: Two, theirs: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The process stood still; when it goes on, the upstream's reply is there before a lease is renewed."""
    await two.book.claim(on(K, L), A)
    two.clock.now += LEASE
    await two.other.claim(on(K), C)
    another = dataclasses.replace(ORIGINAL, id="rec-2")
    await two.other.settle(C, {K: another} if theirs == "sent" else {}, [K] if theirs == "released" else [], TERMS)
    await two.book.settle(A, {K: ORIGINAL, L: ORIGINAL}, [], TERMS)
    lost = theirs != "released"
    assert two.lost == lost
    assert ("1 recipients may have got a second copy" in caplog.text) is lost
    assert await two.state(K) == await two.state(L) == Sent(ORIGINAL, 0), "an acceptance is recorded all the same"


async def test_what_renewing_found_and_assure_gives_is_counted_once(two: Two) -> None:
    await two.book.claim(on(K), A)
    two.clock.now += LEASE
    await two.other.claim(on(K), C)
    await two.book._lease_renewal.renew()
    assert await two.book.find_lost_claims(on(K), A) == {K: Held(LEASE)}
    await two.book.settle(A, {}, [K], TERMS)
    assert two.lost == 1


async def test_a_store_that_returns_hears_at_once_what_is_held_here(two: Two) -> None:
    await two.book.claim(on(K), A)
    await two.store.execute([Release(K, A)])
    two.book.store_returned()
    await until(lambda: Claim(K, A, LEASE, WINDOW) in two.mine.asked[2:], "a claim taken back")
    assert await two.other.claim(on(K), C) == {K: Held(LEASE)}


async def test_a_store_that_returns_is_told_at_once_what_was_sent(two: Two) -> None:
    await two.book.claim(on(K, L), A)
    await two.book.settle(A, {K: ORIGINAL}, [], TERMS)
    two.mine.up = False
    await two.book.settle(A, {L: ORIGINAL}, [], TERMS)
    await asyncio.sleep(0)
    two.mine.store = two.store = MemoryStore(two.clock)
    two.mine.up = True
    two.book.store_returned()
    for _ in range(100):  # No time passes: it waits for nothing but its turn.
        await asyncio.sleep(0)
    assert await both_are_sent(two)


async def test_what_a_node_that_is_away_should_hear_of_holds_up_nobody_else(two: Two) -> None:
    theirs = on(*(Fingerprint(f"v1:theirs-{number}") for number in range(WRITE_BACK_BATCH + 1)))
    everything = theirs | on(K)
    await two.book.claim(everything, A)
    two.mine.up = False
    await two.book.settle(A, dict.fromkeys(everything, ORIGINAL), [], everything)
    two.mine.away = set(theirs)
    two.mine.up = True
    two.mine.asked.clear()
    two.book.store_returned()
    for _ in range(100):
        await asyncio.sleep(0)
    assert await is_sent(two, K), "that of the other node"
    rounds = sum(isinstance(command, Confirm) for command in two.mine.asked) / len(everything)
    assert rounds < 4, "after a round in vain it waits for a while"
    two.mine.away = set()
    await two.book.close()
    states = await two.store.execute([Peek(key, WINDOW) for key in theirs])
    assert states == [Sent(ORIGINAL, 0)] * len(theirs)


async def is_sent(two: Two, key: Fingerprint) -> bool:
    return await two.state(key) == Sent(ORIGINAL, 0)


async def both_are_sent(two: Two) -> bool:
    return [await two.state(K), await two.state(L)] == [Sent(ORIGINAL, 0)] * 2


async def test_what_was_never_claimed_is_claimed_before_content_goes_out(two: Two) -> None:
    await two.book.claim(on(K), B)
    assert await two.book.find_lost_claims(on(K, L), A) == {K: Held(LEASE)}
    assert await two.other.claim(on(K, L), C) == {K: Held(LEASE), L: Held(LEASE)}
    assert await two.book.find_lost_claims(on(K), B) == {}, "the one that holds it is not disturbed"


async def test_as_long_as_leases_run_nothing_is_asked_before_content_goes_out(two: Two) -> None:
    await two.book.claim(on(K), A)
    two.mine.asked.clear()
    assert await two.book.find_lost_claims(on(K), A) == {}
    assert two.mine.asked == []


async def test_without_a_store_the_process_decides_alone_and_writes_back_later(two: Two) -> None:
    two.mine.up = False
    assert await two.book.claim(on(K, L), A) == {K: Won(), L: Won()}
    assert await two.book.claim(on(K), B) == {K: Held(LEASE)}
    await two.book.settle(A, {K: ORIGINAL}, [L], TERMS)
    assert await two.book.claim(on(K), B) == {K: Sent(ORIGINAL, 0)}
    two.clock.now += 10
    two.mine.up = True
    await two.book.close()
    assert await two.state(K) == Sent(ORIGINAL, 10), "with its true age"
    assert await two.state(L) == Free()


async def test_a_store_that_comes_back_empty_hears_of_what_this_process_sent(two: Two) -> None:
    await two.book.claim(on(K, L), A)
    await two.book.settle(A, {K: ORIGINAL, L: ORIGINAL}, [], TERMS)
    await two.other.claim(on(M), C)
    await two.other.settle(C, {M: ORIGINAL}, [], TERMS)
    assert await two.book.claim(on(M), A) == {M: Sent(ORIGINAL, 0)}
    two.mine.asked.clear()
    two.book.store_returned()
    await two.book.close()
    assert {command.key for command in two.mine.asked if isinstance(command, Confirm)} == {K, L}


async def test_what_the_window_has_passed_is_not_written_back(two: Two) -> None:
    await two.book.claim(on(K), A)
    two.mine.up = False
    await two.book.settle(A, {K: ORIGINAL}, [], TERMS)
    two.clock.now += WINDOW
    two.mine.up = True
    two.mine.asked.clear()
    await two.book.close()
    assert two.mine.asked == [AskGeneration()]


async def test_only_so_much_is_remembered_here_the_oldest_goes_first(two: Two) -> None:
    small = ClaimManager(two.mine, lease=LEASE, clock=two.clock, remembered=2)
    for key in (K, L, M):
        await small.claim(on(key), A)
        await small.settle(A, {key: ORIGINAL}, [], TERMS)
    two.mine.asked.clear()
    assert await small.claim(on(K, L, M), B) == dict.fromkeys([K, L, M], Sent(ORIGINAL, 0))
    assert two.mine.asked == [AskGeneration(), Claim(K, B, LEASE, WINDOW)], "the store still knows"
    await small.close()


async def test_leases_are_renewed_all_the_time(two: Two) -> None:
    book = ClaimManager(two.mine, lease=0.003, clock=two.clock)
    book.start()
    await book.claim(on(K), A)
    await until(lambda: sum(isinstance(command, Renew) for command in two.mine.asked) >= 3, "three renewals")
    await book.close()


# Forgetting, as `relay forget` does it: another process, straight in the store


async def known_to_both(two: Two, *keys: Fingerprint) -> None:
    """Have them accepted here, and heard of there."""
    await two.book.claim(on(*keys), A)
    await two.book.settle(A, dict.fromkeys(keys, ORIGINAL), [], TERMS)
    assert await two.other.claim(on(*keys), C) == dict.fromkeys(keys, Sent(ORIGINAL, 0))


def is_for(key: Fingerprint) -> Callable[[Entry], bool]:
    return lambda entry: entry.recipient == TERMS[key].recipient


async def test_what_is_forgotten_is_free_at_once_and_nothing_else(two: Two) -> None:
    await known_to_both(two, K, L)
    assert await two.store.forget(is_for(K)) == 1
    assert await two.book.claim(on(K, L, M), B) == {K: Won(), L: Sent(ORIGINAL, 0), M: Won()}
    assert await two.other.claim(on(K, L), C) == {K: Held(LEASE), L: Sent(ORIGINAL, 0)}


async def test_it_is_free_for_whoever_knew_of_it_only(two: Two) -> None:
    await known_to_both(two, K)
    await two.store.forget(is_for(K))
    assert await two.other.claim(on(K), C) == {K: Won()}
    assert await two.book.claim(on(K), B) == {K: Held(LEASE)}


async def test_what_is_held_is_not_forgotten(two: Two) -> None:
    await two.book.claim(on(K), A)
    assert await two.store.forget(lambda _: True) == 0
    assert await two.state(K) == Held(LEASE)
    await two.book.settle(A, {K: ORIGINAL}, [], TERMS)
    assert await two.other.claim(on(K), C) == {K: Sent(ORIGINAL, 0)}, "it was accepted after that"


async def test_of_twins_that_ask_for_what_is_forgotten_one_wins(two: Two) -> None:
    await known_to_both(two, K, L)
    await two.store.forget(is_for(K))
    verdicts = await asyncio.gather(*(two.book.claim(on(K, L), Token(f"t{number}")) for number in range(3)))
    assert sorted(type(verdict[K]).__name__ for verdict in verdicts) == ["Held", "Held", "Won"]
    assert [verdict[L] for verdict in verdicts] == [Sent(ORIGINAL, 0)] * 3


async def test_what_is_told_together_with_a_new_generation_stays_known(two: Two) -> None:
    await known_to_both(two, K, L)
    await two.store.forget(is_for(K))
    await two.book.claim(on(L), B)
    two.mine.asked.clear()
    assert await two.book.claim(on(L), B) == {L: Sent(ORIGINAL, 0)}
    assert two.mine.asked == [AskGeneration()]


async def test_a_claim_broken_off_while_it_looks_again_is_nobodys(two: Two) -> None:
    await known_to_both(two, K)
    await two.store.forget(is_for(K))
    two.mine.asked.clear()
    two.mine.open.clear()
    claiming = asyncio.ensure_future(two.book.claim(on(K, L), B))
    await until(lambda: AskGeneration() in two.mine.asked, "the first question")
    first, two.mine.open = two.mine.open, asyncio.Event()
    first.set()
    await until(lambda: Claim(K, B, LEASE, WINDOW) in two.mine.asked, "the second question")
    claiming.cancel()
    two.mine.open.set()
    await asyncio.wait([claiming])
    assert two.book.held == 0
    await until(lambda: {Release(K, B), Release(L, B)} <= set(two.mine.asked), "both released")
    assert [await two.state(K), await two.state(L)] == [Free(), Free()]


async def test_a_store_that_was_wiped_frees_nothing(two: Two) -> None:
    await two.store.forget(is_for(K))
    await known_to_both(two, K)
    two.mine.store = MemoryStore(two.clock)
    assert await two.book.claim(on(K), B) == {K: Sent(ORIGINAL, 0)}
    two.mine.store = two.store
    assert await two.book.claim(on(K), B) == {K: Sent(ORIGINAL, 0)}, "nor does its name, heard again"


async def test_with_the_store_down_what_is_known_here_counts(two: Two) -> None:
    await known_to_both(two, K)
    await two.store.forget(is_for(K))
    two.mine.up = False
    assert await two.book.claim(on(K), B) == {K: Sent(ORIGINAL, 0)}
    two.mine.up = True
    assert await two.book.claim(on(K), B) == {K: Won()}


async def test_what_a_store_has_forgotten_before_it_was_first_heard_frees_nothing(two: Two) -> None:
    await two.store.forget(is_for(K))
    two.mine.up = False
    await two.book.claim(on(K), A)
    await two.book.settle(A, {K: ORIGINAL}, [], TERMS)
    two.mine.up = True
    assert await two.book.claim(on(K), B) == {K: Sent(ORIGINAL, 0)}
    await two.book.close()
    assert await two.state(K) == Sent(ORIGINAL, 0)


async def test_what_is_forgotten_is_not_written_back(two: Two) -> None:
    await known_to_both(two, K)
    two.mine.up = False
    await two.book.claim(on(L), B)
    await two.book.settle(B, {L: ORIGINAL}, [], TERMS)
    await two.store.forget(is_for(K))
    two.mine.up = True
    two.book.store_returned()
    await two.book.close()
    assert [await two.state(K), await two.state(L)] == [Free(), Free()], "in doubt a duplicate"


async def test_what_is_forgotten_here_and_accepted_elsewhere_is_not_ours_to_write(two: Two) -> None:
    await two.book.claim(on(K, M), A)
    two.mine.up = False
    await two.book.settle(A, {K: ORIGINAL}, [M], TERMS)
    two.mine.up = True
    two.clock.now += LEASE
    await two.store.forget(lambda _: False)
    assert await two.book.claim(on(K), B) == {K: Won()}
    await two.book.settle(B, {}, [K], TERMS)
    await two.other.claim(on(K), C)
    await two.other.settle(C, {K: ORIGINAL}, [], TERMS)
    assert await two.book.claim(on(K), A) == {K: Sent(ORIGINAL, 0)}
    two.mine.asked.clear()
    await two.book.close()
    assert two.mine.asked == []


async def test_to_whom_it_was_sent_survives_writing_back(two: Two) -> None:
    two.mine.up = False
    await two.book.claim(on(K, L), A)
    await two.book.settle(A, {K: ORIGINAL, L: ORIGINAL}, [], TERMS)
    two.mine.up = True
    await two.book.close()
    assert await two.store.forget(is_for(L)) == 1
    assert [await two.state(K), await two.state(L)] == [Sent(ORIGINAL, 0), Free()]
