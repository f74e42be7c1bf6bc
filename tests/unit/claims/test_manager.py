"""The claims of one process, with a store in memory and a clock that the test moves."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
from typing import TYPE_CHECKING

import pytest
from parts.logged import events
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
from relay.events.limit import LOG_EVERY
from relay.runtime.tasks import Tasks

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


class FakeClient:
    """A store client. A test can take the store down and delay its answers."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.up = True
        self.data_losses = 0
        self.down_keys: set[Fingerprint] = set()
        """Keys of a Cluster node that is down."""
        self.asked: list[Command] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.fault: Exception | None = None
        """What the next renewal raises."""

    async def ask(self, commands: Sequence[Command]) -> list[Answer]:
        self.asked += commands
        if self.fault and isinstance(commands[0], Renew):
            fault, self.fault = self.fault, None
            raise fault
        if not self.up:
            return [Unknown("down")] * len(commands)
        served = [
            getattr(command, "sequence", getattr(command, "key", None)) not in self.down_keys for command in commands
        ]
        answers = iter(await self.store.execute([*itertools.compress(commands, served)]))
        await self.may_answer.wait()
        return [next(answers) if is_served else Unknown("node down") for is_served in served]


class TwoProcesses:
    """Two processes with a manager each, on one store and one clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(self.clock)
        self.client, self.other_client = FakeClient(self.store), FakeClient(self.store)
        self.lost = 0
        self.manager = ClaimManager(
            self.client, lease=LEASE, clock=self.clock, poll_every=POLL_EVERY, on_lost=self.count_lost
        )
        self.other_manager = ClaimManager(self.other_client, lease=LEASE, clock=self.clock, poll_every=POLL_EVERY)

    def count_lost(self, count: int) -> None:
        self.lost += count

    async def state(self, key: Fingerprint) -> Answer:
        [answer] = await self.store.execute([Peek(key, WINDOW)])
        return answer


@pytest.fixture
async def two() -> AsyncIterator[TwoProcesses]:
    both = TwoProcesses()
    yield both
    both.client.may_answer.set()
    await both.manager.close()
    await both.other_manager.close()


async def start_waits(*waits: object) -> list[asyncio.Task[bool]]:
    """Starts the waits and returns when all are under way."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]  # type: ignore[call-overload]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    return tasks


async def result_of(task: asyncio.Task[bool]) -> bool:
    async with asyncio.timeout(5):
        return await task


async def test_a_claim_is_won_by_one_transaction_and_sent_after_its_settlement(two: TwoProcesses) -> None:
    assert await two.manager.claim(on(K, L), A) == {K: Won(), L: Won()}
    assert two.manager.held == 2
    assert await two.manager.claim(on(L, K, M), B) == {L: Held(LEASE), K: Held(LEASE), M: Won()}
    assert await two.other_manager.claim(on(K), C) == {K: Held(LEASE)}
    await two.manager.settle(A, {K: ORIGINAL}, [L], TERMS)
    two.clock.now += 34
    assert await two.manager.claim(on(K, L), B) == {K: Sent(ORIGINAL, 34), L: Won()}
    assert await two.state(K) == Sent(ORIGINAL, 34)
    assert two.manager.held == 2


async def test_an_acceptance_of_this_process_is_not_asked_of_the_store(two: TwoProcesses) -> None:
    await two.manager.claim(on(K), A)
    await two.manager.settle(A, {K: ORIGINAL}, [], TERMS)
    two.client.asked.clear()
    assert await two.manager.claim(on(K), B) == {K: Sent(ORIGINAL, 0)}
    assert two.client.asked == [AskGeneration()], "only whether anything was forgotten"
    two.clock.now += WINDOW
    assert await two.manager.claim(on(K), B) == {K: Won()}


async def test_an_own_claim_is_won_again(two: TwoProcesses) -> None:
    await two.manager.claim(on(K), A)
    assert await two.manager.claim(on(K), A) == {K: Won()}


async def test_the_shorter_window_counts(two: TwoProcesses) -> None:
    await two.manager.claim(on(K), A)
    await two.manager.settle(A, {K: ORIGINAL}, [], TERMS)
    two.clock.now += 10
    assert await two.manager.claim(on(K, window=9.0), B) == {K: Won()}


async def test_each_key_has_its_window(two: TwoProcesses) -> None:
    terms = {**on(K), **on(L, window=9.0)}
    await two.manager.claim(terms, A)
    await two.manager.settle(A, {K: ORIGINAL, L: ORIGINAL}, [], terms)
    two.clock.now += 10
    for manager, token in ((two.manager, B), (two.other_manager, C)):
        assert await manager.claim(terms, token) == {K: Sent(ORIGINAL, 10), L: Won()}
        await manager.settle(token, {}, [L], terms)


async def test_the_window_of_an_acceptance_counts_in_other_processes(two: TwoProcesses) -> None:
    await two.other_manager.claim(on(K, window=20.0), C)
    await two.other_manager.settle(C, {K: ORIGINAL}, [], on(K, window=20.0))
    two.clock.now += 10
    assert await two.manager.claim(on(K), A) == {K: Sent(ORIGINAL, 10)}
    two.clock.now += 10
    assert await two.manager.claim(on(K), A) == {K: Won()}


@pytest.mark.parametrize("accepted", [True, False])
async def test_the_end_of_a_claim_wakes_all_waiters_and_one_takes_over(two: TwoProcesses, accepted: bool) -> None:
    await two.manager.claim(on(K), A)
    tasks = await start_waits(*(two.manager.wait_for_change([K], 60) for _ in range(3)))
    await two.manager.settle(A, {K: ORIGINAL} if accepted else {}, [] if accepted else [K], TERMS)
    assert [await result_of(task) for task in tasks] == [True] * 3
    verdicts = [(await two.manager.claim(on(K), Token(f"t{number}")))[K] for number in range(3)]
    assert verdicts == ([Sent(ORIGINAL, 0)] * 3 if accepted else [Won(), Held(LEASE), Held(LEASE)])


async def test_a_wait_for_several_claims_ends_with_the_first_change(two: TwoProcesses) -> None:
    await two.manager.claim(on(K, L), A)
    [task] = await start_waits(two.manager.wait_for_change([K, L], 60))
    await two.manager.settle(A, {}, [L], TERMS)
    assert await result_of(task)
    assert await two.manager.wait_for_change([L], 60), "a free key needs no wait"


async def test_a_wait_ends_at_its_timeout_and_at_the_end_of_the_service(two: TwoProcesses) -> None:
    await two.manager.claim(on(K), A)
    assert not await two.manager.wait_for_change([K], 0.001)
    [task] = await start_waits(two.manager.wait_for_change([K], 60))
    two.manager.end_waits()
    assert not await result_of(task)
    assert not await two.manager.wait_for_change([K], 60)


@pytest.mark.parametrize(
    ("end", "verdict"),
    [("accepted", Sent(ORIGINAL, 0)), ("released", Won()), ("lease", Won())],
)
async def test_polling_finds_the_end_of_another_processs_claim(two: TwoProcesses, end: str, verdict: Answer) -> None:
    await two.other_manager.claim(on(K), C)
    assert await two.manager.claim(on(K), A) == {K: Held(LEASE)}
    assert two.manager.held == 0
    tasks = await start_waits(two.manager.wait_for_change([K], 60), two.manager.wait_for_change([K], 60))
    if end == "lease":
        two.clock.now += LEASE
    else:
        await two.other_manager.settle(
            C, {K: ORIGINAL} if end == "accepted" else {}, [K] if end == "released" else [], TERMS
        )
    assert [await result_of(task) for task in tasks] == [True, True]
    assert await two.manager.claim(on(K), A) == {K: verdict}


async def test_while_the_store_is_down_another_processs_lease_still_counts(two: TwoProcesses) -> None:
    await two.other_manager.claim(on(K), C)
    await two.manager.claim(on(K), A)
    two.client.up = False
    [task] = await start_waits(two.manager.wait_for_change([K], 60))
    asked = len(two.client.asked)
    await until(lambda: len(two.client.asked) >= asked + 3, "three polls")
    assert not task.done()
    two.clock.now += LEASE
    assert await result_of(task)
    assert await two.manager.claim(on(K), A) == {K: Won()}


async def test_twins_wait_while_the_store_is_being_asked(two: TwoProcesses) -> None:
    two.client.may_answer.clear()
    first = asyncio.ensure_future(two.manager.claim(on(K), A))
    await asyncio.sleep(0)
    assert await two.manager.claim(on(K), B) == {K: Held(LEASE)}
    [task] = await start_waits(two.manager.wait_for_change([K], 60))
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    assert await result_of(task), "an abandoned claim is free"
    await until(lambda: Release(K, A) in two.client.asked, "a release in the background")
    assert await two.state(K) == Free(), "although the store had granted it"


async def test_closing_waits_for_releases_in_the_background(two: TwoProcesses) -> None:
    two.client.may_answer.clear()
    claiming = asyncio.ensure_future(two.manager.claim(on(K), A))
    await asyncio.sleep(0)
    claiming.cancel()
    await asyncio.wait([claiming])
    two.client.may_answer.set()
    await two.manager.close()
    assert await two.state(K) == Free()


async def test_a_renewed_claim_stays_held(two: TwoProcesses) -> None:
    await two.manager.claim(on(K), A)
    for _ in range(3):
        two.clock.now += LEASE - 1
        await two.manager._lease_renewal.renew()
    assert await two.other_manager.claim(on(K), C) == {K: Held(LEASE)}
    assert await two.manager.find_lost_claims(on(K), A) == {}


async def test_renewal_claims_again_what_the_store_lost(two: TwoProcesses) -> None:
    await two.manager.claim(on(K), A)
    await two.store.execute([Release(K, A)])
    await two.manager._lease_renewal.renew()
    assert await two.other_manager.claim(on(K), C) == {K: Held(LEASE)}


async def test_renewal_does_not_claim_again_what_is_released_meanwhile(two: TwoProcesses) -> None:
    await two.manager.claim(on(K), A)
    await two.store.execute([Release(K, A)])
    two.client.may_answer.clear()
    renewing = asyncio.ensure_future(two.manager._lease_renewal.renew())
    settling = asyncio.ensure_future(two.manager.settle(A, {}, [K], TERMS))
    await asyncio.sleep(0)
    two.client.may_answer.set()
    await asyncio.gather(renewing, settling)
    assert await two.state(K) == Free()


async def test_an_expired_lease_is_claimed_again_before_content_is_sent(two: TwoProcesses) -> None:
    await two.manager.claim(on(K, L, M), A)
    two.clock.now += LEASE
    await two.other_manager.claim(on(K, L), C)
    await two.other_manager.settle(C, {L: ORIGINAL}, [], TERMS)
    assert await two.manager.find_lost_claims(on(K, L, M), A) == {K: Held(LEASE), L: Sent(ORIGINAL, 0)}
    # A claim that we have lost is not ours to free.
    await two.manager.settle(A, {M: ORIGINAL}, [K, L], TERMS)
    assert await two.state(K) == Held(LEASE)
    assert await two.manager.claim(on(K, L, M), B) == {K: Held(LEASE), L: Sent(ORIGINAL, 0), M: Sent(ORIGINAL, 0)}
    assert two.lost == 2


@pytest.mark.parametrize("theirs", ["held", "sent", "released"])
async def test_a_claim_that_another_process_took_is_counted_once(
    two: TwoProcesses, theirs: str, caplog: pytest.LogCaptureFixture
) -> None:
    await two.manager.claim(on(K, L), A)
    two.clock.now += LEASE
    await two.other_manager.claim(on(K), C)
    await two.other_manager.settle(
        C, {K: ORIGINAL} if theirs == "sent" else {}, [K] if theirs == "released" else [], TERMS
    )
    for _ in range(3):
        await two.manager._lease_renewal.renew()
    assert await two.manager.claim(on(K), B) == {K: Held(LEASE if theirs == "released" else 0)}, "its owner is alive"
    await two.manager.settle(A, {K: ORIGINAL}, [L], TERMS)
    lost = theirs != "released"
    assert two.lost == lost
    logged = [fields["claims"] for _, text, fields in events(caplog) if text.startswith("another process took claims")]
    assert logged == [1] * lost


@pytest.mark.parametrize("theirs", ["held", "sent", "released"])
async def test_a_claim_taken_while_the_process_was_stopped_is_counted(
    two: TwoProcesses, theirs: str, caplog: pytest.LogCaptureFixture
) -> None:
    """When the process goes on, the upstream's reply arrives before a lease is renewed."""
    await two.manager.claim(on(K, L), A)
    two.clock.now += LEASE
    await two.other_manager.claim(on(K), C)
    another = dataclasses.replace(ORIGINAL, id="rec-2")
    await two.other_manager.settle(
        C, {K: another} if theirs == "sent" else {}, [K] if theirs == "released" else [], TERMS
    )
    await two.manager.settle(A, {K: ORIGINAL, L: ORIGINAL}, [], TERMS)
    lost = theirs != "released"
    assert two.lost == lost
    event = ("WARNING", "another process took claims while we delivered", {"claims": 1, "recipients": 1})
    assert events(caplog) == [event] * lost
    assert await two.state(K) == await two.state(L) == Sent(ORIGINAL, 0), "an acceptance is recorded nevertheless"


async def test_a_lost_claim_that_renewal_and_find_lost_claims_both_report_is_counted_once(two: TwoProcesses) -> None:
    await two.manager.claim(on(K), A)
    two.clock.now += LEASE
    await two.other_manager.claim(on(K), C)
    await two.manager._lease_renewal.renew()
    assert await two.manager.find_lost_claims(on(K), A) == {K: Held(LEASE)}
    await two.manager.settle(A, {}, [K], TERMS)
    assert two.lost == 1


async def test_own_claims_are_claimed_again_as_soon_as_the_store_returns(two: TwoProcesses) -> None:
    await two.manager.claim(on(K), A)
    await two.store.execute([Release(K, A)])
    two.manager.store_returned()
    await until(lambda: Claim(K, A, LEASE, WINDOW) in two.client.asked[2:], "a second Claim")
    assert await two.other_manager.claim(on(K), C) == {K: Held(LEASE)}


async def test_acceptances_are_written_as_soon_as_the_store_returns(two: TwoProcesses) -> None:
    await two.manager.claim(on(K, L), A)
    await two.manager.settle(A, {K: ORIGINAL}, [], TERMS)
    two.client.up = False
    await two.manager.settle(A, {L: ORIGINAL}, [], TERMS)
    await asyncio.sleep(0)
    two.client.store = two.store = MemoryStore(two.clock)
    two.client.up = True
    two.client.data_losses += 1
    two.manager.store_returned()
    for _ in range(100):  # No time passes.
        await asyncio.sleep(0)
    assert await both_are_sent(two)


async def test_acceptances_of_a_node_that_is_down_do_not_hold_up_those_of_others(two: TwoProcesses) -> None:
    theirs = on(*(Fingerprint(f"v1:theirs-{number}") for number in range(WRITE_BACK_BATCH + 1)))
    everything = theirs | on(K)
    await two.manager.claim(everything, A)
    two.client.up = False
    await two.manager.settle(A, dict.fromkeys(everything, ORIGINAL), [], everything)
    two.client.down_keys = set(theirs)
    two.client.up = True
    two.client.asked.clear()
    two.manager.store_returned()
    for _ in range(100):
        await asyncio.sleep(0)
    assert await is_sent(two, K), "the acceptance of the other node"
    rounds = sum(isinstance(command, Confirm) for command in two.client.asked) / len(everything)
    assert rounds < 4, "after an attempt in vain there is a pause"
    two.client.down_keys = set()
    await two.manager.close()
    states = await two.store.execute([Peek(key, WINDOW) for key in theirs])
    assert states == [Sent(ORIGINAL, 0)] * len(theirs)


async def is_sent(two: TwoProcesses, key: Fingerprint) -> bool:
    return await two.state(key) == Sent(ORIGINAL, 0)


async def both_are_sent(two: TwoProcesses) -> bool:
    return [await two.state(K), await two.state(L)] == [Sent(ORIGINAL, 0)] * 2


async def test_an_unclaimed_key_is_claimed_before_content_is_sent(two: TwoProcesses) -> None:
    await two.manager.claim(on(K), B)
    assert await two.manager.find_lost_claims(on(K, L), A) == {K: Held(LEASE)}
    assert await two.other_manager.claim(on(K, L), C) == {K: Held(LEASE), L: Held(LEASE)}
    assert await two.manager.find_lost_claims(on(K), B) == {}, "its owner is not disturbed"


async def test_while_leases_run_nothing_is_asked_before_content_is_sent(two: TwoProcesses) -> None:
    await two.manager.claim(on(K), A)
    two.client.asked.clear()
    assert await two.manager.find_lost_claims(on(K), A) == {}
    assert two.client.asked == []


async def test_while_the_store_is_down_the_process_decides_alone_and_writes_back_later(two: TwoProcesses) -> None:
    two.client.up = False
    assert await two.manager.claim(on(K, L), A) == {K: Won(), L: Won()}
    assert await two.manager.claim(on(K), B) == {K: Held(LEASE)}
    await two.manager.settle(A, {K: ORIGINAL}, [L], TERMS)
    assert await two.manager.claim(on(K), B) == {K: Sent(ORIGINAL, 0)}
    two.clock.now += 10
    two.client.up = True
    await two.manager.close()
    assert await two.state(K) == Sent(ORIGINAL, 10), "with its true age"
    assert await two.state(L) == Free()


async def test_a_store_that_returns_empty_gets_the_acceptances_of_this_process(two: TwoProcesses) -> None:
    await two.manager.claim(on(K, L), A)
    await two.manager.settle(A, {K: ORIGINAL, L: ORIGINAL}, [], TERMS)
    await two.other_manager.claim(on(M), C)
    await two.other_manager.settle(C, {M: ORIGINAL}, [], TERMS)
    assert await two.manager.claim(on(M), A) == {M: Sent(ORIGINAL, 0)}
    two.client.asked.clear()
    two.client.data_losses += 1
    two.manager.store_returned()
    await two.manager.close()
    assert {command.key for command in two.client.asked if isinstance(command, Confirm)} == {K, L}


async def test_a_store_that_was_only_away_gets_what_it_has_not_confirmed(two: TwoProcesses) -> None:
    await two.manager.claim(on(K, L), A)
    await two.manager.settle(A, {K: ORIGINAL}, [], TERMS)
    two.client.up = False
    await two.manager.settle(A, {L: ORIGINAL}, [], TERMS)
    two.client.up = True
    for _ in range(2):
        two.client.asked.clear()
        two.manager.store_returned()
        await until(lambda: not two.manager._table.unwritten, "the acceptance written")
        assert {command.key for command in two.client.asked if isinstance(command, Confirm)} <= {L}
    assert await both_are_sent(two)


async def test_an_acceptance_past_its_window_is_not_written_back(two: TwoProcesses) -> None:
    await two.manager.claim(on(K), A)
    two.client.up = False
    await two.manager.settle(A, {K: ORIGINAL}, [], TERMS)
    two.clock.now += WINDOW
    two.client.up = True
    two.client.asked.clear()
    await two.manager.close()
    assert two.client.asked == [AskGeneration()]


async def test_the_table_is_bounded_and_drops_the_oldest_acceptance_first(two: TwoProcesses) -> None:
    small = ClaimManager(two.client, lease=LEASE, clock=two.clock, remembered=2)
    for key in (K, L, M):
        await small.claim(on(key), A)
        await small.settle(A, {key: ORIGINAL}, [], TERMS)
    two.client.asked.clear()
    assert await small.claim(on(K, L, M), B) == dict.fromkeys([K, L, M], Sent(ORIGINAL, 0))
    assert two.client.asked == [AskGeneration(), Claim(K, B, LEASE, WINDOW)], "the store still has it"
    await small.close()


async def test_leases_are_renewed_in_the_background(two: TwoProcesses) -> None:
    manager = ClaimManager(two.client, lease=0.003, clock=two.clock)
    manager.start()
    await manager.claim(on(K), A)
    await until(lambda: sum(isinstance(command, Renew) for command in two.client.asked) >= 3, "three renewals")
    await manager.close()


async def test_a_failed_renewal_is_logged_once_and_renewing_goes_on(
    two: TwoProcesses, caplog: pytest.LogCaptureFixture
) -> None:
    paused = asyncio.Event()

    async def no_pause(_: float) -> None:
        paused.set()

    two.client.fault = RuntimeError("a bug")
    manager = ClaimManager(two.client, lease=0.003, clock=two.clock)
    manager._lease_renewal._tasks = Tasks(sleep=no_pause)
    await manager.claim(on(K), A)
    manager.start()
    await paused.wait()
    two.client.asked.clear()
    await until(lambda: sum(isinstance(command, Renew) for command in two.client.asked) >= 3, "three renewals")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    await manager.close()


# Forgetting, as `relay forget` does it: another process changes the store


async def accepted_by_both(two: TwoProcesses, *keys: Fingerprint) -> None:
    """Has the keys accepted by one process and reported as sent to the other."""
    await two.manager.claim(on(*keys), A)
    await two.manager.settle(A, dict.fromkeys(keys, ORIGINAL), [], TERMS)
    assert await two.other_manager.claim(on(*keys), C) == dict.fromkeys(keys, Sent(ORIGINAL, 0))


def is_for(key: Fingerprint) -> Callable[[Entry], bool]:
    return lambda entry: entry.recipient == TERMS[key].recipient


async def test_a_forgotten_acceptance_is_free_at_once_and_no_other(two: TwoProcesses) -> None:
    await accepted_by_both(two, K, L)
    assert await two.store.forget(is_for(K)) == 1
    assert await two.manager.claim(on(K, L, M), B) == {K: Won(), L: Sent(ORIGINAL, 0), M: Won()}
    assert await two.other_manager.claim(on(K, L), C) == {K: Held(LEASE), L: Sent(ORIGINAL, 0)}


async def test_a_forgotten_acceptance_is_free_for_the_process_that_did_not_deliver_it(two: TwoProcesses) -> None:
    await accepted_by_both(two, K)
    await two.store.forget(is_for(K))
    assert await two.other_manager.claim(on(K), C) == {K: Won()}
    assert await two.manager.claim(on(K), B) == {K: Held(LEASE)}


async def test_a_held_claim_is_not_forgotten(two: TwoProcesses) -> None:
    await two.manager.claim(on(K), A)
    assert await two.store.forget(lambda _: True) == 0
    assert await two.state(K) == Held(LEASE)
    await two.manager.settle(A, {K: ORIGINAL}, [], TERMS)
    assert await two.other_manager.claim(on(K), C) == {K: Sent(ORIGINAL, 0)}, "it was accepted after that"


async def test_one_of_several_twins_wins_a_forgotten_key(two: TwoProcesses) -> None:
    await accepted_by_both(two, K, L)
    await two.store.forget(is_for(K))
    verdicts = await asyncio.gather(*(two.manager.claim(on(K, L), Token(f"t{number}")) for number in range(3)))
    assert sorted(type(verdict[K]).__name__ for verdict in verdicts) == ["Held", "Held", "Won"]
    assert [verdict[L] for verdict in verdicts] == [Sent(ORIGINAL, 0)] * 3


async def test_an_acceptance_reported_with_a_new_generation_is_kept(two: TwoProcesses) -> None:
    await accepted_by_both(two, K, L)
    await two.store.forget(is_for(K))
    await two.manager.claim(on(L), B)
    two.client.asked.clear()
    assert await two.manager.claim(on(L), B) == {L: Sent(ORIGINAL, 0)}
    assert two.client.asked == [AskGeneration()]


async def test_a_claim_cancelled_during_its_second_question_is_released(two: TwoProcesses) -> None:
    await accepted_by_both(two, K)
    await two.store.forget(is_for(K))
    two.client.asked.clear()
    two.client.may_answer.clear()
    claiming = asyncio.ensure_future(two.manager.claim(on(K, L), B))
    await until(lambda: AskGeneration() in two.client.asked, "the first question")
    first, two.client.may_answer = two.client.may_answer, asyncio.Event()
    first.set()
    await until(lambda: Claim(K, B, LEASE, WINDOW) in two.client.asked, "the second question")
    claiming.cancel()
    two.client.may_answer.set()
    await asyncio.wait([claiming])
    assert two.manager.held == 0
    await until(lambda: {Release(K, B), Release(L, B)} <= set(two.client.asked), "both released")
    assert [await two.state(K), await two.state(L)] == [Free(), Free()]


async def test_a_wiped_store_frees_nothing(two: TwoProcesses) -> None:
    await two.store.forget(is_for(K))
    await accepted_by_both(two, K)
    two.client.store = MemoryStore(two.clock)
    assert await two.manager.claim(on(K), B) == {K: Sent(ORIGINAL, 0)}
    two.client.store = two.store
    assert await two.manager.claim(on(K), B) == {K: Sent(ORIGINAL, 0)}, "nor does the return of the old generation"


async def test_while_the_store_is_down_the_local_table_counts(two: TwoProcesses) -> None:
    await accepted_by_both(two, K)
    await two.store.forget(is_for(K))
    two.client.up = False
    assert await two.manager.claim(on(K), B) == {K: Sent(ORIGINAL, 0)}
    two.client.up = True
    assert await two.manager.claim(on(K), B) == {K: Won()}


async def test_a_generation_that_began_before_the_first_question_frees_nothing(two: TwoProcesses) -> None:
    await two.store.forget(is_for(K))
    two.client.up = False
    await two.manager.claim(on(K), A)
    await two.manager.settle(A, {K: ORIGINAL}, [], TERMS)
    two.client.up = True
    assert await two.manager.claim(on(K), B) == {K: Sent(ORIGINAL, 0)}
    await two.manager.close()
    assert await two.state(K) == Sent(ORIGINAL, 0)


async def test_a_forgotten_acceptance_is_not_written_back(two: TwoProcesses) -> None:
    await accepted_by_both(two, K)
    two.client.up = False
    await two.manager.claim(on(L), B)
    await two.manager.settle(B, {L: ORIGINAL}, [], TERMS)
    await two.store.forget(is_for(K))
    two.client.up = True
    two.manager.store_returned()
    await two.manager.close()
    assert [await two.state(K), await two.state(L)] == [Free(), Free()], "in doubt a duplicate"


async def test_an_acceptance_forgotten_here_and_repeated_elsewhere_is_not_written_back(two: TwoProcesses) -> None:
    await two.manager.claim(on(K, M), A)
    two.client.up = False
    await two.manager.settle(A, {K: ORIGINAL}, [M], TERMS)
    two.client.up = True
    two.clock.now += LEASE
    await two.store.forget(lambda _: False)
    assert await two.manager.claim(on(K), B) == {K: Won()}
    await two.manager.settle(B, {}, [K], TERMS)
    await two.other_manager.claim(on(K), C)
    await two.other_manager.settle(C, {K: ORIGINAL}, [], TERMS)
    assert await two.manager.claim(on(K), A) == {K: Sent(ORIGINAL, 0)}
    two.client.asked.clear()
    await two.manager.close()
    assert two.client.asked == []


async def test_write_back_keeps_the_recipient(two: TwoProcesses) -> None:
    two.client.up = False
    await two.manager.claim(on(K, L), A)
    await two.manager.settle(A, {K: ORIGINAL, L: ORIGINAL}, [], TERMS)
    two.client.up = True
    await two.manager.close()
    assert await two.store.forget(is_for(L)) == 1
    assert [await two.state(K), await two.state(L)] == [Sent(ORIGINAL, 0), Free()]


async def test_what_a_full_store_does_not_take_is_forwarded_counted_and_not_repeated(
    two: TwoProcesses, caplog: pytest.LogCaptureFixture
) -> None:
    beyond: list[tuple[str, int]] = []
    two.client.store = MemoryStore(two.clock, most_claims=1)
    manager = ClaimManager(
        two.client, lease=LEASE, clock=two.clock, on_beyond_bound=lambda bound, count: beyond.append((bound, count))
    )
    assert await manager.claim(on(K, L, M), A) == {K: Won(), L: Won(), M: Won()}
    assert beyond == [("store", 2)]
    await manager.settle(A, dict.fromkeys((K, L, M), ORIGINAL), [], TERMS)
    assert manager._table.unwritten == {}
    assert await manager.claim(on(L), B) == {L: Sent(ORIGINAL, 0)}, "this process remembers it"
    await manager.claim(on(Fingerprint("v1:x")), B)
    two.clock.now += LOG_EVERY
    await manager.claim(on(Fingerprint("v1:y")), B)
    assert [fields["claims"] for *_, fields in events(caplog)] == [2, 2], "one line a minute counts all of it"
    await manager.close()


async def test_acceptances_dropped_before_the_store_had_them_are_counted(two: TwoProcesses) -> None:
    beyond: list[tuple[str, int]] = []
    manager = ClaimManager(
        two.client,
        lease=LEASE,
        clock=two.clock,
        remembered=1,
        on_beyond_bound=lambda bound, count: beyond.append((bound, count)),
    )
    two.client.up = False
    await manager.settle(A, dict.fromkeys((K, L, M), ORIGINAL), [], TERMS)
    assert beyond == [("memory", 2)]
    assert list(manager._table.unwritten) == [M]
    await manager.close()
