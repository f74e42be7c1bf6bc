"""The edits that turn one text into another, word by word, for people to read. Its time is bounded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import islice
from typing import TYPE_CHECKING, AnyStr, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from difflib import Match

_LONGEST_WORD = 64
_WORD = re.compile(rf"\w{{1,{_LONGEST_WORD}}}|\s+|[^\w\s]")
_WORDS_AT_ONCE = 400
"""Words that are matched in one step; matching takes quadratic time."""
_SYNCHRONISED = 3
"""Equal words in a row after which the next step may start."""
_LONGEST_BRIDGE = 2
"""Characters between two edits that are merged into one, unless white space is among them."""
_CONTEXT = 60
"""Characters shown before and after an edit."""


@dataclass(frozen=True, slots=True)
class Edit:
    """`first` becomes `second`. `at` and `other_at` are the offsets in the two texts; `before` and `after` the context.

    The context is that of the first text.
    """

    at: int
    other_at: int
    before: str
    first: str
    second: str
    after: str


class Edits(NamedTuple):
    """Edits from left to right. `more` is whether there are further ones."""

    edits: tuple[Edit, ...]
    more: bool


class _Offsets(NamedTuple):
    """An offset in each text."""

    first: int
    second: int

    def moved(self, by: int) -> _Offsets:
        return _Offsets(self.first + by, self.second + by)


class _Replacement(NamedTuple):
    """A range of the first text, and the range of the second text that replaces it."""

    start: int
    stop: int
    other_start: int
    other_stop: int


def find_edits(first: str, second: str, *, limit: int) -> Edits:
    """Returns the first `limit` edits that turn one text into the other."""
    replacements: list[_Replacement] = []
    at = _skip_equal(first, second, _Offsets(0, 0), _Offsets(len(first), len(second)))
    end = _start_of_common_end(first, second, at)
    while at != end and len(replacements) <= limit:
        found, at = _match_words(first, second, at, end)
        replacements += found
        at = _skip_equal(first, second, at, end)
    merged = list(_merge(replacements, first))
    return Edits(tuple(_edit(replacement, first, second) for replacement in merged[:limit]), len(merged) > limit)


def common_prefix_length(first: AnyStr, second: AnyStr) -> int:
    """Returns the length of the common beginning."""
    return _equal_length(first, second, _Offsets(0, 0), min(len(first), len(second)))


def _skip_equal(first: str, second: str, at: _Offsets, end: _Offsets) -> _Offsets:
    """Returns the beginning of the word in which the texts first differ, or `end` if they do not."""
    at = at.moved(_equal_length(first, second, at, min(end.first - at.first, end.second - at.second)))
    if at == end:
        return at
    back = 0
    while back < min(*at, _LONGEST_WORD) and first[at.first - back - 1].isalnum():
        back += 1
    return at.moved(-back)


def _start_of_common_end(first: str, second: str, at: _Offsets) -> _Offsets:
    """Returns where the common end of both texts starts, at the beginning of a word."""
    size = min(len(first) - at.first, len(second) - at.second)
    equal = _equal_length(first[::-1], second[::-1], _Offsets(0, 0), size)
    for _ in range(_LONGEST_WORD):
        if not equal or not first[-equal].isalnum():
            break
        equal -= 1
    return _Offsets(len(first), len(second)).moved(-equal)


def _equal_length(first: AnyStr, second: AnyStr, at: _Offsets, size: int) -> int:
    """Returns how many of the next `size` characters are equal. It compares slices, which is fast."""
    equal, step = 0, 64
    while equal < size and step:
        step = min(step, size - equal)
        start = at.second + equal
        if first.startswith(second[start : start + step], at.first + equal):
            equal += step
            step *= 2
        else:
            step //= 2
    return equal


def _match_words(first: str, second: str, at: _Offsets, end: _Offsets) -> tuple[list[_Replacement], _Offsets]:
    """Matches the next words. Returns what differs, and where to continue."""
    words, bounds = _next_words(first, at.first, end.first)
    other_words, other_bounds = _next_words(second, at.second, end.second)
    blocks = SequenceMatcher(None, words, other_words, autojunk=False).get_matching_blocks()
    if (bounds[-1], other_bounds[-1]) != end:
        synchronised = [number for number, block in enumerate(blocks) if block.size >= _SYNCHRONISED]
        if not synchronised:
            # The texts have nothing in common for a while: the rest is one edit.
            return [_Replacement(at.first, end.first, at.second, end.second)], end
        blocks = blocks[: synchronised[-1] + 1]
    last = blocks[-1]
    return list(_between_blocks(blocks, bounds, other_bounds)), _Offsets(bounds[last.a], other_bounds[last.b])


def _next_words(text: str, start: int, end: int) -> tuple[list[str], list[int]]:
    """Returns the next words, and the offsets where they start, followed by the offset where the last one ends."""
    found = list(islice(_WORD.finditer(text, start, end), _WORDS_AT_ONCE))
    return [word[0] for word in found], [start, *(word.end() for word in found)]


def _between_blocks(
    blocks: Sequence[Match], bounds: Sequence[int], other_bounds: Sequence[int]
) -> Iterator[_Replacement]:
    """Yields what is before and between the blocks of equal words."""
    word = other_word = 0
    for block in blocks:
        if (word, other_word) != (block.a, block.b):
            yield _Replacement(bounds[word], bounds[block.a], other_bounds[other_word], other_bounds[block.b])
        word, other_word = block.a + block.size, block.b + block.size


def _merge(replacements: Sequence[_Replacement], first: str) -> Iterator[_Replacement]:
    """Merges neighbours with only a short bridge between them."""
    current: _Replacement | None = None
    for following in replacements:
        if current is not None:
            bridge = first[current.stop : following.start]
            if len(bridge) <= _LONGEST_BRIDGE and not any(map(str.isspace, bridge)):
                current = _Replacement(current.start, following.stop, current.other_start, following.other_stop)
                continue
            yield current
        current = following
    if current:
        yield current


def _edit(replacement: _Replacement, first: str, second: str) -> Edit:
    start, stop, other_start, other_stop = replacement
    context_start, context_stop = max(0, start - _CONTEXT), stop + _CONTEXT
    return Edit(
        start,
        other_start,
        ("…" if context_start else "") + first[context_start:start],
        first[start:stop],
        second[other_start:other_stop],
        first[stop:context_stop] + ("…" if context_stop < len(first) else ""),
    )
