"""The contract of a store, tested on all stores."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from relay.claims.memory import MemoryStore
from relay.core.claim import (
    AskGeneration,
    Claim,
    Confirm,
    Done,
    Entry,
    Fingerprint,
    Free,
    Generation,
    Held,
    Original,
    Peek,
    Release,
    Renew,
    Sent,
    Token,
    Won,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from parts.store_backends import Backend

    from relay.core.claim import Answer, Command
    from relay.core.store import Store

KEY = Fingerprint("v1:" + "3f" * 32)
OTHER = Fingerprint("v1:" + "a0" * 32)
MINE, THEIRS = Token("mine"), Token("theirs")
ORIGINAL = Original("rec-1", "<1@example.org>", "250 2.0.0 Ok: queued as 4F1 \udce4ö", 1_700_000_000.25)
ANOTHER = Original("rec-2", "", "250 ok", 1_700_000_100.0)
LEASE, WINDOW = 30.0, 600.0
NEARLY = 5.0
"""Seconds by which an age may differ: Redis's clock runs while the test does."""


@pytest_asyncio.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    store = backend.store()
    await store.open()
    yield store
    await store.close()


async def one(store: Store, command: Command) -> Answer:
    (answer,) = await store.execute([command])
    return answer


def claim(token: Token = MINE, *, window: float = WINDOW) -> Claim:
    return Claim(KEY, token, LEASE, window)


async def test_a_free_key_is_won_and_then_held_against_others(store: Store) -> None:
    assert await one(store, Peek(KEY, WINDOW)) == Free()
    assert await one(store, claim()) == Won()
    for question in (claim(THEIRS), Peek(KEY, WINDOW)):
        answer = await one(store, question)
        assert isinstance(answer, Held)
        assert LEASE - NEARLY < answer.remaining <= LEASE


async def test_peek_changes_nothing(store: Store) -> None:
    await one(store, Peek(KEY, WINDOW))
    assert await one(store, claim()) == Won()


async def test_an_own_claim_is_won_again_and_its_lease_begins_anew(store: Store, backend: Backend) -> None:
    await one(store, claim())
    backend.advance(20)
    assert await one(store, claim()) == Won()
    backend.advance(20)
    assert isinstance(await one(store, claim(THEIRS)), Held)


async def test_a_claim_whose_lease_has_ended_is_free(store: Store, backend: Backend) -> None:
    await one(store, claim())
    backend.advance(LEASE + 1)
    assert await one(store, Peek(KEY, WINDOW)) == Free()
    assert await one(store, Renew(KEY, MINE, LEASE)) == Free()
    assert await one(store, claim(THEIRS)) == Won()


async def test_only_the_holder_renews(store: Store, backend: Backend) -> None:
    await one(store, claim())
    backend.advance(20)
    assert isinstance(await one(store, Renew(KEY, THEIRS, LEASE)), Held)
    assert await one(store, Renew(KEY, MINE, LEASE)) == Done()
    backend.advance(20)
    assert isinstance(await one(store, Peek(KEY, WINDOW)), Held)


async def test_only_the_holder_releases(store: Store) -> None:
    await one(store, claim())
    assert await one(store, Release(KEY, THEIRS)) == Done()
    assert isinstance(await one(store, Peek(KEY, WINDOW)), Held)
    assert await one(store, Release(KEY, MINE)) == Done()
    assert await one(store, Peek(KEY, WINDOW)) == Free()
    assert await one(store, Release(KEY, MINE)) == Done()


async def test_a_sent_key_is_answered_with_its_original_and_age(store: Store, backend: Backend) -> None:
    await one(store, claim())
    assert await one(store, Confirm(KEY, ORIGINAL, WINDOW, token=MINE)) == Done()
    backend.advance(100)
    for question in (claim(), claim(THEIRS), Peek(KEY, WINDOW), Renew(KEY, MINE, LEASE)):
        answer = await one(store, question)
        assert isinstance(answer, Sent)
        assert answer.original == ORIGINAL
        assert answer.age == pytest.approx(100, abs=NEARLY)
        assert answer.window == pytest.approx(WINDOW, abs=0.01)


async def test_a_release_does_not_undo_an_acceptance(store: Store) -> None:
    await store.execute([claim(), Confirm(KEY, ORIGINAL, WINDOW), Release(KEY, MINE)])
    assert isinstance(await one(store, Peek(KEY, WINDOW)), Sent)


async def test_the_window_ends_and_does_not_slide(store: Store, backend: Backend) -> None:
    await one(store, Confirm(KEY, ORIGINAL, WINDOW))
    backend.advance(WINDOW / 2)
    await one(store, claim())
    backend.advance(WINDOW / 2 + 1)
    assert await one(store, Peek(KEY, WINDOW)) == Free()
    assert await one(store, claim(THEIRS)) == Won()


async def test_a_late_confirmation_keeps_the_age_of_the_acceptance(store: Store, backend: Backend) -> None:
    await one(store, Confirm(KEY, ORIGINAL, WINDOW, age=400))
    answer = await one(store, Peek(KEY, WINDOW))
    assert isinstance(answer, Sent)
    assert answer.age == pytest.approx(400, abs=NEARLY)
    backend.advance(WINDOW - 400 + 1)
    assert await one(store, Peek(KEY, WINDOW)) == Free()


async def test_a_confirmation_after_its_window_changes_nothing(store: Store) -> None:
    await one(store, claim(THEIRS))
    assert await one(store, Confirm(KEY, ORIGINAL, WINDOW, age=WINDOW)) == Done()
    assert isinstance(await one(store, Peek(KEY, WINDOW)), Held)


async def test_a_confirmation_overrides_anything(store: Store) -> None:
    await one(store, claim(THEIRS))
    await one(store, Confirm(KEY, ORIGINAL, WINDOW))
    await one(store, Confirm(KEY, ANOTHER, WINDOW))
    answer = await one(store, Peek(KEY, WINDOW))
    assert isinstance(answer, Sent)
    assert answer.original == ANOTHER


async def test_a_confirmation_reports_whether_the_claim_was_lost(store: Store, backend: Backend) -> None:
    mine = Confirm(KEY, ORIGINAL, WINDOW, token=MINE)
    theirs = Confirm(KEY, ANOTHER, WINDOW, token=THEIRS)
    await one(store, claim())
    assert await one(store, mine) == Done()
    assert await one(store, mine) == Done(), "it may be repeated"
    assert await one(store, theirs) == Done(claim_lost=True), "another message was sent"
    backend.advance(WINDOW + 1)
    assert await one(store, mine) == Done(), "the window of the other has ended"
    backend.advance(WINDOW + 1)
    await one(store, claim())
    assert await one(store, theirs) == Done(claim_lost=True), "another message was in delivery"
    backend.advance(WINDOW + 1)
    await one(store, claim())
    backend.advance(LEASE + 1)
    assert await one(store, theirs) == Done(), "its lease had ended"


async def test_a_key_is_free_for_a_window_shorter_than_its_age(store: Store, backend: Backend) -> None:
    await one(store, Confirm(KEY, ORIGINAL, WINDOW))
    backend.advance(100)
    assert await one(store, Peek(KEY, 50)) == Free()
    assert isinstance(await one(store, claim(window=200)), Sent)
    assert await one(store, claim(window=50)) == Won()
    assert isinstance(await one(store, claim(THEIRS)), Held)


async def test_a_batch_is_carried_out_in_order(store: Store) -> None:
    answers = await store.execute(
        [
            claim(),
            claim(THEIRS),
            Release(KEY, MINE),
            claim(THEIRS),
            Claim(OTHER, MINE, LEASE, WINDOW),
            Confirm(KEY, ORIGINAL, WINDOW),
            Peek(KEY, WINDOW),
        ]
    )
    kinds = [type(answer) for answer in answers]
    assert kinds == [Won, Held, Done, Won, Won, Done, Sent]


async def test_a_thousand_keys_in_one_batch(store: Store) -> None:
    keys = [Fingerprint(f"v1:{number:064x}") for number in range(1_000)]
    assert await store.execute([Claim(key, MINE, LEASE, WINDOW) for key in keys]) == [Won()] * 1_000
    await store.execute([Confirm(key, ORIGINAL, WINDOW) for key in keys[::2]])
    answers = await store.execute([Claim(key, THEIRS, LEASE, WINDOW) for key in keys])
    assert {type(answer) for answer in answers[::2]} == {Sent}
    assert {type(answer) for answer in answers[1::2]} == {Held}


async def test_an_empty_batch(store: Store) -> None:
    assert await store.execute([]) == []


async def test_two_stores_on_one_server_share_their_keys(store: Store, backend: Backend) -> None:
    second = backend.store()
    await second.open()
    try:
        await one(store, claim())
        assert isinstance(await one(second, claim(THEIRS)), Held)
        await one(store, Confirm(KEY, ORIGINAL, WINDOW))
        assert isinstance(await one(second, claim(THEIRS)), Sent)
        identity = await store.identity()
        assert len(identity) == 16
        assert await second.identity() == await store.identity() == identity
    finally:
        await second.close()


async def test_two_servers_have_two_identities(store: Store, backend: Backend) -> None:
    first = await store.identity()
    backend.clear()
    second = backend.store()
    await second.open()
    try:
        assert await second.identity() != first
    finally:
        await second.close()


async def test_a_store_can_be_opened_and_closed_twice(backend: Backend) -> None:
    store = backend.store()
    await store.open()
    await store.open()
    assert await one(store, claim()) == Won()
    await store.close()
    await store.close()


# Forgetting


def sent(key: Fingerprint, recipient: str = "") -> Confirm:
    return Confirm(key, ORIGINAL, WINDOW, recipient=recipient)


async def test_forget_frees_what_matches_and_nothing_else(store: Store, backend: Backend) -> None:
    held = Fingerprint("v1:held")
    await store.execute([sent(KEY, "one"), sent(OTHER, 'other \udce4"}'), Claim(held, MINE, LEASE, WINDOW)])
    backend.advance(10)
    seen: list[Entry] = []

    def is_for_one(entry: Entry) -> bool:
        seen.append(entry)
        return entry.recipient == "one"

    listed = [entry async for entry in store.sent()]
    assert await one(store, AskGeneration()) == Generation(""), "reading begins no generation"
    assert await store.forget(is_for_one) == 1
    # In any order: Redis's SCAN promises none, and it may differ each time.
    for found in (listed, seen):
        assert {(entry.key, entry.original, entry.recipient) for entry in found} == {
            (KEY, ORIGINAL, "one"),
            (OTHER, ORIGINAL, 'other \udce4"}'),
        }
    assert [entry.age for entry in seen] == [pytest.approx(10, abs=NEARLY)] * len(seen)
    freed, other, still_held = await store.execute([Peek(KEY, WINDOW), Peek(OTHER, WINDOW), Peek(held, WINDOW)])
    assert freed == Free()
    assert isinstance(other, Sent)
    assert isinstance(still_held, Held)
    assert await store.forget(is_for_one) == 0


async def test_an_acceptance_past_its_window_is_not_counted(store: Store, backend: Backend) -> None:
    await one(store, sent(KEY))
    backend.advance(WINDOW + 1)
    assert await store.forget(lambda _: True) == 0


async def test_forget_frees_thousands_that_match(store: Store) -> None:
    keys = [Fingerprint(f"v1:{number:064x}") for number in range(2_500)]
    await store.execute([sent(key, f"{number % 5}") for number, key in enumerate(keys)])
    assert {entry.key async for entry in store.sent()} == set(keys)
    assert await store.forget(lambda entry: entry.recipient != "3") == 2_000
    assert {entry.key async for entry in store.sent()} == set(keys[3::5])
    answers = await store.execute([Peek(key, WINDOW) for key in keys])
    assert [type(answer) for answer in answers] == [Free, Free, Free, Sent, Free] * 500
    assert await store.forget(lambda _: True) == 500


async def test_forget_begins_a_generation_that_every_store_reports(store: Store, backend: Backend) -> None:
    second = backend.store()
    await second.open()
    names = [""]
    assert await one(store, AskGeneration()) == Generation("")
    for _ in range(3):
        await second.forget(lambda _: False)
        here, there = await one(store, AskGeneration()), await one(second, AskGeneration())
        assert isinstance(here, Generation)
        assert here == there
        assert here.name not in names
        names.append(here.name)
    identity = await store.identity()
    assert identity not in names
    await second.close()


async def test_an_error_of_the_matching_function_is_raised_and_frees_nothing(store: Store) -> None:
    await store.execute([sent(KEY), sent(OTHER)])
    with pytest.raises(ZeroDivisionError):
        await store.forget(lambda _: bool(1 // 0))
    answers = await store.execute([Peek(KEY, WINDOW), Peek(OTHER, WINDOW)])
    assert [type(answer) for answer in answers] == [Sent, Sent]


async def test_forget_begins_one_generation_before_and_another_after(store: Store, backend: Backend) -> None:
    """The first stops relays from writing back what is forgotten, the second voids what they have read meanwhile."""
    await store.execute([sent(KEY), sent(OTHER)])
    before = await one(store, AskGeneration())
    matching, asked = threading.Event(), threading.Event()

    def matches(_: Entry) -> bool:
        matching.set()
        return asked.wait(20)

    forgetting = asyncio.create_task(asyncio.to_thread(asyncio.run, forget_as_operator(backend, matches)))
    assert await asyncio.to_thread(matching.wait, 20)
    meanwhile = await one(store, AskGeneration())
    asked.set()
    assert await forgetting == 2
    assert meanwhile != before
    if not isinstance(store, MemoryStore):  # no command can come between
        assert await one(store, AskGeneration()) not in (before, meanwhile)


async def forget_as_operator(backend: Backend, matches: Callable[[Entry], bool]) -> int:
    """Forgets as another process would."""
    operator = backend.store()
    try:
        return await operator.forget(matches)
    finally:
        await operator.close()
