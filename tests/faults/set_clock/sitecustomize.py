"""Imported by Python before all else where this folder is on PYTHONPATH: a wall clock that a file sets.

libfaketime would do the same below Python, and breaks the waiting on condition variables, by which threads take turns.
"""

import os
import time
from collections.abc import Callable

_FILE = os.environ["WALL_CLOCK_FILE"]


def _offset() -> int:
    with open(_FILE, encoding="ascii") as file:  # noqa: PTH123 - quick, at every look at the clock
        return int(file.read())


def _set(true_time: Callable[[], float]) -> Callable[[], float]:
    return lambda: true_time() + _offset()


time.time = _set(time.time)
