"""A relay's wall clock that a test can set while the relay runs. The monotonic clock is not affected."""

from __future__ import annotations

from pathlib import Path

_SITE_FOLDER = Path(__file__).with_name("set_clock")


class WallClock:
    """A wall clock for the processes that get `environment`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.jump(0)
        self.environment = {"PYTHONPATH": str(_SITE_FOLDER), "WALL_CLOCK_FILE": str(file)}

    def jump(self, seconds: int) -> None:
        """Sets the clock at once to so many seconds after the true time (before it, if negative)."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(self._file)
