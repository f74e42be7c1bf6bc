"""The last warnings and errors of the log, for `relay status`."""

from __future__ import annotations

import logging
from collections import deque

from relay.monitor.log_format import HumanFormatter

MOST_LINES = 20
LONGEST_LINE = 500
"""Characters."""


class RecentLines(logging.Handler):
    """Keeps the last lines of the level `warning` or higher, as they are in the log, without tracebacks."""

    def __init__(self, *, addresses: bool) -> None:
        super().__init__(logging.WARNING)
        self.show_addresses(addresses)
        self._lines: deque[str] = deque(maxlen=MOST_LINES)

    def show_addresses(self, addresses: bool) -> None:
        """Decides whether the lines from now on have mail addresses."""
        self.setFormatter(HumanFormatter(addresses=addresses))

    @property
    def lines(self) -> list[str]:
        """The lines, oldest first."""
        return list(self._lines)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the first line of a record."""
        try:
            line = self.format(record).partition("\n")[0]
        except Exception:  # noqa: BLE001 - a log line with wrong arguments must not stop mail; the log reports it
            return
        self._lines.append(line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + "…")
