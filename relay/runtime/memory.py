"""The memory budget that all messages in a process share, and the memory that the process may use."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator


class MemoryBudget:
    """Bytes of all messages in memory: uploads, deliveries, waiting twins, and messages whose client has gone."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        self._waiting: dict[asyncio.Future[None], int] = {}

    def reserve(self, amount: int) -> Reservation | None:
        """Returns a reservation, or None if there is no room for it now."""
        return Reservation(self, amount) if self.take(amount) else None

    async def wait(self, amount: int, limit: float) -> Reservation | None:
        """Waits up to `limit` seconds for room. Returns None if there was none.

        Waiters are served in the order of their arrival. One whose amount does not fit does not hold up the others.
        """
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[room] = amount
        reservation = None
        try:
            await asyncio.wait((room,), timeout=limit)
            reservation = Reservation(self, amount) if room.done() else None
        finally:
            del self._waiting[room]
            if room.done() and reservation is None:  # the waiting task was cancelled
                self.give_back(amount)
        return reservation

    def take(self, amount: int) -> bool:
        """Counts `amount` bytes as used. Returns False, and counts nothing, if there is no room for them."""
        if self.used + amount > self.size:
            return False
        self.used += amount
        return True

    def resize(self, size: int) -> None:
        """Changes the size. Messages that already use more than that keep it."""
        self.size = size
        self._serve_waiting()

    def give_back(self, amount: int) -> None:
        """Counts `amount` bytes as free again, and serves those who wait for room."""
        self.used -= amount
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        for room, wanted in self._waiting.items():
            if not room.done() and self.take(wanted):
                room.set_result(None)


class Reservation:
    """The bytes that one message has reserved. A `with` block gives them back at its end.

    Only `MemoryBudget` creates one, after `MemoryBudget.take`.
    """

    def __init__(self, budget: MemoryBudget, amount: int) -> None:
        self._budget = budget
        self._amount = amount

    def __enter__(self) -> Self:
        """Begins the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the bytes back."""
        self.release()

    def grow(self, amount: int) -> bool:
        """Reserves `amount` bytes in all. Never waits: two half uploads would wait for each other.

        Returns False, and gives all bytes back, if there is no room.
        """
        more = amount - self._amount
        if more <= 0:
            return True
        if not self._budget.take(more):
            self.release()
            return False
        self._amount = amount
        return True

    def move(self) -> Reservation:
        """Returns a reservation with all the bytes of this one, which then holds none."""
        moved = Reservation(self._budget, self._amount)
        self._amount = 0
        return moved

    def release(self) -> None:
        """Gives the bytes back. May be called repeatedly."""
        amount, self._amount = self._amount, 0
        self._budget.give_back(amount)


def usable_memory(root: Path = Path("/")) -> int:
    """Returns the bytes of memory of the machine, or of the control group of this process if that may use less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min((machine, *_cgroup_limits(root)))


def _cgroup_limits(root: Path) -> Iterator[int]:
    """Yields the limits of the process's control group and of the groups around it (cgroups(7), version 1 and 2).

    In a container without a cgroup namespace the path belongs to the host, and only the topmost folder exists.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top) and (limit := _read_limit(folder / name)) is not None:
                yield limit


def _read_limit(file: Path) -> int | None:
    """Returns the limit in a file, or None if there is no file or no limit (`max`)."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
