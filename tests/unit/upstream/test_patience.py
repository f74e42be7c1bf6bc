"""How long an upstream that cannot be reached is tried again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from parts.client import RawClient
from parts.ports import free_port

from relay.upstream.patience import Patience

if TYPE_CHECKING:
    from collections.abc import Callable

    from parts.relay_process import RelayProcess


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("budget", [0.5, 3.0, 20.0, 300.0])
@pytest.mark.parametrize("waits_for_a_slot", [True, False])
async def test_pauses_spend_the_budget(budget: float, waits_for_a_slot: bool) -> None:
    clock = Clock()
    patience = Patience(budget, clock, clock.sleep)
    patience.begin()
    while await patience.pause():
        if waits_for_a_slot:
            clock.now += 50.0
            patience.overlook()
            clock.now -= 50.0
            patience.overlook()
        assert clock.now <= 100.0 + budget
    assert clock.now >= 100.0 + budget - 2.0


async def test_attempts_spend_the_budget_unless_overlooked() -> None:
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


async def test_a_client_receives_451_when_the_patience_is_spent(start_relay: Callable[..., RelayProcess]) -> None:
    relay = await start_relay(upstream=f"smtp://127.0.0.1:{free_port()}", settings={"upstream.patience": "3s"})
    client = await RawClient.open(relay.port)
    await client.command(b"EHLO client.test")
    await client.command(b"MAIL FROM:<a@example.test>")
    async with asyncio.timeout(9):
        answers = [await client.command(b"RCPT TO:<user%d@example.test>" % number) for number in range(3)]
    assert [answer.code for answer in answers] == [451, 451, 451]
    await client.close()
