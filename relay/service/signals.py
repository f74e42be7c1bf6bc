"""What signals do to a running relay."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from relay.events.service import ENDED_AT_ONCE, SIGNAL_IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_END = (signal.SIGTERM, signal.SIGINT)
_LAST_WORDS = 0.2
"""Seconds for the log line of a second signal. The reader of the log may have stalled."""
_LOGGED_ONLY = (signal.SIGUSR1, signal.SIGUSR2)


def ignore_other_signals() -> None:
    """Ignores SIGHUP, SIGUSR1 and SIGUSR2, which would end the process without a drain."""
    for number in (signal.SIGHUP, *_LOGGED_ONLY):
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def handled_signals(
    limit: Callable[[], float], reload: Callable[[], None], write_log: Callable[[float], None]
) -> Iterator[asyncio.Event]:
    """Handles signals in a `with` block of the running loop. Yields the event that SIGTERM and SIGINT set.

    The process ends at once, with status 1, at a second one of them, at any after the block, and as many seconds after
    the first one as `limit` returns then. A second one is logged: `write_log` writes the lines that wait, for so many
    seconds at most. SIGHUP calls `reload` in the loop. SIGUSR1 and SIGUSR2 are only logged.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    ending = False

    def end(number: int, _: object) -> None:
        nonlocal ending
        if ending:
            _end_by_force(_LAST_WORDS)
            ENDED_AT_ONCE.log(signal=signal.Signals(number).name)
            write_log(_LAST_WORDS)
            os._exit(1)
        ending = True
        _end_by_force(limit())
        loop.call_soon_threadsafe(stop.set)

    # Not `loop.add_signal_handler`: these also run while the loop is held up, and after its end.
    for number in _END:
        signal.signal(number, end)
    signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(reload))
    for number in _LOGGED_ONLY:
        signal.signal(number, lambda number, _: loop.call_soon_threadsafe(_log_signal, number))
    try:
        yield stop
    finally:
        ending = True
        ignore_other_signals()


def _log_signal(number: int) -> None:
    SIGNAL_IGNORED.log(signal=signal.Signals(number).name)


def _end_by_force(limit: float) -> None:
    """Ends the process after `limit` seconds, with status 1, even if a call that never returns holds the event loop.

    The thread of faulthandler needs neither the loop nor the interpreter's lock. Its traceback goes to the null device:
    stderr may be what hangs.
    """
    faulthandler.dump_traceback_later(limit, exit=True, file=Path(os.devnull).open("w"))  # noqa: SIM115 - until the end
