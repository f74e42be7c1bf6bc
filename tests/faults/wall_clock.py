"""A relay's wall clock that can be set while it runs. Its monotonic clock goes on as it does."""

from __future__ import annotations

from pathlib import Path

_PRELOADED = Path(__file__).with_name("set_clock")


class WallClock:
    """`environment` is for the processes that go by it; `jump` sets it at once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.jump(0)
        self.environment = {"PYTHONPATH": str(_PRELOADED), "WALL_CLOCK_FILE": str(file)}

    def jump(self, seconds: int) -> None:
        """Set the clock so many seconds before or after the true time."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(self._file)
