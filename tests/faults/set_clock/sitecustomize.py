"""Shifts the wall clock of a Python process by the seconds in a file.

Python imports this module first where its folder is on PYTHONPATH. libfaketime would shift the clock below Python, but
it breaks the waits on condition variables, with which threads synchronise.
"""

import os
import time

_FILE = os.environ["WALL_CLOCK_FILE"]
_true_time = time.time
_true_time_ns = time.time_ns


def _offset() -> int:
    with open(_FILE, encoding="ascii") as file:  # noqa: PTH123 - fast, because every reading of the clock opens it
        return int(file.read())


def _shifted_time() -> float:
    return _true_time() + _offset()


def _shifted_time_ns() -> int:
    return _true_time_ns() + _offset() * 1_000_000_000


time.time = _shifted_time
time.time_ns = _shifted_time_ns  # what `logging` reads from Python 3.13 on
