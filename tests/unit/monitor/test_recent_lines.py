"""The last warnings, as `relay status` shows them."""

from __future__ import annotations

import logging

from relay.monitor.recent_lines import LONGEST_LINE, MOST_LINES, RecentLines


def write(lines: RecentLines, level: int, text: str, *values: object, error: Exception | None = None) -> None:
    made = logging.LogRecord("test", level, "", 0, text, values, error and (type(error), error, None))
    if level >= lines.level:
        lines.handle(made)


def test_warnings_are_kept_within_bounds() -> None:
    recent = RecentLines(addresses=False)
    for number in range(MOST_LINES + 5):
        write(recent, logging.WARNING, "number %d", number)
    write(recent, logging.INFO, "not kept")
    write(recent, logging.ERROR, "%s", "x " * LONGEST_LINE)
    assert len(recent.lines) == MOST_LINES
    assert "number 6" in recent.lines[0]
    assert len(recent.lines[-1]) == LONGEST_LINE


def test_they_hold_neither_addresses_nor_tracebacks() -> None:
    recent = RecentLines(addresses=False)
    write(recent, logging.ERROR, "refused alice@example.org\nand more", error=ValueError("bob@example.org"))
    [line] = recent.lines
    assert "@example.org" not in line
    assert "ValueError" not in line


def test_a_line_with_wrong_arguments_is_left_out() -> None:
    recent = RecentLines(addresses=False)
    write(recent, logging.WARNING, "%d", "x")
    assert recent.lines == []
