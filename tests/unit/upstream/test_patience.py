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


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("budget", [0.5, 3.0, 20.0, 300.0])
@pytest.mark.parametrize("waits_for_a_place", [True, False])
async def test_pauses_use_the_budget_up(budget: float, waits_for_a_place: bool) -> None:
    time = Time()
    patience = Patience(budget, time, time.sleep)
    patience.begin()
    while await patience.pause():
        if waits_for_a_place:
            time.now += 50.0
            patience.overlook()
            time.now -= 50.0
            patience.overlook()
        assert time.now <= 100.0 + budget
    assert time.now >= 100.0 + budget - 2.0


async def test_a_client_hears_451_when_more_than_the_longest_pause_is_used_up(
    start_relay: Callable[..., RelayProcess],
) -> None:
    relay = await start_relay(upstream=f"smtp://127.0.0.1:{free_port()}", settings={"upstream.patience": "3s"})
    client = await RawClient.open(relay.port)
    await client.command(b"EHLO client.test")
    await client.command(b"MAIL FROM:<a@example.test>")
    async with asyncio.timeout(9):
        answers = [await client.command(b"RCPT TO:<user%d@example.test>" % number) for number in range(3)]
    assert [answer.code for answer in answers] == [451, 451, 451]
    await client.close()
