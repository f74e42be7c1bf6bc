"""Where two texts differ, word by word, for people to read. Bounded in time for any two texts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import islice
from typing import TYPE_CHECKING, AnyStr, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from difflib import Match

_WORD_LIMIT = 64
_WORD = re.compile(rf"\w{{1,{_WORD_LIMIT}}}|\s+|[^\w\s]")
_WINDOW = 400
"""Words compared at once: matching them takes quadratic time."""
_ANCHOR = 3
"""Words in a row that have to be equal before the rest is looked at anew from there."""
_BRIDGE = 2
"""Characters between two edits that are read as one, unless white space is among them."""
_AROUND = 60


@dataclass(frozen=True, slots=True)
class Edit:
    """What stands in the place of what, with the text before and behind it; `at` and `other_at` are offsets."""

    at: int
    other_at: int
    before: str
    first: str
    second: str
    after: str


class Edits(NamedTuple):
    """From left to right; `more` says that there are further ones."""

    found: tuple[Edit, ...]
    more: bool


class _Point(NamedTuple):
    """An offset in each of the two."""

    first: int
    second: int

    def moved(self, by: int) -> _Point:
        return _Point(self.first + by, self.second + by)


class _Span(NamedTuple):
    start: int
    stop: int
    other_start: int
    other_stop: int


def edits(first: str, second: str, *, most: int) -> Edits:
    """Give at most `most` edits that lead from one text to the other."""
    spans: list[_Span] = []
    at = _agree(first, second, _Point(0, 0), _Point(len(first), len(second)))
    end = _common_end(first, second, at)
    while at != end and len(spans) <= most:
        found, at = _window(first, second, at, end)
        spans += found
        at = _agree(first, second, at, end)
    spans = list(_joined(spans, first))
    return Edits(tuple(_edit(span, first, second) for span in spans[:most]), len(spans) > most)


def _agree(first: str, second: str, at: _Point, end: _Point) -> _Point:
    """Go on while both are the same, and back to the begin of a word; to the end where nothing else follows."""
    agreed = _common(first, second, at, min(end.first - at.first, end.second - at.second))
    at = at.moved(agreed)
    if at == end:
        return at
    back = 0
    while back < min(*at, _WORD_LIMIT) and first[at.first - back - 1].isalnum():
        back += 1
    return at.moved(-back)


def _common_end(first: str, second: str, at: _Point) -> _Point:
    """Give where the common end of both begins, at the begin of a word."""
    size = min(len(first) - at.first, len(second) - at.second)
    agreed = _common(first[::-1], second[::-1], _Point(0, 0), size)
    for _ in range(_WORD_LIMIT):
        if not agreed or not first[-agreed].isalnum():
            break
        agreed -= 1
    return _Point(len(first), len(second)).moved(-agreed)


def same(first: AnyStr, second: AnyStr) -> int:
    """Give the length of what both begin with."""
    return _common(first, second, _Point(0, 0), min(len(first), len(second)))


def _common(first: AnyStr, second: AnyStr, at: _Point, size: int) -> int:
    """Give how many of `size` characters are the same from there on. By slices, which compare quickly."""
    agreed, step = 0, 64
    while agreed < size and step:
        step = min(step, size - agreed)
        begin = at.second + agreed
        if first.startswith(second[begin : begin + step], at.first + agreed):
            agreed += step
            step *= 2
        else:
            step //= 2
    return agreed


def _window(first: str, second: str, at: _Point, end: _Point) -> tuple[list[_Span], _Point]:
    """Compare the words that follow. Gives what differs, and where to go on."""
    ours, ends = _words(first, at.first, end.first)
    theirs, other_ends = _words(second, at.second, end.second)
    blocks = SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks()
    if (ends[-1], other_ends[-1]) != end:
        anchors = [number for number, block in enumerate(blocks) if block.size >= _ANCHOR]
        if not anchors:
            # Nothing in common for a while: what is left is one difference.
            return [_Span(at.first, end.first, at.second, end.second)], end
        blocks = blocks[: anchors[-1] + 1]
    last = blocks[-1]
    return list(_between(blocks, ends, other_ends)), _Point(ends[last.a], other_ends[last.b])


def _words(text: str, start: int, end: int) -> tuple[list[str], list[int]]:
    """Give the next words, and where each begins; behind them where the last one ends."""
    found = list(islice(_WORD.finditer(text, start, end), _WINDOW))
    return [word[0] for word in found], [start, *(word.end() for word in found)]


def _between(blocks: Sequence[Match], ends: Sequence[int], other_ends: Sequence[int]) -> Iterator[_Span]:
    """Give what lies before and between blocks of equal words."""
    word = other_word = 0
    for block in blocks:
        if (word, other_word) != (block.a, block.b):
            yield _Span(ends[word], ends[block.a], other_ends[other_word], other_ends[block.b])
        word, other_word = block.a + block.size, block.b + block.size


def _joined(spans: Sequence[_Span], first: str) -> Iterator[_Span]:
    held: _Span | None = None
    for span in spans:
        if held is None:
            held = span
            continue
        bridge = first[held.stop : span.start]
        if len(bridge) <= _BRIDGE and not any(map(str.isspace, bridge)):
            held = _Span(held.start, span.stop, held.other_start, span.other_stop)
        else:
            yield held
            held = span
    if held:
        yield held


def _edit(span: _Span, first: str, second: str) -> Edit:
    begin, behind = max(0, span.start - _AROUND), span.stop + _AROUND
    return Edit(
        span.start,
        span.other_start,
        ("…" if begin else "") + first[begin : span.start],
        first[span.start : span.stop],
        second[span.other_start : span.other_stop],
        first[span.stop : behind] + ("…" if behind < len(first) else ""),
    )
