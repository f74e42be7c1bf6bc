"""Waiting for other programs, by polling with a deadline.

Objects of the tests themselves, such as the scripted peer, have events to wait for instead.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_T = TypeVar("_T")

LONGEST = 30.0
"""Seconds. The default deadline of all waits."""
_INTERVAL = 0.02


async def until(holds: Callable[[], object], what: str, *, seconds: float = LONGEST) -> None:
    """Waits until `holds()` is true. Raises `TimeoutError` with `what` at the deadline."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(_message(what, seconds))
        await asyncio.sleep(_INTERVAL)


async def until_told(ask: Callable[[], Awaitable[_T]], what: str, *, seconds: float = LONGEST) -> _T:
    """Awaits `ask()` until its result is true, and returns the result. Raises `TimeoutError` at the deadline."""
    deadline = time.monotonic() + seconds
    while not (told := await ask()):
        if time.monotonic() > deadline:
            raise TimeoutError(_message(what, seconds))
        await asyncio.sleep(_INTERVAL)
    return told


def block_until(holds: Callable[[], object], what: str, *, seconds: float = LONGEST) -> None:
    """Waits like `until` where no event loop runs, as in fixtures of the session."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(_message(what, seconds))
        time.sleep(_INTERVAL)


def _message(what: str, seconds: float) -> str:
    return f"waited {seconds:g} s in vain: {what}"
