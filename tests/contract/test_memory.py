"""The memory store must not grow for ever."""

from __future__ import annotations

from relay.claims.memory import MemoryStore
from relay.core.claim import Claim, Fingerprint, Held, Peek, Token

TOKEN = Token("mine")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_expired_entries_are_removed_and_others_kept() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    kept = Fingerprint("v1:kept")
    await store.execute([Claim(kept, TOKEN, 1e6, 600)])
    for number in range(20_000):
        clock.now += 1
        await store.execute([Claim(Fingerprint(f"v1:{number}"), TOKEN, 30, 600)])
        assert len(store._entries) <= 1_200
    (answer,) = await store.execute([Peek(kept, 600)])
    assert isinstance(answer, Held)
