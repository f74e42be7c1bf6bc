"""Near misses: two messages of one subject for one recipient that count as different for the sake of one place.

That place is either what must tell them apart, or noise that an operator may want to ignore.
"""

from __future__ import annotations

import re
from array import array
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from relay.judge.fingerprint.normal_form import Field

    Form = Sequence[Field]

REACH = 86400.0
"""Seconds between two messages that are still compared."""
_MOST_REMEMBERED = 20_000
"""Subjects with their recipients of which the last message is remembered."""
_MOST_KINDS = 1_000
_MOST_FIELDS = 4
"""Fields that the same piece may make different: it often stands in the plain text and in the HTML."""
_LONGEST_PIECE = 120
"""Bytes that differ."""
_CONTEXT = 30
_SAME_KIND = 16
"""Bytes before the difference that make two near misses one kind."""
_WORD = re.compile(rb"[\w\x80-\xff-]*")
_WORD_BEFORE = re.compile(rb"[\w\x80-\xff-]*\Z")


class OneDifference(NamedTuple):
    """The piece in which two forms differ, in how many places, and what stands around the first."""

    label: str
    before: bytes
    first: bytes
    second: bytes
    after: bytes
    places: int


@dataclass(slots=True)
class NearMissGroup:
    """Near misses in one place: how many, the newer message of the first pair, and the gaps in seconds."""

    difference: OneDifference
    number: int
    pairs: int = 0
    shortest: float = float("inf")
    longest: float = 0.0


class _Last(NamedTuple):
    """The last message of a subject and recipient. `outline` is a hash for each field of its form."""

    number: int
    at: float
    outline: array[int]


class NearMisses:
    """Finds them, with bounded memory. `reread` gives the form of an earlier message once more."""

    def __init__(self, reread: Callable[[int], Form | None]) -> None:
        self.pairs = 0
        self.kinds: dict[Hashable, NearMissGroup] = {}
        """The first 1,000 kinds; pairs of more are counted only."""
        self._reread = reread
        self._last: OrderedDict[int, _Last] = OrderedDict()

    def look(self, number: int, at: float, form: Form, keys: Sequence[tuple[int, bool]]) -> None:
        """Compare a message with the last one of each key, a hash of its subject and a recipient.

        A key comes with whether the message is new to the recipient; with a repeat nothing is to be compared.
        """
        outline = array("q", map(hash, form))
        earlier = [last for key, is_new in keys if is_new and (last := self._last.get(key))]
        for last in {last.number: last for last in earlier}.values():
            if at - last.at <= REACH and 0 < _changed(last.outline, outline) <= _MOST_FIELDS:
                self._compare(last, number, at - last.at, form)
        for key, _ in keys:
            self._last[key] = _Last(number, at, outline)
            self._last.move_to_end(key)
        while len(self._last) > _MOST_REMEMBERED:
            self._last.popitem(last=False)

    def _compare(self, last: _Last, number: int, gap: float, form: Form) -> None:
        earlier = self._reread(last.number)
        found = difference(earlier, form) if earlier is not None else None
        if found is None:
            return
        self.pairs += 1
        name = (found.label, found.before[-_SAME_KIND:])
        if name not in self.kinds and len(self.kinds) < _MOST_KINDS:
            self.kinds[name] = NearMissGroup(found, number)
        if kind := self.kinds.get(name):
            kind.pairs += 1
            kind.shortest = min(kind.shortest, gap)
            kind.longest = max(kind.longest, gap)


def difference(one: Form, other: Form) -> OneDifference | None:
    """Give the one piece in which two forms differ, or None. It may stand in several places."""
    if [field.label for field in one] != [field.label for field in other]:
        return None
    changed = [(a, b) for a, b in zip(one, other, strict=True) if a.value != b.value]
    if not changed:
        return None
    return _other_word(changed) or (_other_piece(*changed[0]) if len(changed) == 1 else None)


def _other_word(changed: Sequence[tuple[Field, Field]]) -> OneDifference | None:
    """See whether one word stands everywhere where another one stood."""
    one, other = changed[0]
    start = _same_until(one.value, other.value)
    begin = start - len(_word_before(one.value, start))
    words = _word_at(one.value, start), _word_at(other.value, start)
    if not words[0] or max(map(len, words)) > _LONGEST_PIECE:
        return None
    if any(a.value.replace(*words) != b.value for a, b in changed):
        return None
    return _difference(one, begin, words, sum(a.value.count(words[0]) for a, _ in changed))


def _other_piece(one: Field, other: Field) -> OneDifference | None:
    """Give what is left when all that both begin and end with is taken away."""
    start = _same_until(one.value, other.value)
    end = _same_until(one.value[start:][::-1], other.value[start:][::-1])
    pieces = one.value[start : len(one.value) - end], other.value[start : len(other.value) - end]
    return _difference(one, start, pieces, 1) if max(map(len, pieces)) <= _LONGEST_PIECE else None


def _changed(one: array[int], other: array[int]) -> int:
    """Count the fields that differ; forms of different length differ in more than one place."""
    return sum(a != b for a, b in zip(one, other, strict=True)) if len(one) == len(other) else _MOST_FIELDS + 1


def _difference(field: Field, start: int, pieces: tuple[bytes, bytes], places: int) -> OneDifference:
    end = start + len(pieces[0])
    before, after = field.value[max(0, start - _CONTEXT) : start], field.value[end : end + _CONTEXT]
    return OneDifference(field.label, before, *pieces, after, places)


def _word_before(text: bytes, at: int) -> bytes:
    found = _WORD_BEFORE.search(text[max(0, at - _LONGEST_PIECE) : at])
    return found[0] if found else b""


def _word_at(text: bytes, at: int) -> bytes:
    found = _WORD.match(text, at)
    return _word_before(text, at) + (found[0] if found else b"")


def _same_until(one: bytes, other: bytes) -> int:
    """Give the length of what both begin with. Halving compares slices, which is quick."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
