"""The differences of two messages that do not count: what differs in the files, but not in the normalised form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from relay.explain.message_parts import NumberedPart, decoded_bytes, number_parts, readable
from relay.judge.mime.headers import decode_value, field_values, unfold, usual_spelling
from relay.judge.mime.message import Leaf
from relay.judge.text.decode import decode_text, fold_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from relay.judge.mime.headers import Fields
    from relay.judge.mime.message import Message, Part

_PART_FIELDS = ("content-type", "content-disposition")
"""Fields that are compared with their part."""
_CONTENT_LABELS = frozenset(("part", "parts", "text", "bytes", "raw", "disposition"))
_SPELLING = "spelling"


@dataclass(frozen=True, slots=True)
class UncountedDifference:
    """A difference that does not count: the number of the part, what differs, and both values.

    A value is None if the message has no such thing. Both are None if there is no value to show.
    """

    part: str
    what: str
    first: str | None
    second: str | None


def find_uncounted(
    first: Message, second: Message, counted: Collection[tuple[str, str]]
) -> Iterator[UncountedDifference]:
    """Yields the differences that do not count, in order.

    `counted` holds the part number and the lower-case label of each field that differs and counts.
    """
    yield from _in_header_section(first.fields, second.fields, {label for part, label in counted if not part})
    ours, theirs = list(number_parts(first)), list(number_parts(second))
    if [_number_and_kind(part) for part in ours] != [_number_and_kind(part) for part in theirs]:
        return
    for one, other in zip(ours, theirs, strict=True):
        labels = {label for part, label in counted if part == one.number}
        yield from (replace(found, part=one.number) for found in _in_part(one.part, other.part, labels))


def _number_and_kind(numbered: NumberedPart) -> tuple[str, str]:
    return numbered.number, numbered.part.media.kind


def _in_header_section(first: Fields, second: Fields, counted: Collection[str]) -> Iterator[UncountedDifference]:
    names, other_names = [name for name, _ in first], [name for name, _ in second]
    for name in dict.fromkeys(names + other_names):
        if name.startswith("content-") or name in counted or f"{name} (raw)" in counted:
            continue
        is_spelling = name == "mime-version" or _decoded_values(first, name) == _decoded_values(second, name)
        title = usual_spelling(name)
        yield from _in_field(first, second, name, f"{_SPELLING} of {title}" if is_spelling else title)
    if names != other_names and sorted(names) == sorted(other_names):
        yield UncountedDifference("", "order of the header fields", None, None)


def _in_part(first: Part, second: Part, counted: Collection[str]) -> Iterator[UncountedDifference]:
    content_counts = any(label in _CONTENT_LABELS or label.startswith("parameter ") for label in counted)
    parameters = [*_in_parameter(first, second, "boundary"), *_in_parameter(first, second, "charset")]
    yield from parameters
    if not parameters and not content_counts:
        for name in _PART_FIELDS:
            yield from _in_field(first.fields, second.fields, name, f"{_SPELLING} of {usual_spelling(name)}")
    if "field content-id" not in counted:
        yield from _in_field(first.fields, second.fields, "content-id", "Content-ID")
    if not isinstance(first, Leaf) or not isinstance(second, Leaf):
        return
    if first.encoding != second.encoding:
        yield UncountedDifference("", "transfer encoding", first.encoding, second.encoding)
    elif first.body != second.body and decoded_bytes(first) == decoded_bytes(second) and not content_counts:
        yield UncountedDifference("", f"{_SPELLING} in {first.encoding}", None, None)
    if not content_counts and _differ_before_folding(first, second):
        yield UncountedDifference("", "white space, line ends or Unicode form", None, None)


def _in_field(first: Fields, second: Fields, name: str, what: str) -> Iterator[UncountedDifference]:
    ours, theirs = _joined_values(first, name), _joined_values(second, name)
    if ours != theirs:
        yield UncountedDifference("", what, ours, theirs)


def _in_parameter(first: Part, second: Part, name: str) -> Iterator[UncountedDifference]:
    ours, theirs = first.media.get(name), second.media.get(name)
    if ours != theirs:
        shown = (None if value is None else readable(value) for value in (ours, theirs))
        yield UncountedDifference("", name, *shown)


def _differ_before_folding(first: Leaf, second: Leaf) -> bool:
    """Returns whether two texts that count as equal are not the same characters."""
    ours, theirs = _decoded_text(first), _decoded_text(second)
    if ours is None or theirs is None or ours == theirs:
        return False
    return fold_text(ours) == fold_text(theirs)


def _decoded_text(leaf: Leaf) -> str | None:
    content = decoded_bytes(leaf)
    charset = (leaf.media.get("charset") or b"us-ascii").decode("ascii", "replace").lower()
    return decode_text(content, charset) if content is not None and leaf.media.kind.startswith("text/") else None


def _joined_values(fields: Fields, name: str) -> str | None:
    found = field_values(fields, name)
    return "\n".join(readable(unfold(value).strip()) for value in found) if found else None


def _decoded_values(fields: Fields, name: str) -> list[bytes]:
    return [decode_value(raw, structured=name != "subject") or raw for raw in field_values(fields, name)]
