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
    """One boot of the host: its id, and a clock of the seconds since then, including sleep, which cannot be set."""

    id: str
    clock: Callable[[], float]


def this_boot() -> Boot:
    """Returns the current boot.

    If the system has no boot id, returns one for this process alone; then processes share only the wall clock.
    """
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        number = time.CLOCK_BOOTTIME
    except (OSError, AttributeError):
        return Boot(secrets.token_hex(8), time.monotonic)
    return Boot(boot_id, lambda: time.clock_gettime(number))
