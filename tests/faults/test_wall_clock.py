"""The clock-jump harness reaches every reading of the wall clock, in seconds and in nanoseconds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from faults.wall_clock import WallClock

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86400


def test_seconds_and_nanoseconds_jump_together(tmp_path: Path) -> None:
    clock = WallClock(tmp_path / "offset")
    clock.jump(DAY)
    code = "import time; print(time.time(), time.time_ns())"
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, env=os.environ | clock.environment, capture_output=True, text=True, check=True)
    seconds, nanoseconds = map(float, shown.stdout.split())
    assert abs(seconds - time.time() - DAY) < 60
    assert abs(nanoseconds / 1e9 - time.time() - DAY) < 60
