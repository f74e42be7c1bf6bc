"""Waiting for what foreign programs do.

They leave no event behind, so the tests look again and again, with a deadline. For our own parts wait on their events.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_T = TypeVar("_T")

LONGEST = 30.0
"""Seconds after which nothing that the tests wait for can still be on its way."""
_LOOK_EVERY = 0.02


async def until(holds: Callable[[], object], what: str, *, seconds: float = LONGEST) -> None:
    """Wait until `holds()` is true and let other tasks run meanwhile; at the deadline fail and name `what`."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(_message(what, seconds))
        await asyncio.sleep(_LOOK_EVERY)


async def until_told(ask: Callable[[], Awaitable[_T]], what: str, *, seconds: float = LONGEST) -> _T:
    """Ask another process until it says something that is true, and give that."""
    deadline = time.monotonic() + seconds
    while not (told := await ask()):
        if time.monotonic() > deadline:
            raise TimeoutError(_message(what, seconds))
        await asyncio.sleep(_LOOK_EVERY)
    return told


def block_until(holds: Callable[[], object], what: str, *, seconds: float = LONGEST) -> None:
    """Do the same where no event loop runs, as in fixtures that serve a whole test session."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(_message(what, seconds))
        time.sleep(_LOOK_EVERY)


def _message(what: str, seconds: float) -> str:
    return f"waited {seconds:g} s in vain: {what}"
