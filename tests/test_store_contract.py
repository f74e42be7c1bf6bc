"""What every store promises, on all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from parts import store_places

from relay.core.claim import (
    Claim,
    Confirm,
    Done,
    Fingerprint,
    Free,
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
    from collections.abc import AsyncIterator, Iterator

    from parts.store_places import Place

    from relay.core.claim import Answer, Command, Store

KEY = Fingerprint("v1:" + "3f" * 32)
OTHER = Fingerprint("v1:" + "a0" * 32)
MINE, THEIRS = Token("mine"), Token("theirs")
ORIGINAL = Original("rec-1", "<1@example.org>", "250 2.0.0 Ok: queued as 4F1 \udce4ö", 1_700_000_000.25)
ANOTHER = Original("rec-2", "", "250 ok", 1_700_000_100.0)
LEASE, WINDOW = 30.0, 600.0
NEARLY = 5.0
"""Seconds by which an age may be off: Redis counts them itself while the test runs."""


@pytest.fixture(scope="module", params=store_places.NAMES)
def any_place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with store_places.place(request.param, tmp_path_factory.mktemp("store")) as place:
        yield place


@pytest.fixture
def place(any_place: Place) -> Place:
    any_place.clear()
    return any_place


@pytest_asyncio.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    store = place.store()
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


async def test_my_own_claim_is_won_again_and_its_lease_begins_anew(store: Store, place: Place) -> None:
    await one(store, claim())
    place.advance(20)
    assert await one(store, claim()) == Won()
    place.advance(20)
    assert isinstance(await one(store, claim(THEIRS)), Held)


async def test_a_claim_whose_lease_ran_out_is_free(store: Store, place: Place) -> None:
    await one(store, claim())
    place.advance(LEASE + 1)
    assert await one(store, Peek(KEY, WINDOW)) == Free()
    assert await one(store, Renew(KEY, MINE, LEASE)) == Free()
    assert await one(store, claim(THEIRS)) == Won()


async def test_only_the_holder_renews(store: Store, place: Place) -> None:
    await one(store, claim())
    place.advance(20)
    assert isinstance(await one(store, Renew(KEY, THEIRS, LEASE)), Held)
    assert await one(store, Renew(KEY, MINE, LEASE)) == Done()
    place.advance(20)
    assert isinstance(await one(store, Peek(KEY, WINDOW)), Held)


async def test_only_the_holder_releases(store: Store) -> None:
    await one(store, claim())
    assert await one(store, Release(KEY, THEIRS)) == Done()
    assert isinstance(await one(store, Peek(KEY, WINDOW)), Held)
    assert await one(store, Release(KEY, MINE)) == Done()
    assert await one(store, Peek(KEY, WINDOW)) == Free()
    assert await one(store, Release(KEY, MINE)) == Done()


async def test_what_was_sent_is_told_with_its_original_and_age(store: Store, place: Place) -> None:
    await one(store, claim())
    assert await one(store, Confirm(KEY, ORIGINAL, WINDOW)) == Done()
    place.advance(100)
    for question in (claim(), claim(THEIRS), Peek(KEY, WINDOW), Renew(KEY, MINE, LEASE)):
        answer = await one(store, question)
        assert isinstance(answer, Sent)
        assert answer.original == ORIGINAL
        assert answer.age == pytest.approx(100, abs=NEARLY)


async def test_a_release_does_not_undo_what_was_sent(store: Store) -> None:
    await store.execute([claim(), Confirm(KEY, ORIGINAL, WINDOW), Release(KEY, MINE)])
    assert isinstance(await one(store, Peek(KEY, WINDOW)), Sent)


async def test_the_window_ends_and_does_not_slide(store: Store, place: Place) -> None:
    await one(store, Confirm(KEY, ORIGINAL, WINDOW))
    place.advance(WINDOW / 2)
    await one(store, claim())
    place.advance(WINDOW / 2 + 1)
    assert await one(store, Peek(KEY, WINDOW)) == Free()
    assert await one(store, claim(THEIRS)) == Won()


async def test_a_late_confirmation_keeps_the_age_of_the_acceptance(store: Store, place: Place) -> None:
    await one(store, Confirm(KEY, ORIGINAL, WINDOW, age=400))
    answer = await one(store, Peek(KEY, WINDOW))
    assert isinstance(answer, Sent)
    assert answer.age == pytest.approx(400, abs=NEARLY)
    place.advance(WINDOW - 400 + 1)
    assert await one(store, Peek(KEY, WINDOW)) == Free()


async def test_a_confirmation_after_its_window_disturbs_nobody(store: Store) -> None:
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


async def test_a_smaller_window_than_the_age_finds_it_free(store: Store, place: Place) -> None:
    await one(store, Confirm(KEY, ORIGINAL, WINDOW))
    place.advance(100)
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


async def test_two_stores_at_one_place_see_each_other(store: Store, place: Place) -> None:
    second = place.store()
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


async def test_two_places_have_two_identities(store: Store, place: Place) -> None:
    first = await store.identity()
    place.clear()
    second = place.store()
    await second.open()
    try:
        assert await second.identity() != first
    finally:
        await second.close()


async def test_opening_twice_and_closing_twice_does_no_harm(place: Place) -> None:
    store = place.store()
    await store.open()
    await store.open()
    assert await one(store, claim()) == Won()
    await store.close()
    await store.close()
