"""Where two normalised forms differ: the fields of one beside those of the other."""

from __future__ import annotations

from difflib import SequenceMatcher
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

    from relay.judge.fingerprint.normal_form import NormalForm

_T = TypeVar("_T")
_PRODUCT = 250_000
"""Parts (or fields) of one times those of the other that are still matched; it takes quadratic time."""
_CONTENTS = frozenset(("text", "bytes", "raw"))
_LEAF, _CONTAINER, _END = "part", "parts", "end of parts"
TOP = "-"
"""Stands for the whole message where that is a container."""


class PlacedField(NamedTuple):
    """A field, and the number of its part as IMAP counts (RFC 9051 section 6.4.5.1): empty in the header section."""

    part: str
    label: str
    value: bytes


Pair: TypeAlias = tuple[PlacedField | None, PlacedField | None]
"""A field of the first and one of the second; None where the other has no such field."""


def placed(form: NormalForm) -> Iterator[PlacedField]:
    """Give the fields with the numbers of their parts."""
    counts: list[int] = []
    path: list[str] = []
    part = ""
    for label, value in form.fields:
        if label in {_LEAF, _CONTAINER}:
            part = _number(counts, path) or (TOP if label == _CONTAINER else "1")
            if label == _CONTAINER:
                counts.append(0)
                path.append("" if part == TOP else part)
        elif label == _END and counts:
            counts.pop()
            part = path.pop() or TOP
        yield PlacedField(part, label, value)


def _number(counts: list[int], path: Sequence[str]) -> str:
    if not counts:
        return ""
    counts[-1] += 1
    return f"{path[-1]}.{counts[-1]}" if path[-1] else str(counts[-1])


def differing(first: NormalForm, second: NormalForm) -> list[Pair]:
    """Give the pairs of fields that differ, in order."""
    pairs: list[Pair] = []
    units = _aligned(_units(first), _units(second), _content, _kind)
    for ours, theirs in _retyped(units):
        fields = _aligned(ours or (), theirs or (), _content_of_field, _label)
        pairs += fields
    return pairs


_Unit: TypeAlias = tuple[PlacedField, ...]
"""Fields that stand together: of the header section, of a part, of the end of a container."""
_UnitPair: TypeAlias = tuple[_Unit | None, _Unit | None]


def _units(form: NormalForm) -> list[_Unit]:
    return [tuple(fields) for _, fields in groupby(placed(form), key=lambda field: field.part)]


def _content(unit: _Unit) -> Hashable:
    return tuple(map(_content_of_field, unit))


def _kind(unit: _Unit) -> Hashable:
    """Parts of one type stand for each other."""
    return (bool(unit[0].part), *(unit[0][1:] if unit[0].label in {_LEAF, _CONTAINER} else ()))


def _retyped(pairs: Iterable[_UnitPair]) -> Iterator[_UnitPair]:
    """Take two parts of which only the type differs for one."""
    held: _Unit | None = None
    for ours, theirs in pairs:
        if held and theirs and not ours and _in_place(held) == _in_place(theirs):
            yield held, theirs
            held = None
            continue
        if held:
            yield held, None
        held = ours if theirs is None else None
        if theirs:
            yield ours, theirs
    if held:
        yield held, None


def _in_place(unit: _Unit) -> Hashable:
    return unit[0].part, _content(unit[1:])


def _content_of_field(field: PlacedField) -> Hashable:
    return field.label, field.value


def _label(field: PlacedField) -> Hashable:
    """Pair what could be read in one with what could not in the other."""
    return "content" if field.label in _CONTENTS else field.label.removesuffix(" (raw)")


def _aligned(
    ours: Sequence[_T], theirs: Sequence[_T], content: Callable[[_T], Hashable], kind: Callable[[_T], Hashable]
) -> Iterator[tuple[_T | None, _T | None]]:
    """Give the pairs that differ in content. Where several could be paired, those of one kind are."""
    keys, other_keys = [content(one) for one in ours], [content(one) for one in theirs]
    start = _same_ahead(keys, other_keys)
    ours, theirs, keys, other_keys = ours[start:], theirs[start:], keys[start:], other_keys[start:]
    stop = _same_ahead(keys[::-1], other_keys[::-1])
    keys, other_keys = keys[: len(keys) - stop], other_keys[: len(other_keys) - stop]
    ours, theirs = ours[: len(keys)], theirs[: len(other_keys)]
    if len(ours) * len(theirs) > _PRODUCT:
        for one, other in zip_longest(ours, theirs):
            if one is None or other is None or content(one) != content(other):
                yield one, other
        return
    for tag, begin, end, other_begin, other_end in _opcodes(keys, other_keys):
        if tag != "equal":
            yield from _paired(ours[begin:end], theirs[other_begin:other_end], kind)


def _paired(
    ours: Sequence[_T], theirs: Sequence[_T], kind: Callable[[_T], Hashable]
) -> Iterator[tuple[_T | None, _T | None]]:
    """Nothing here is equal."""
    for tag, begin, end, other_begin, other_end in _opcodes([*map(kind, ours)], [*map(kind, theirs)]):
        if tag == "equal":
            yield from zip(ours[begin:end], theirs[other_begin:other_end], strict=True)
        else:
            yield from ((one, None) for one in ours[begin:end])
            yield from ((None, one) for one in theirs[other_begin:other_end])


def _opcodes(keys: Sequence[Hashable], other_keys: Sequence[Hashable]) -> list[tuple[str, int, int, int, int]]:
    return SequenceMatcher(None, keys, other_keys, autojunk=False).get_opcodes()  # type: ignore[return-value]


def _same_ahead(keys: Sequence[Hashable], other_keys: Sequence[Hashable]) -> int:
    pairs = zip(keys, other_keys, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(keys), len(other_keys)))
