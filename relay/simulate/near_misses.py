"""Near misses: two messages with one subject for one recipient that count as different because of one piece.

The piece is either what makes the messages different, or noise that an operator may want to ignore.
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

_LONGEST_GAP = 86400.0
"""Seconds between two messages that are still compared."""
_MOST_REMEMBERED = 20_000
"""Pairs of subject and recipient whose last message is remembered."""
_MOST_GROUPS = 1_000
_MOST_FIELDS = 4
"""Fields in which one piece may differ: it often occurs in both the plain text and the HTML."""
_LONGEST_PIECE = 120
"""Bytes that differ."""
_CONTEXT = 30
"""Bytes kept before and after the piece."""
_GROUP_CONTEXT = 16
"""Bytes before the piece that near misses of one group share."""
_DIGESTED = frozenset(("bytes", "raw", "raw body", "raw content", "preamble (raw)", "epilogue (raw)"))
_WORD = re.compile(rb"[\w\x80-\xff-]*")
_WORD_BEFORE = re.compile(rb"[\w\x80-\xff-]*\Z")


class OneDifference(NamedTuple):
    """The one piece in which two forms differ, the context of its first place, and the number of places."""

    label: str
    before: bytes
    first: bytes
    second: bytes
    after: bytes
    places: int


@dataclass(slots=True)
class NearMissGroup:
    """Near misses in one place. `number` is the newer message of the first pair; gaps are in seconds."""

    difference: OneDifference
    number: int
    pairs: int = 0
    shortest: float = float("inf")
    longest: float = 0.0


class _LastMessage(NamedTuple):
    """The last message for a subject and a recipient. `hashes` has one for each field of its form."""

    number: int
    at: float
    hashes: array[int]


class NearMisses:
    """Finds near misses, with bounded memory. `read_form` returns the form of an earlier message once more."""

    def __init__(self, read_form: Callable[[int], Form | None]) -> None:
        self.pairs = 0
        self.groups: dict[Hashable, NearMissGroup] = {}
        """The first 1,000 groups. Pairs of further groups are only counted."""
        self._read_form = read_form
        self._last: OrderedDict[int, _LastMessage] = OrderedDict()

    def add(self, number: int, at: float, form: Form, keys: Sequence[tuple[int, bool]]) -> None:
        """Compares a message with the last one of each key, and remembers it.

        A key is a hash of the subject and a recipient, with whether the message is new to the recipient. A repeat is
        not compared.
        """
        hashes = array("q", map(hash, form))
        earlier = [last for key, is_new in keys if is_new and (last := self._last.get(key))]
        for last in {last.number: last for last in earlier}.values():
            if at - last.at <= _LONGEST_GAP and 0 < _count_different(last.hashes, hashes) <= _MOST_FIELDS:
                self._compare(last, number, at - last.at, form)
        for key, _ in keys:
            self._last[key] = _LastMessage(number, at, hashes)
            self._last.move_to_end(key)
        while len(self._last) > _MOST_REMEMBERED:
            self._last.popitem(last=False)

    def _compare(self, last: _LastMessage, number: int, gap: float, form: Form) -> None:
        earlier = self._read_form(last.number)
        difference = find_one_difference(earlier, form) if earlier is not None else None
        if difference is None:
            return
        self.pairs += 1
        key = (difference.label, difference.before[-_GROUP_CONTEXT:])
        if key not in self.groups and len(self.groups) < _MOST_GROUPS:
            self.groups[key] = NearMissGroup(difference, number)
        if group := self.groups.get(key):
            group.pairs += 1
            group.shortest = min(group.shortest, gap)
            group.longest = max(group.longest, gap)


def find_one_difference(one: Form, other: Form) -> OneDifference | None:
    """Returns the one piece in which two forms differ, possibly in several places, or None."""
    if [field.label for field in one] != [field.label for field in other]:
        return None
    changed = [(a, b) for a, b in zip(one, other, strict=True) if a.value != b.value]
    # The value of these is a digest, in which no piece is different but everything.
    if not changed or any(a.label in _DIGESTED for a, _ in changed):
        return None
    return _find_other_word(changed) or (_find_other_piece(*changed[0]) if len(changed) == 1 else None)


def _find_other_word(changed: Sequence[tuple[Field, Field]]) -> OneDifference | None:
    """Returns the difference if replacing one word by another everywhere turns one form into the other."""
    one, other = changed[0]
    at = _common_prefix_length(one.value, other.value)
    words = _word_at(one.value, at), _word_at(other.value, at)
    if not words[0] or max(map(len, words)) > _LONGEST_PIECE:
        return None
    if any(a.value.replace(*words) != b.value for a, b in changed):
        return None
    start = at - len(_word_before(one.value, at))
    return _difference(one, start, words, sum(a.value.count(words[0]) for a, _ in changed))


def _find_other_piece(one: Field, other: Field) -> OneDifference | None:
    """Returns what is between the common beginning and the common end, unless it is too long."""
    start = _common_prefix_length(one.value, other.value)
    end = _common_prefix_length(one.value[start:][::-1], other.value[start:][::-1])
    pieces = one.value[start : len(one.value) - end], other.value[start : len(other.value) - end]
    return _difference(one, start, pieces, 1) if max(map(len, pieces)) <= _LONGEST_PIECE else None


def _count_different(one: array[int], other: array[int]) -> int:
    """Counts the fields that differ. Forms of different lengths differ in too many."""
    return sum(a != b for a, b in zip(one, other, strict=True)) if len(one) == len(other) else _MOST_FIELDS + 1


def _difference(field: Field, start: int, pieces: tuple[bytes, bytes], places: int) -> OneDifference:
    end = start + len(pieces[0])
    before, after = field.value[max(0, start - _CONTEXT) : start], field.value[end : end + _CONTEXT]
    return OneDifference(field.label, before, *pieces, after, places)


def _word_before(text: bytes, at: int) -> bytes:
    match = _WORD_BEFORE.search(text[max(0, at - _LONGEST_PIECE) : at])
    return match[0] if match else b""


def _word_at(text: bytes, at: int) -> bytes:
    match = _WORD.match(text, at)
    return _word_before(text, at) + (match[0] if match else b"")


def _common_prefix_length(one: bytes, other: bytes) -> int:
    """Returns the length of the common beginning. Bisection compares slices, which is fast."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
