"""The claims of this process: what it is delivering, what it knows to be sent, and who waits for what.

Twins inside the process meet here and wake each other by event; the store arbitrates between processes and remembers
over restarts. While the store is away the book goes on alone: that is all the degraded mode there is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from relay.core.claim import (
    Answer,
    Claim,
    Command,
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
    Unknown,
    Won,
)
from relay.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

log = logging.getLogger("relay.claims")

Verdict: TypeAlias = Won | Held | Sent

REMEMBERED = 200_000
"""Sent fingerprints that the process keeps; beyond that the oldest are left to the store alone."""
POLL_EVERY = 0.1
"""Seconds between two looks at claims that other processes hold and somebody here waits for."""
WRITE_BACK = 500
"""Confirmations in one batch when the store has returned."""


class Arbiter(Protocol):
    """The guarded store: never raises; `Unknown` where it could not be asked."""

    async def ask(self, commands: Sequence[Command]) -> list[Answer]:
        """Give an answer for each command."""

    @property
    def up(self) -> bool:
        """Whether the store answers."""


@dataclass(slots=True, eq=False)
class _Hold:
    """A claim somebody holds: a transaction here (`token`), or another process."""

    token: Token | None
    window: float
    until: float
    """When the lease in the store ends, by our clock. A hold of our own outlives it here: its owner is alive."""
    waiters: set[asyncio.Future[None]] = field(default_factory=set)


@dataclass(slots=True)
class _Known:
    """An acceptance: when by our clock, and whether this process was the one that delivered it."""

    original: Original
    at: float
    window: float
    ours: bool


class Book:
    """All claims of a process. Times in seconds, by a monotonic clock."""

    def __init__(
        self, store: Arbiter, *, lease: float, clock: Callable[[], float], remembered: int = REMEMBERED
    ) -> None:
        self._store = store
        self._lease = lease
        self._clock = clock
        self._remembered = remembered
        self._holds: dict[Fingerprint, _Hold] = {}
        self._known: OrderedDict[Fingerprint, _Known] = OrderedDict()
        self._unwritten: set[Fingerprint] = set()
        self._tasks = Tasks()
        self._poller: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._closing = False
        self.lost = 0
        """Claims that another process took while their owner here still worked: a lease had run out."""

    def start(self) -> None:
        """Begin to renew leases."""
        self._tasks.start(self._renew_for_ever(), "renew leases")

    async def close(self) -> None:
        """End renewing, polling and writing back, and write what can still be written."""
        self.give_up()
        await self._tasks.cancel()
        await self._write_while_possible()

    def give_up(self) -> None:
        """Let everybody who waits hear that it is over."""
        self._closing = True
        for hold in self._holds.values():
            _wake(hold)

    @property
    def held(self) -> int:
        """How many fingerprints a transaction of this process is delivering."""
        return sum(hold.token is not None for hold in self._holds.values())

    # The life cycle, as a transaction sees it

    async def claim(self, keys: Sequence[Fingerprint], token: Token, window: float) -> dict[Fingerprint, Verdict]:
        """Claim all keys at once, without waiting for anybody. In doubt a key is won."""
        now = self._clock()
        verdicts: dict[Fingerprint, Verdict] = {}
        asked: list[Fingerprint] = []
        for key in keys:
            verdict = self._look_up(key, token, window, now)
            if verdict is None:
                self._hold(key, token, window, now + self._lease)
                asked.append(key)
            else:
                verdicts[key] = verdict
        if asked:
            verdicts.update(await self._ask_store(asked, token, window))
        return verdicts

    async def assure(self, keys: Sequence[Fingerprint], token: Token, window: float) -> dict[Fingerprint, Verdict]:
        """Claim again what our own lease no longer covers; give the keys that somebody else has taken meanwhile.

        To be asked right before content goes out. Without delay as long as all leases run.
        """
        verdicts = await self.claim(keys, token, window)
        lost: dict[Fingerprint, Verdict] = {
            key: verdict for key, verdict in verdicts.items() if not isinstance(verdict, Won)
        }
        self.lost += len(lost)
        return lost

    async def settle(
        self,
        token: Token,
        accepted: Mapping[Fingerprint, Original],
        released: Iterable[Fingerprint],
        window: float,
    ) -> None:
        """Record what the upstream accepted, free what it did not, and wake whoever waits for either."""
        now = self._clock()
        commands: list[Command] = []
        for key, original in accepted.items():
            self._know(key, _Known(original, now, window, ours=True))
            self._unwritten.add(key)
            commands.append(Confirm(key, original, window))
        for key in released:
            hold = self._holds.get(key)
            if hold and hold.token == token:
                self._free(key)
            commands.append(Release(key, token))
        self._note_written(commands, await self._store.ask(commands))
        if self._unwritten:
            self.write_back()

    async def changed(self, keys: Iterable[Fingerprint], timeout: float) -> bool:  # noqa: ASYNC109 - ends by event too
        """Wait until one of the keys that were held is not held as before. False after `timeout` s, or at the end."""
        if self._closing:
            return False
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        holds = [self._holds.get(key) for key in keys]
        if None in holds:
            return True
        for hold in holds:
            hold.waiters.add(woken)  # type: ignore[union-attr]
        self._poll()
        try:
            async with asyncio.timeout(timeout):
                await woken
        except TimeoutError:
            return False
        finally:
            for hold in holds:
                hold.waiters.discard(woken)  # type: ignore[union-attr]
        return not self._closing

    # The table

    def _look_up(self, key: Fingerprint, token: Token, window: float, now: float) -> Verdict | None:
        hold = self._holds.get(key)
        if hold and hold.token == token:
            return Won() if hold.until > now else None
        if hold and (hold.token is not None or hold.until > now):
            return Held(hold.until - now)
        known = self._known.get(key)
        if known and now - known.at < min(window, known.window):
            return Sent(known.original, now - known.at)
        return None

    def _hold(self, key: Fingerprint, token: Token | None, window: float, until: float) -> None:
        """Note who holds it. Whoever waited for the one before waits for this one."""
        hold = self._holds.get(key)
        waiters = hold.waiters if hold else set()
        self._holds[key] = _Hold(token, window, until, waiters)

    def _free(self, key: Fingerprint) -> None:
        hold = self._holds.pop(key, None)
        if hold:
            _wake(hold)

    def _know(self, key: Fingerprint, known: _Known) -> None:
        self._known[key] = known
        self._known.move_to_end(key)
        self._free(key)
        while self._known:
            oldest, entry = next(iter(self._known.items()))
            if len(self._known) <= self._remembered and self._clock() - entry.at < entry.window:
                break
            del self._known[oldest]
            self._unwritten.discard(oldest)

    # The store

    async def _ask_store(self, keys: Sequence[Fingerprint], token: Token, window: float) -> dict[Fingerprint, Verdict]:
        asked_at = self._clock()
        try:
            answers = await self._store.ask([Claim(key, token, self._lease, window) for key in keys])
        except asyncio.CancelledError:
            for key in keys:
                self._free(key)
            raise
        return {
            key: self._take_answer(key, token, window, answer, asked_at)
            for key, answer in zip(keys, answers, strict=True)
        }

    def _take_answer(self, key: Fingerprint, token: Token, window: float, answer: Answer, asked_at: float) -> Verdict:
        """Make the table say what the store said; what the store does not know, this process decides alone."""
        match answer:
            case Sent(original, age):
                self._know(key, _Known(original, asked_at - age, window, ours=False))
                return answer
            case Held(remaining):
                # Twins in this process wait for the owner elsewhere as well from now on; the poller looks for them.
                self._hold(key, None, window, asked_at + remaining)
                self._poll()
                return answer
            case _:
                self._hold(key, token, window, asked_at + self._lease)
                return Won()

    def _note_written(self, commands: Sequence[Command], answers: Sequence[Answer]) -> None:
        for command, answer in zip(commands, answers, strict=True):
            if isinstance(command, Confirm) and isinstance(answer, Done):
                self._unwritten.discard(command.key)

    def store_returned(self) -> None:
        """Write back all that this process has sent: the store may have come back empty."""
        self._unwritten.update(key for key, known in self._known.items() if known.ours)
        self.write_back()

    def write_back(self) -> None:
        """See to it that the store hears of every acceptance, until it does or the window has passed."""
        if not self._closing and (self._writer is None or self._writer.done()):
            self._writer = self._tasks.start(self._write_until_done(), "write back")

    async def _write_until_done(self) -> None:
        while self._unwritten:
            await asyncio.sleep(1.0)
            await self._write_while_possible()

    async def _write_while_possible(self) -> None:
        while self._unwritten and self._store.up and await self._write_some():
            pass

    async def _write_some(self) -> bool:
        now = self._clock()
        commands: list[Command] = []
        for key in list(self._unwritten)[:WRITE_BACK]:
            known = self._known.get(key)
            if known is None or now - known.at >= known.window:
                self._unwritten.discard(key)
            else:
                commands.append(Confirm(key, known.original, known.window, now - known.at))
        before = len(self._unwritten)
        self._note_written(commands, await self._store.ask(commands))
        return not commands or len(self._unwritten) < before

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            await self.renew()

    async def renew(self) -> None:
        """Renew the leases of all claims that are being delivered; take back those that had run out or were wiped."""
        now = self._clock()
        ours = {key: hold for key, hold in self._holds.items() if hold.token is not None}
        if not ours:
            return
        commands = [Renew(key, hold.token, self._lease) for key, hold in ours.items() if hold.token]
        answers = await self._store.ask(commands)
        lapsed = {
            key: hold
            for (key, hold), answer in zip(ours.items(), answers, strict=True)
            if self._holds.get(key) is hold and not self._renewed(hold, answer, now)
        }
        # The content may be out already, so that nobody asks `assure` any more: claim again now. A release that
        # follows comes after it, for the store is asked in order.
        claims = [Claim(key, hold.token, self._lease, hold.window) for key, hold in lapsed.items() if hold.token]
        for hold, answer in zip(lapsed.values(), await self._store.ask(claims) if claims else [], strict=True):
            self._renewed(hold, answer, now)

    def _renewed(self, hold: _Hold, answer: Answer, now: float) -> bool:
        """Note how long the lease runs now. False where the store holds nothing for anybody."""
        match answer:
            case Done() | Won():
                hold.until = now + self._lease
            case Held() | Sent():
                hold.until = now
            case Free():
                hold.until = now
                return False
        return True

    def _poll(self) -> None:
        if not self._closing and (self._poller is None or self._poller.done()):
            self._poller = self._tasks.start(self._poll_others(), "poll claims of other processes")

    async def _poll_others(self) -> None:
        while awaited := [key for key, hold in self._holds.items() if hold.token is None and hold.waiters]:
            await asyncio.sleep(POLL_EVERY)
            holds = [self._holds.get(key) for key in awaited]
            asked_at = self._clock()
            answers = await self._store.ask(
                [Peek(key, hold.window if hold else 0.0) for key, hold in zip(awaited, holds, strict=True)]
            )
            for key, hold, answer in zip(awaited, holds, answers, strict=True):
                if hold and self._holds.get(key) is hold and hold.token is None:
                    self._take_look(key, hold, answer, asked_at)
        self._drop_unawaited()

    def _take_look(self, key: Fingerprint, hold: _Hold, answer: Answer, asked_at: float) -> None:
        match answer:
            case Sent(original, age):
                self._know(key, _Known(original, asked_at - age, hold.window, ours=False))
            case Held(remaining):
                hold.until = asked_at + remaining
            case Unknown() if hold.until > asked_at:
                pass  # its owner may still be at work: his lease, as last heard of, goes on
            case _:
                self._free(key)

    def _drop_unawaited(self) -> None:
        now = self._clock()
        for key in [key for key, hold in self._holds.items() if hold.token is None and hold.until <= now]:
            self._free(key)


def _wake(hold: _Hold) -> None:
    for waiter in hold.waiters:
        if not waiter.done():
            waiter.set_result(None)
