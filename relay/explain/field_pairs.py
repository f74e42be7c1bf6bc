"""Pairs the fields of two normalised forms and returns the pairs that differ."""

from __future__ import annotations

from difflib import SequenceMatcher
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

    from relay.judge.fingerprint.normal_form import NormalForm

_T = TypeVar("_T")
_MATCHED_PRODUCT = 250_000
"""The largest product of two sequence lengths that is still matched; matching takes quadratic time."""
_CONTENTS = frozenset(("text", "bytes", "raw"))
_LEAF, _CONTAINER, _END = "part", "parts", "end of parts"
TOP = "-"
"""The number of the whole message if it is a container."""


class NumberedField(NamedTuple):
    """A field, and the number of its part as IMAP counts (RFC 9051 section 6.4.5.1): empty in the header section."""

    part: str
    label: str
    value: bytes


FieldPair: TypeAlias = tuple[NumberedField | None, NumberedField | None]
"""A field of the first form and one of the second; None if the form has no such field."""
_Group: TypeAlias = tuple[NumberedField, ...]
"""The consecutive fields of the header section, of a part, or of the end of a container."""
_GroupPair: TypeAlias = tuple[_Group | None, _Group | None]


def number_fields(form: NormalForm) -> Iterator[NumberedField]:
    """Yields the fields with the numbers of their parts."""
    counts: list[int] = []
    containers: list[str] = []
    part = ""
    for label, value in form.fields:
        if label in {_LEAF, _CONTAINER}:
            part = _next_number(counts, containers) or (TOP if label == _CONTAINER else "1")
            if label == _CONTAINER:
                counts.append(0)
                containers.append("" if part == TOP else part)
        elif label == _END and counts:
            counts.pop()
            part = containers.pop() or TOP
        yield NumberedField(part, label, value)


def _next_number(counts: list[int], containers: Sequence[str]) -> str:
    if not counts:
        return ""
    counts[-1] += 1
    return f"{containers[-1]}.{counts[-1]}" if containers[-1] else str(counts[-1])


def pair_different_fields(first: NormalForm, second: NormalForm) -> list[FieldPair]:
    """Returns the pairs of fields that differ, in order."""
    groups = _align(_groups(first), _groups(second), _group_content, _group_kind)
    return [
        pair
        for ours, theirs in _pair_retyped_parts(groups)
        for pair in _align(ours or (), theirs or (), _field_content, _field_kind)
    ]


def _groups(form: NormalForm) -> list[_Group]:
    return [tuple(fields) for _, fields in groupby(number_fields(form), key=lambda field: field.part)]


def _group_content(group: _Group) -> Hashable:
    return tuple(map(_field_content, group))


def _group_kind(group: _Group) -> Hashable:
    """Parts of one type may be paired."""
    return (bool(group[0].part), *(group[0][1:] if group[0].label in {_LEAF, _CONTAINER} else ()))


def _field_content(field: NumberedField) -> Hashable:
    return field.label, field.value


def _field_kind(field: NumberedField) -> Hashable:
    """A decoded field may be paired with one that could not be decoded."""
    return "content" if field.label in _CONTENTS else field.label.removesuffix(" (raw)")


def _pair_retyped_parts(pairs: Iterable[_GroupPair]) -> Iterator[_GroupPair]:
    """Pairs a removed part with an added one if only the type differs."""
    removed: _Group | None = None
    for ours, theirs in pairs:
        if removed and theirs and not ours and _number_and_content(removed) == _number_and_content(theirs):
            yield removed, theirs
            removed = None
            continue
        if removed:
            yield removed, None
        removed = ours if theirs is None else None
        if theirs:
            yield ours, theirs
    if removed:
        yield removed, None


def _number_and_content(group: _Group) -> Hashable:
    return group[0].part, _group_content(group[1:])


def _align(
    ours: Sequence[_T], theirs: Sequence[_T], content: Callable[[_T], Hashable], kind: Callable[[_T], Hashable]
) -> Iterator[tuple[_T | None, _T | None]]:
    """Yields the pairs that differ in content. If several items could be paired, those of one kind are."""
    keys, other_keys = [content(one) for one in ours], [content(one) for one in theirs]
    start = _common_prefix_length(keys, other_keys)
    ours, theirs, keys, other_keys = ours[start:], theirs[start:], keys[start:], other_keys[start:]
    stop = _common_prefix_length(keys[::-1], other_keys[::-1])
    keys, other_keys = keys[: len(keys) - stop], other_keys[: len(other_keys) - stop]
    ours, theirs = ours[: len(keys)], theirs[: len(other_keys)]
    if len(ours) * len(theirs) > _MATCHED_PRODUCT:
        for one, other in zip_longest(ours, theirs):
            if one is None or other is None or content(one) != content(other):
                yield one, other
        return
    for tag, start, stop, other_start, other_stop in _opcodes(keys, other_keys):
        if tag != "equal":
            yield from _pair_by_kind(ours[start:stop], theirs[other_start:other_stop], kind)


def _pair_by_kind(
    ours: Sequence[_T], theirs: Sequence[_T], kind: Callable[[_T], Hashable]
) -> Iterator[tuple[_T | None, _T | None]]:
    """Pairs items of which no two are equal."""
    for tag, start, stop, other_start, other_stop in _opcodes([*map(kind, ours)], [*map(kind, theirs)]):
        if tag == "equal":
            yield from zip(ours[start:stop], theirs[other_start:other_stop], strict=True)
        else:
            yield from ((one, None) for one in ours[start:stop])
            yield from ((None, one) for one in theirs[other_start:other_stop])


def _opcodes(keys: Sequence[Hashable], other_keys: Sequence[Hashable]) -> list[tuple[str, int, int, int, int]]:
    return SequenceMatcher(None, keys, other_keys, autojunk=False).get_opcodes()  # type: ignore[return-value]


def _common_prefix_length(keys: Sequence[Hashable], other_keys: Sequence[Hashable]) -> int:
    pairs = zip(keys, other_keys, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(keys), len(other_keys)))
