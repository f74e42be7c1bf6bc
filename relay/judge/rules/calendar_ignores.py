"""Finds the values of iCalendar properties that do not count (RFC 5545 section 3.1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from relay.judge.rules.url_ignores import IgnoredSpan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from relay.judge.rules.ignore import Calendar
    from relay.judge.rules.url_ignores import ScanBudget

# A line that is not folded before the colon, with a value of any number of folded lines. Nothing backtracks.
_PROPERTY = (
    rb"(?:\A|(?<=\n))%b(?=[;:])(?>[^\x00-\x1f\x7f\":]*)(?>(?:\"[^\x00-\x1f\x7f\"]*\"[^\x00-\x1f\x7f\":]*)*):"
    rb"((?>[\t -~\x80-\xff]+)(?>(?:\r?\n[\t ][\t -~\x80-\xff]*)*))(?=\r?\n)"
)
# Other line ends (U+0085, U+2028, U+2029): for some readers the next property begins there.
_UNCLEAR = re.compile(rb"\x85|\xe2\x80[\xa8\xa9]")


class CalendarIgnores:
    """The ignores for properties. In doubt nothing is found."""

    def __init__(self, ignores: Sequence[Calendar]) -> None:
        self._properties = [
            (each.name, re.compile(_PROPERTY % re.escape(each.calendar.encode()), re.IGNORECASE)) for each in ignores
        ]

    def find(self, octets: bytes, budget: ScanBudget) -> Iterator[IgnoredSpan]:
        """Yields the values in a calendar whose lines end with CRLF or LF."""
        for name, pattern in self._properties:
            if budget.spend(len(octets)):
                for found in pattern.finditer(octets):
                    if not _UNCLEAR.search(found[1]):
                        yield IgnoredSpan(*found.span(1), name)
