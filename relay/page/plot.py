"""A plot of counts by outcome: stacked bars, as numbers that a template writes into SVG."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.page.text import OUTCOME_WORDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from relay.core.trace import TraceCounts, TraceOutcome

HEIGHT = 100
"""Units of the plot; the style sheet gives its size on the screen."""
BAR = 10
"""Units from one bar to the next."""
_NICE = (1, 2, 3, 4, 5, 6, 8)


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a bar."""

    outcome: TraceOutcome
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """An interval."""

    start: float
    end: float
    """Seconds since the Unix epoch."""
    x: int
    counts: Counter[TraceOutcome]
    segments: tuple[Segment, ...]

    @property
    def words(self) -> str:
        """The counts, in words."""
        return describe(self.counts)


@dataclass(frozen=True, slots=True)
class Plot:
    """All bars, and what the axes show."""

    bars: tuple[Bar, ...]
    top: int
    """The count at the upper edge."""
    start: float
    end: float
    totals: Counter[TraceOutcome]

    @property
    def width(self) -> int:
        """Units."""
        return len(self.bars) * BAR

    @property
    def words(self) -> str:
        """The totals, in words."""
        return describe(self.totals)


def start_of(now: float, bars: int, step: float) -> float:
    """Returns when the first bar begins, so that the last one contains `now`."""
    return now // step * step - (bars - 1) * step


def build_plot(found: Iterable[TraceCounts], start: float, bars: int, step: float) -> Plot:
    """Returns the plot of what a store has counted since `start`. Intervals outside of it are left out."""
    counts: list[Counter[TraceOutcome]] = [Counter() for _ in range(bars)]
    for each in found:
        number = int((each.start - start) // step)
        if 0 <= number < bars:
            counts[number].update(each.counts)
    top = nice_top(max(each.total() for each in counts))
    return Plot(
        bars=tuple(
            Bar(start + number * step, start + (number + 1) * step, number * BAR, each, _segments(each, top))
            for number, each in enumerate(counts)
        ),
        top=top,
        start=start,
        end=start + bars * step,
        totals=sum(counts, Counter()),
    )


def nice_top(most: int) -> int:
    """Returns the smallest round number, such as 1, 2, 30 or 500, that is not less than `most`."""
    unit = 1
    while True:
        for digit in _NICE:
            if digit * unit >= most:
                return digit * unit
        unit *= 10


def describe(counts: Counter[TraceOutcome]) -> str:
    """Returns counts in words, such as `12 forwarded, 3 suppressed`."""
    return (
        ", ".join(f"{counts[outcome]} {word}" for outcome, word in OUTCOME_WORDS.items() if counts[outcome]) or "none"
    )


def _segments(counts: Counter[TraceOutcome], top: int) -> tuple[Segment, ...]:
    segments, base = [], float(HEIGHT)
    for outcome in OUTCOME_WORDS:
        height = HEIGHT * counts[outcome] / top
        if height:
            base -= height
            segments.append(Segment(outcome, round(base, 2), round(height, 2)))
    return tuple(segments)
