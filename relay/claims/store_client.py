"""The only caller of a store: gathers questions into batches, limits each round trip, and stops asking when it is down.

    up ──a StoreError, or two hangs in a row──▶ down ──a probe, once a second, is answered──▶ up

Whoever asks always gets answers; while the store cannot be asked they are `Unknown`, and mail is forwarded. A store
that nobody asks is looked at once a second all the same: what it has lost by a restart is to be told it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from relay.core.claim import Claim, Confirm, Fingerprint, Release, Token, Unknown
from relay.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from relay.core.claim import Answer, Command
    from relay.core.store import Store

_T = TypeVar("_T")

_log = logging.getLogger("relay.store")

BATCH = 2_000
"""Commands in one round trip: as many as every store can answer well inside its limit."""
_HANGS = 2
"""A store that does not answer may have had a bad moment once. What it says itself, a `StoreError`, counts at once."""
_LATE = 0.05
"""Seconds by which a timer may fire late without telling of a starved event loop."""


class _HangError(Exception):
    """A round trip did not end inside its limit."""


@dataclass(slots=True, eq=False)
class _Request:
    """What one caller asks, on its way."""

    commands: Sequence[Command]
    answers: asyncio.Future[list[Answer]]
    posted: float

    def aged(self, now: float) -> list[Command]:
        """Give the commands as they are meant now: an acceptance has grown older while it waited."""
        waited = now - self.posted
        return [
            replace(command, age=command.age + waited) if isinstance(command, Confirm) else command
            for command in self.commands
        ]


class BatchingStoreClient:
    """Ask the store through this. `start` it first; `close` it last."""

    def __init__(
        self,
        store: Store,
        *,
        limit: float,
        clock: Callable[[], float] = time.monotonic,
        probe_every: float = 1.0,
        look_every: float = 1.0,
    ) -> None:
        self._store = store
        self._limit = limit
        self._clock = clock
        self._probe_every = probe_every
        self._look_every = look_every
        self._up = False
        self._reason = "the store has not been opened"
        self._identity: str | None = None
        self._restarts = store.restarts
        self._hangs = 0
        self._queue: deque[_Request] = deque()
        self._posted = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._subscribers: list[Callable[[bool], None]] = []

    @property
    def up(self) -> bool:
        """Whether the store is being asked."""
        return self._up

    @property
    def identity(self) -> str | None:
        """The store's own id, once it was heard; with the store down, the last one."""
        return self._identity

    def subscribe(self, callback: Callable[[bool], None]) -> None:
        """Have `callback(up)` called at each change of `up`, and when the store may have lost what it was told."""
        self._subscribers.append(callback)

    async def start(self) -> None:
        """Open the store, and go on without it if that fails. Returns within the limit."""
        await self._probe()
        if not self._up:
            _log.warning("store unavailable, working without it: %s", self._reason)
        self._worker = asyncio.create_task(self._work(), name="store-guard")

    async def close(self) -> None:
        """Answer whoever still waits, and let go of the store."""
        self._up, self._reason = False, "the relay is ending"
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])
        self._give_up_queue()
        with contextlib.suppress(_HangError):
            await self._limited(self._store.close())

    async def ask(self, commands: Sequence[Command]) -> list[Answer]:
        """Give one answer a command. Never raises; `Unknown` for all that the store could not be asked.

        A caller that is cancelled leaves the others alone. What he had asked may be carried out or not.
        """
        if not self._up:
            return self._unknown(commands)
        parcels = [self._post(commands[start : start + BATCH]) for start in range(0, len(commands), BATCH)]
        try:
            return [answer for parcel in parcels for answer in await parcel.answers]
        finally:
            for parcel in parcels:
                parcel.answers.cancel()

    def _post(self, commands: Sequence[Command]) -> _Request:
        parcel = _Request(commands, asyncio.get_running_loop().create_future(), self._clock())
        self._queue.append(parcel)
        self._posted.set()
        return parcel

    async def _work(self) -> None:
        """Talk to the store: one task, so never two calls at a time. Were it to end, all mail would wait for ever."""
        try:
            while True:
                try:
                    await self._work_once()
                except asyncio.CancelledError as error:
                    if (task := asyncio.current_task()) is None or task.cancelling():
                        raise
                    self._fail(error)  # nobody asked us to end
                except Exception as error:  # noqa: BLE001, see above
                    self._fail(error)
        finally:
            self._up = False
            self._give_up_queue()

    async def _work_once(self) -> None:
        if not self._up:
            await asyncio.sleep(self._probe_every)
            await self._probe()
            return
        if await self._is_asked():
            if batch := self._gather():
                await self._carry(batch)
        else:
            await self._call(self._store.open())
        if self._up and self._store.restarts != self._restarts:
            await self._greet()

    async def _greet(self) -> None:
        """Learn who it is now, and see to it that it is told again what it may have lost."""
        restarts = self._store.restarts
        identity = await self._call(self._store.identity())
        if identity is not None:
            _log.warning("store was restarted; it is told again what it may have lost")
            self._identity, self._restarts = identity, restarts
            self._tell()

    async def _is_asked(self) -> bool:
        """Wait until somebody asks. False when nobody has for too long."""
        try:
            async with asyncio.timeout(self._look_every):
                await self._posted.wait()
        except TimeoutError:
            return False
        return True

    def _gather(self) -> list[_Request]:
        """Take what has come in during the last round trip, as much as fits into one batch."""
        batch: list[_Request] = []
        count = 0
        while self._queue and count + len(self._queue[0].commands) <= BATCH:
            parcel = self._queue.popleft()
            if not parcel.answers.done():  # its caller may have been cancelled
                batch.append(parcel)
                count += len(parcel.commands)
        if not self._queue:
            self._posted.clear()
        return batch

    async def _carry(self, batch: list[_Request]) -> None:
        """One round trip: every parcel gets its answers, come what may."""
        now = self._clock()
        commands = [command for parcel in batch for command in parcel.aged(now)]
        answers: list[Answer] | None = None
        try:
            answers = await self._call(self._execute(commands))
        finally:
            self._hand_out(batch, self._unknown(commands) if answers is None else answers)

    async def _call(self, work: Coroutine[object, object, _T]) -> _T | None:
        """Give what a call of the store gives. None where it fails; the store may be down then."""
        try:
            result = await self._limited(work)
        except _HangError as error:
            self._hangs += 1
            self._reason = str(error)
            if self._hangs >= _HANGS:
                self._go_down(self._reason)
        except StoreError as error:
            self._go_down(str(error))
        except Exception as error:  # noqa: BLE001, a fault in the store is no reason for mail to stop
            self._fail(error)
        else:
            self._hangs = 0
            return result
        return None

    async def _execute(self, commands: Sequence[Command]) -> list[Answer]:
        answers = await self._store.execute(commands)
        if len(answers) != len(commands):
            raise StoreError(f"{len(answers)} answers to {len(commands)} commands")
        return list(answers)

    def _hand_out(self, batch: list[_Request], answers: Sequence[Answer]) -> None:
        start = 0
        for parcel in batch:
            end = start + len(parcel.commands)
            if not parcel.answers.done():
                parcel.answers.set_result(list(answers[start:end]))
            start = end

    async def _limited(self, work: Coroutine[object, object, _T]) -> _T:
        """Run one call of the store inside the limit; on expiry it is cancelled and has ended when this returns."""
        task = asyncio.create_task(work)
        try:
            due = self._clock() + self._limit
            await asyncio.wait([task], timeout=self._limit)
            if not task.done() and self._clock() > due + _LATE:
                # Our own loop was held up, so the answer may lie in the socket, unread: no verdict on the store yet.
                await asyncio.wait([task], timeout=self._limit / 2)
            if not task.done():
                raise _HangError(f"no answer within {self._limit:g} s")
            if task.cancelled():  # by itself; we are not
                raise _HangError("it broke off")
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # seen, so that asyncio does not report it as lost

    async def _probe(self) -> None:
        """See whether the store really serves: one that only reads (a replica, a full one) does not."""
        try:
            self._identity = await self._limited(self._introduce())
        except (StoreError, _HangError) as error:
            self._reason = str(error)
        except Exception as error:  # noqa: BLE001, see _call
            self._note_fault(error)
        else:
            self._go_up()

    async def _introduce(self) -> str:
        key, token = Fingerprint("probe:" + secrets.token_hex(8)), Token(secrets.token_hex(8))
        for answer in await self._store.execute([Claim(key, token, lease=1.0, window=1.0), Release(key, token)]):
            if isinstance(answer, Unknown):
                raise StoreError(answer.reason)
        return await self._store.identity()

    def _fail(self, error: BaseException) -> None:
        self._note_fault(error)
        if self._up:
            self._go_down(self._reason)

    def _note_fault(self, error: BaseException) -> None:
        """Log a fault, but not at every probe the same again."""
        if self._reason != repr(error):
            _log.error("fault in the store", exc_info=error)
        self._reason = repr(error)

    def _go_down(self, reason: str) -> None:
        self._up, self._reason = False, reason
        _log.warning("store unavailable, working without it: %s", reason)
        self._give_up_queue()
        self._tell()

    def _go_up(self) -> None:
        self._up, self._hangs, self._reason = True, 0, ""
        if self._worker is not None:
            _log.info("store is back")
        self._restarts = self._store.restarts
        self._tell()

    def _tell(self) -> None:
        for callback in self._subscribers:
            try:
                callback(self._up)
            except Exception:  # noqa: BLE001, a subscriber's fault is not the store's
                _log.exception("fault in a subscriber of the store's state")

    def _give_up_queue(self) -> None:
        batch = list(self._queue)
        self._queue.clear()
        self._posted.clear()
        self._hand_out(batch, self._unknown([command for parcel in batch for command in parcel.commands]))

    def _unknown(self, commands: Sequence[Command]) -> list[Answer]:
        return [Unknown(self._reason)] * len(commands)
