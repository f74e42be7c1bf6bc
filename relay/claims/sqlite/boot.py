"""The host's clock since boot, which cannot be set back."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Boot:
    """One run of this host: its id, and the seconds since it began, asleep or awake, by a clock that nobody can set."""

    id: str
    clock: Callable[[], float]


def this_boot() -> Boot:
    """Give this host's. Where it tells none, every process has one of its own, and only the wall clock is shared."""
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        number = time.CLOCK_BOOTTIME
    except (OSError, AttributeError):
        return Boot(secrets.token_hex(8), time.monotonic)
    return Boot(boot_id, lambda: time.clock_gettime(number))
