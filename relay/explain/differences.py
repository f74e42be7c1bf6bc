"""What counts and differs in two messages, as data for people: in which part, in what of it, and how."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from relay.explain.edits import Edit, edits, same
from relay.explain.evidence import Evidence, is_text, surroundings
from relay.explain.explanation import readable
from relay.explain.field_pairs import TOP, Pair, PlacedField

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from relay.judge.mime.message import Message

_MEANS = {"raw": "the source", "bytes": "the content", "part": "the type", "parts": "the type"}
_WHOLE = frozenset(("part", "parts"))
_END = "end of parts"
_OCTETS = 8


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference that counts: in which part (empty: the header section) of what type, and in what of it.

    Either `only` says which of the two has it, or `edits` lead from one to the other, or the values stand beside each
    other as `first` and `second`. `more` says that there are further edits.
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
    """What cannot be seen: names of characters, or how far each could be read."""


def place(difference: Difference) -> str:
    """Say where a difference stands."""
    if not difference.part:
        return difference.what
    kind = f" ({difference.kind})" if difference.kind else ""
    part = f"the message{kind}" if difference.part == TOP else f"part {difference.part}{kind}"
    if not difference.what:
        return part
    return f"{difference.what} {'of' if difference.what in _MEANS.values() else 'in'} {part}"


def differences(pairs: Sequence[Pair], first: Message, second: Message, *, most: int) -> Iterator[Difference]:
    """Say what differs in pairs of fields of two messages; at most `most` edits of each text."""
    evidence = Evidence(first), Evidence(second)
    for (only, part), group in groupby(pairs, key=_side):
        found = [pair for pair in group if all(field.label != _END for field in pair if field)]
        if only and any(field.label in _WHOLE for pair in found for field in pair if field):
            yield _one_sided(part, "", "", only, evidence[only == "second"].summary(part))
        else:
            for ours, theirs in found:
                if ours and theirs:
                    yield from _between(ours, theirs, evidence, most)
                elif field := ours or theirs:
                    kind = evidence[only == "second"].kind(part)
                    yield _one_sided(part, kind, _MEANS.get(field.label, field.label), only, readable(field.value))


def _side(pair: Pair) -> tuple[str, str]:
    """Tell which of the two has a field that the other has not, and its part."""
    first, second = pair
    if first and second:
        return "", ""
    return ("first", first.part) if first else ("second", second.part if second else "")


def _one_sided(part: str, kind: str, what: str, only: str, value: str) -> Difference:
    if only == "first":
        return Difference(part, kind, what, only, first=value)
    return Difference(part, kind, what, only, second=value)


def _between(
    first: PlacedField, second: PlacedField, evidence: tuple[Evidence, Evidence], most: int
) -> Iterator[Difference]:
    what, kind = _MEANS.get(first.label, first.label), evidence[0].kind(first.part)
    reading = (
        "" if first.label == second.label else f"counts as {first.label} in the first, as {second.label} in the second"
    )
    ours, theirs = evidence[0].octets(first), evidence[1].octets(second)
    if not _is_text(ours, first) or not _is_text(theirs, second):
        values = _octets(ours, theirs)
        yield Difference(first.part, kind, what, first=values[0], second=values[1], hint=reading)
        return
    text = _legible(ours, first)
    found = edits(text, _legible(theirs, second), most=most)
    places = groupby(found.found, key=lambda edit: surroundings(text, edit.at) if first.label == "text" else what)
    several = [(where, tuple(group)) for where, group in places]
    for where, group in several:
        more = found.more and group is several[-1][1]
        yield Difference(first.part, kind, where, edits=group, more=more, hint=reading or _hint(group[0]))
    if not several:  # the same octets, and yet they were read in two ways; or octets that look the same
        values = _octets(ours, theirs)
        yield Difference(first.part, kind, what, first=values[0], second=values[1], hint=reading)


def _is_text(content: bytes, field: PlacedField) -> bool:
    """Guess whether people can read it; what was left out of a normalised form makes it no less legible."""
    return is_text(content.replace(b"\0", b"") if content is field.value else content)


def _legible(content: bytes, field: PlacedField) -> str:
    """In a normalised form NUL stands for what was left out; in octets it is one."""
    text = readable(content)
    return text if content is field.value else text.replace("\0", "\\x00")


def _octets(first: bytes, second: bytes) -> tuple[str, str]:
    at = same(first, second)
    ours, theirs = (
        f"{len(content):,} bytes, from offset {at:,}: {content[at : at + _OCTETS].hex(' ') or 'nothing'}"
        for content in (first, second)
    )
    return ours, theirs


def _hint(edit: Edit) -> str:
    """Name a character that looks like another one, or like nothing."""
    start = same(edit.first, edit.second)
    ours, theirs = edit.first[start:], edit.second[start:]
    stop = same(ours[::-1], theirs[::-1])
    ours, theirs = ours[: len(ours) - stop], theirs[: len(theirs) - stop]
    if max(len(ours), len(theirs)) > 1 or ours.isascii() == theirs.isascii():
        return ""
    return f"{_character(ours)} → {_character(theirs)}"


def _character(char: str) -> str:
    return f"U+{ord(char):04X} {unicodedata.name(char, 'without a name')}" if char else "nothing"
