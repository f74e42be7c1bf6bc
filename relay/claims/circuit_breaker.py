"""A circuit breaker around a store: limits the time of each call, and stops calls while the store is down.

up ──a StoreError, or two delays in a row──▶ down ──a probe is answered──▶ up

A delay is a call that hangs, or a store that other processes keep busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, TypeVar

from relay.core.claim import Claim, Done, Fingerprint, Free, Held, Peek, Release, Renew, Token, Unknown, Won
from relay.core.errors import StoreBusyError, StoreError
from relay.events.store import STORE_BACK, STORE_DOWN, STORE_FAULT, STORE_RESTARTED, SUBSCRIBER_FAULT
from relay.runtime.tasks import run_within

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from relay.core.store import Store

_T = TypeVar("_T")

_DELAYS = 2
"""Delays in a row after which the store is down: one may be a short stall. Any other `StoreError` counts at once."""

_PROBE_LEASE = 60.0
"""Seconds. Longer than any probe takes, so that its claim does not expire between two commands."""


class _HangError(StoreBusyError):
    """A call did not end within its limit."""


class CircuitBreaker:
    """Calls a store. `limit` in seconds for each call."""

    def __init__(self, store: Store, limit: float) -> None:
        self.up = False
        """Whether the store may be called."""
        self.reason = "the store has not been opened"
        """Why it is down."""
        self.identity: str | None = None
        """The store's random id, as last reported."""
        self.data_losses = 0
        """How often the store was found to have lost data: it was restarted, or has another identity."""
        self._store = store
        self._limit = limit
        self._restarts = store.restarts
        self._delays = 0
        self._subscribers: list[Callable[[bool], None]] = []

    def subscribe(self, callback: Callable[[bool], None]) -> None:
        """Has `callback(up)` called at each change of `up`, and when the store may have lost data."""
        self._subscribers.append(callback)

    async def open(self) -> None:
        """Probes the store for the first time. Logs a warning if it is down."""
        if await self._probe():
            self._set_up()
        else:
            STORE_DOWN.log(error=self.reason)

    async def probe(self) -> None:
        """Probes a store that is down."""
        if await self._probe():
            STORE_BACK.log()
            self._set_up()

    async def close(self) -> None:
        """Closes the store."""
        with contextlib.suppress(_HangError):
            await self._run_limited(self._store.close())

    async def call(self, work: Coroutine[object, object, _T]) -> _T | None:
        """Returns what a call of the store returns. None if it fails; the store may be down then."""
        try:
            result = await self._run_limited(work)
        except StoreError as error:
            self.reason = str(error)
            self._delays = self._delays + 1 if isinstance(error, StoreBusyError) else _DELAYS
            if self._delays >= _DELAYS:
                self._set_down()
        except Exception as error:  # noqa: BLE001 - a bug in the store must not stop mail
            self.fail(error)
        else:
            self._delays = 0
            return result
        return None

    def fail(self, error: BaseException) -> None:
        """Logs an unexpected error. The store is down until a probe succeeds."""
        self._log_error(error)
        if self.up:
            self._set_down()

    async def check_for_restart(self) -> None:
        """Notifies the subscribers if the store was restarted, so that they write again what it may have lost."""
        restarts = self._store.restarts
        if not self.up or restarts == self._restarts:
            return
        identity = await self.call(self._store.identity())
        if identity is not None:
            STORE_RESTARTED.log()
            self._learn(identity, restarts)
            self._notify()

    async def _run_limited(self, work: Coroutine[object, object, _T]) -> _T:
        """Runs one call within the limit. On expiry it is cancelled, and has ended when this raises `_HangError`."""
        result = (await run_within(self._limit, {"call": work}))["call"]
        match result:
            case TimeoutError():
                raise _HangError(f"no answer within {self._limit:g} s")
            case asyncio.CancelledError():  # by itself: a cancellation of this task is raised by `run_within`
                raise _HangError("it broke off")
            case BaseException():
                raise result
        return result

    async def _probe(self) -> bool:
        """Returns whether the store serves. One that is read-only (a replica, a full one) does not."""
        try:
            identity = await self._run_limited(self._try_claim_and_identify())
        except StoreError as error:
            self.reason = str(error)
        except Exception as error:  # noqa: BLE001 - see `call`
            self._log_error(error)
        else:
            self._learn(identity, self._store.restarts)
            return True
        return False

    async def _try_claim_and_identify(self) -> str:
        """Returns the store's identity if a claim can be held against others, renewed and released.

        Without a look at a held key, a user who may not read the remaining time of a key would go unnoticed, and two
        relays would deliver the same mail.
        """
        key = Fingerprint("probe:" + secrets.token_hex(8))
        token, other = Token(secrets.token_hex(8)), Token(secrets.token_hex(8))
        steps = (
            (Claim(key, token, lease=_PROBE_LEASE, window=1.0), Won),
            (Claim(key, other, lease=_PROBE_LEASE, window=1.0), Held),
            (Renew(key, token, lease=_PROBE_LEASE), Done),
            (Release(key, token), Done),
            (Peek(key, window=1.0), Free),
        )
        answers = await self._store.execute([command for command, _ in steps])
        for (command, expected), answer in zip(steps, answers, strict=True):
            if isinstance(answer, Unknown):
                raise StoreError(answer.reason)
            if not isinstance(answer, expected):
                raise StoreError(f"it does not keep claims ({type(command).__name__}: {type(answer).__name__})")
        return await self._store.identity()

    def _learn(self, identity: str, restarts: int) -> None:
        if self.identity is not None and (identity, restarts) != (self.identity, self._restarts):
            self.data_losses += 1
        self.identity, self._restarts = identity, restarts

    def _log_error(self, error: BaseException) -> None:
        """Logs an unexpected error, but not the same one at every probe."""
        if self.reason != repr(error):
            STORE_FAULT.log(error)
        self.reason = repr(error)

    def _set_down(self) -> None:
        self.up = False
        STORE_DOWN.log(error=self.reason)
        self._notify()

    def _set_up(self) -> None:
        self.up, self._delays, self.reason = True, 0, ""
        self._notify()

    def _notify(self) -> None:
        for callback in self._subscribers:
            try:
                callback(self.up)
            except Exception as error:  # noqa: BLE001 - a subscriber's bug is not the store's
                SUBSCRIBER_FAULT.log(error)
