"""One run of one scenario: its servers, its load, and the actions that break things and record it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from parts.relay_process import RelayProcess
from parts.waiting import until

from faults.clients import Clients, Manner
from faults.history import Death, History, Outage, Stall
from faults.relays import UnreadLogRelay
from faults.servers import Servers
from faults.wall_clock import WallClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence

    from faults.scenario import Scenario

SETTINGS: Mapping[str, object] = {
    "dedup.window": "1h",
    "dedup.lease": "3s",
    "dedup.wait": "60s",
    "upstream.connections": 10,
    "upstream.patience": "10s",
    "log.format": "json",
}
"""Settings with short limits, to save time. No window ends during a run."""
PEOPLE = [f"user{number}@example.test" for number in range(1, 1001)]


@dataclass(frozen=True)
class Load:
    """How to send each message: so many copies at once, then so many repeats in sequence."""

    copies: int = 2
    repeats: int = 1
    at_once: int = 20
    recipients: tuple[int, int] = (1, 3)
    manners: Sequence[Manner] = (Manner.PLAIN, Manner.PIPELINED)


class Run(Servers):
    """The servers of one scenario, started and empty. The checker checks `history` at the end."""

    def __init__(self, scenario: Scenario, messages: int, seed: int) -> None:
        super().__init__(scenario, random.Random(f"{scenario.name} {seed}"))
        self.messages = messages
        self.seed = seed
        self.settings = {**SETTINGS, **scenario.settings}
        self.history = History(
            relays=scenario.relays,
            lease=float(str(self.settings["dedup.lease"]).removesuffix("s")),
            keep_uncertain=self.settings.get("dedup.on_uncertain") == "keep",
        )
        self.relays: list[RelayProcess] = []
        self.restarted: set[int] = set()
        self.clocks: list[WallClock] = []
        self.done = 0
        self.unreadable_store = False
        self.stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-faults-")))
            for name, text in self.scenario.files.items():
                (self.folder / name).write_text(text)
            self.make_certificate()
            self.store_url = await self.start_store(stack)
            upstream = await self.start_upstream(stack)
            for number in range(self.scenario.relays):
                state = self.folder / f"relay{number}"
                state.mkdir()
                environment: Mapping[str, str] = {}
                if self.scenario.clocks:
                    environment = self._clock(number).environment
                kind = RelayProcess if self.scenario.log_is_read else UnreadLogRelay
                relay = kind(
                    upstream=upstream,
                    store=self.store_url,
                    settings=self._settings(),
                    state=state,
                    environment=environment,
                )
                relay.prefix = self.prefix
                stack.push_async_callback(relay.close)
                self.relays.append(relay)
            async with asyncio.TaskGroup() as group:
                for relay in self.relays:
                    group.create_task(relay.start())
            ports = await self.client_ports(self.relays, stack)
            self.clients = Clients(self.history, ports, self.chance, patience=120.0)
            if self.scenario.tls:
                self.clients.tls = self.tls
            self.stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stack.aclose()

    def _settings(self) -> dict[str, str]:
        """Returns the settings of a relay. `{folder}` in a value is the folder of the run."""
        settings = {key: str(value).replace("{folder}", str(self.folder)) for key, value in self.settings.items()}
        if self.scenario.tls:
            settings |= self.tls.settings_of_next_relay()
        if self.fallback_urls:
            settings["upstream.fallback_urls"] = json.dumps(self.fallback_urls)
        return settings

    def _clock(self, number: int) -> WallClock:
        """Returns the clock of a relay. Relays that share a file share a host and its clock."""
        if self.scenario.store != "sqlite" or not self.clocks:
            self.clocks.append(WallClock(self.folder / f"clock{number}"))
        return self.clocks[-1]

    # Load

    @contextlib.asynccontextmanager
    async def load(self, messages: int | None = None, **kind: object) -> AsyncIterator[None]:
        """Sends so many messages (default: all of the run) while the block runs, and waits for the rest after it."""
        count = self.messages if messages is None else messages
        task = asyncio.create_task(self._send_all(count, Load(**kind)))  # type: ignore[arg-type]
        try:
            yield
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _send_all(self, count: int, load: Load) -> None:
        places = asyncio.Semaphore(load.at_once)

        async def one(number: int, recipients: list[str]) -> None:
            try:
                await self.send(number, recipients, load)
            finally:
                self.done += 1
                places.release()

        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                await places.acquire()
                recipients = self.chance.sample(PEOPLE, self.chance.randint(*load.recipients))
                group.create_task(one(self.next_message(), recipients))

    def next_message(self) -> int:
        """Returns the number of a new message."""
        self.history.messages += 1
        return self.history.messages

    async def send(self, message: int, recipients: Sequence[str], load: Load) -> None:
        """Sends a message as the load asks, each copy to a random relay."""
        await asyncio.gather(*(self._insist(message, recipients, load) for _ in range(load.copies)))
        for _ in range(load.repeats):
            await self._insist(message, recipients, load)

    def _insist(self, message: int, recipients: Sequence[str], load: Load) -> Awaitable[None]:
        order = recipients if self.chance.random() < 0.5 else recipients[::-1]
        relay, manner = self.chance.randrange(len(self.relays)), self.chance.choice(load.manners)
        return self.clients.insist(message, order, relay, manner)

    def points(self, count: int, messages: int | None = None) -> Iterator[int]:
        """Returns so many message counts, at random within `messages`, at which a fault is due. The first is now."""
        begun = self.done
        last = int((messages or self.messages) * 0.8)
        yield from sorted([begun, *(begun + self.chance.randint(0, last) for _ in range(count - 1))])

    async def reached(self, count: int) -> None:
        """Waits until so many messages have been sent."""
        await until(lambda: self.done >= count, f"{count} messages sent, {self.done} so far", seconds=600)

    # Faults

    async def kill(self, relay: int) -> None:
        """Kills a relay with SIGKILL."""
        self.history.deaths.append(Death(relay, time.monotonic()))
        self.restarted.add(relay)
        self.relays[relay].kill()
        await self.relays[relay].wait()

    async def revive(self, relay: int) -> None:
        """Starts a relay again."""
        await self.relays[relay].start()

    async def restart(self, relay: int) -> None:
        """Drains a relay and starts it again."""
        self.restarted.add(relay)
        self.relays[relay].terminate()
        status = await self.relays[relay].wait(seconds=60)
        if status:
            self.history.left_over.append(f"relay {relay} ended with {status} when it was asked to drain")
        await self.relays[relay].start()

    @contextlib.asynccontextmanager
    async def stalled(self, who: int | str) -> AsyncIterator[None]:
        """Stops a relay or the store (SIGSTOP) while the block runs."""
        begun = time.monotonic()
        self._signal(who, signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(who, signal.SIGCONT)
            self.history.stalls.append(Stall(who, begun, time.monotonic()))

    def _signal(self, who: int | str, number: signal.Signals) -> None:
        if isinstance(who, int):
            os.kill(self.relays[who].pid, number)
        elif number is signal.SIGSTOP:
            self.redis.pause()
        else:
            self.redis.resume()

    @contextlib.asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        """Records that the store is unavailable, or loses data, while the block runs."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.history.outages.append(Outage(begun, time.monotonic()))

    async def store_is(self, state: str) -> None:
        """Waits until every relay reports its store as "up" or "degraded"."""
        await self.part_is("store", state)

    async def part_is(self, part: str, state: str) -> None:
        """Waits until every relay reports this state of a part."""
        for relay in self.relays:
            await _until_ready(relay, part, state)

    def note(self, text: str) -> None:
        """Adds a remark to the report."""
        self.notes.append(text)

    def complain(self, text: str) -> None:
        """Records a finding."""
        self.history.left_over.append(text)


async def _until_ready(relay: RelayProcess, part: str, state: str) -> None:
    deadline = time.monotonic() + 60
    while (await relay.readyz())[part] != state:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{part} of a relay is not {state}")
        await asyncio.sleep(0.05)
