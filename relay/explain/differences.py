"""The differences of two messages that count, as data for people: the part, what differs in it, and how."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from relay.explain.edits import Edit, common_prefix_length, find_edits
from relay.explain.field_pairs import TOP, FieldPair, NumberedField
from relay.explain.message_parts import PartIndex, readable
from relay.explain.text_location import describe_location

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from relay.judge.mime.message import Message

_MEANINGS = {"raw": "the source", "bytes": "the content", "part": "the type", "parts": "the type"}
_PART_LABELS = frozenset(("part", "parts"))
_END = "end of parts"
_SHOWN_OCTETS = 8
_SAMPLE = 4096
"""Bytes that decide whether content is text."""
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_CONTROL_SHARE = 0.05
"""The largest share of the sample that may be controls or no UTF-8 in a text."""


@dataclass(frozen=True, slots=True)
class CountedDifference:
    """A difference that counts: the number of the part (empty: the header section), its type, and what differs in it.

    Three forms: `only` names the one message that has it ("first" or "second"); or `edits` turn one into the other,
    and `more` is whether there are further edits; or `first` and `second` hold both values.
    """

    part: str
    kind: str
    what: str
    only: str = ""
    first: str | None = None
    second: str | None = None
    edits: tuple[Edit, ...] = ()
    more: bool = False
    hint: str = ""
    """What readers cannot see: the names of characters, or that only one of the two could be decoded."""


def location_of(difference: CountedDifference) -> str:
    """Returns the place of a difference, such as `a link in part 2 (text/html)`."""
    if not difference.part:
        return difference.what
    kind = f" ({difference.kind})" if difference.kind else ""
    part = f"the message{kind}" if difference.part == TOP else f"part {difference.part}{kind}"
    if not difference.what:
        return part
    return f"{difference.what} {'of' if difference.what in _MEANINGS.values() else 'in'} {part}"


def find_differences(
    pairs: Sequence[FieldPair], first: Message, second: Message, *, limit: int
) -> Iterator[CountedDifference]:
    """Yields the differences behind pairs of fields of two messages, with at most `limit` edits of each text."""
    indexes = PartIndex(first), PartIndex(second)
    for (only, part), group in groupby(pairs, key=_owner):
        found = [pair for pair in group if all(field.label != _END for field in pair if field)]
        index = indexes[only == "second"]
        if only and any(field.label in _PART_LABELS for pair in found for field in pair if field):
            yield _one_sided(part, "", "", only, index.describe(part))
            continue
        for ours, theirs in found:
            if ours and theirs:
                yield from _compare(ours, theirs, indexes, limit)
            elif field := ours or theirs:
                what = _MEANINGS.get(field.label, field.label)
                yield _one_sided(part, index.kind(part), what, only, readable(field.value))


def _owner(pair: FieldPair) -> tuple[str, str]:
    """Returns which of the two alone has the field, and the number of its part; or empty texts if both have it."""
    first, second = pair
    if first and second:
        return "", ""
    return ("first", first.part) if first else ("second", second.part if second else "")


def _one_sided(part: str, kind: str, what: str, only: str, value: str) -> CountedDifference:
    if only == "first":
        return CountedDifference(part, kind, what, only, first=value)
    return CountedDifference(part, kind, what, only, second=value)


def _compare(
    first: NumberedField, second: NumberedField, indexes: tuple[PartIndex, PartIndex], limit: int
) -> Iterator[CountedDifference]:
    what, kind = _MEANINGS.get(first.label, first.label), indexes[0].kind(first.part)
    labels = (
        "" if first.label == second.label else f"counts as {first.label} in the first, as {second.label} in the second"
    )
    ours, theirs = indexes[0].source_of(first), indexes[1].source_of(second)
    by_location: list[tuple[str, tuple[Edit, ...]]] = []
    if _is_text(ours, first) and _is_text(theirs, second):
        text = _as_text(ours, first)
        edits, more = find_edits(text, _as_text(theirs, second), limit=limit)
        is_text = first.label == "text"
        grouped = groupby(edits, key=lambda edit: describe_location(text, edit.at) if is_text else what)
        by_location = [(location, tuple(group)) for location, group in grouped]
        for number, (location, group) in enumerate(by_location, start=1):
            has_more = more and number == len(by_location)
            hint = labels or _name_characters(group[0])
            yield CountedDifference(first.part, kind, location, edits=group, more=has_more, hint=hint)
    if not by_location:  # no text; or the same bytes, read in two ways; or bytes that look the same
        values = [first.label, second.label] if ours == theirs else _first_different_octets(ours, theirs)
        yield CountedDifference(first.part, kind, what, first=values[0], second=values[1], hint=labels)


def _is_text(content: bytes, field: NumberedField) -> bool:
    """Guesses whether people can read the content. A NUL that stands for an ignored piece is no control."""
    if content is field.value:
        content = content.replace(b"\0", b"")
    sample = content[:_SAMPLE]
    unreadable = len(_CONTROL.findall(sample)) + sample.decode("utf-8", "replace").count("\ufffd")
    return unreadable <= len(sample) * _CONTROL_SHARE


def _as_text(content: bytes, field: NumberedField) -> str:
    """Returns the content as text. A NUL of a normalised form stays: it stands for an ignored piece."""
    text = readable(content)
    return text if content is field.value else text.replace("\0", "\\x00")


def _first_different_octets(first: bytes, second: bytes) -> list[str]:
    at = common_prefix_length(first, second)
    return [
        f"{len(content):,} bytes, from offset {at:,}: {content[at : at + _SHOWN_OCTETS].hex(' ') or 'nothing'}"
        for content in (first, second)
    ]


def _name_characters(edit: Edit) -> str:
    """Names the two characters of an edit if one looks like another one or cannot be seen; else returns no text."""
    start = common_prefix_length(edit.first, edit.second)
    ours, theirs = edit.first[start:], edit.second[start:]
    stop = common_prefix_length(ours[::-1], theirs[::-1])
    ours, theirs = ours[: len(ours) - stop], theirs[: len(theirs) - stop]
    if max(len(ours), len(theirs)) > 1 or ours.isascii() == theirs.isascii():
        return ""
    return f"{_character_name(ours)} → {_character_name(theirs)}"


def _character_name(char: str) -> str:
    return f"U+{ord(char):04X} {unicodedata.name(char, 'without a name')}" if char else "nothing"
