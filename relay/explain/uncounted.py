"""How two messages differ where it does not count: what stands in the files, but not in the normalised form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from relay.explain.tree import Node, nodes, octets
from relay.judge.mime.headers import field_values, unfold
from relay.judge.mime.message import Leaf
from relay.judge.text.decode import decode_text, fold_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from relay.judge.mime.headers import Fields
    from relay.judge.mime.message import Message, Part

_READ_DECODED = frozenset(("subject", "from", "reply-to", "list-id", "mime-version"))
# Taken apart with their part.
_OF_PARTS = ("content-type", "content-disposition")
_SPELLING = "spelling"


@dataclass(frozen=True, slots=True)
class Uncounted:
    """A difference that does not count: where, what, and the two values; None where one has no such thing."""

    part: str
    what: str
    first: str | None
    second: str | None


def uncounted(first: Message, second: Message, counted: Collection[tuple[str, str]]) -> Iterator[Uncounted]:
    """Give them in order. `counted` are part number and label, in lower case, of what differs and does count."""
    yield from _in_header_section(first.fields, second.fields, {label for part, label in counted if not part})
    ours, theirs = list(nodes(first)), list(nodes(second))
    if [_shape(node) for node in ours] != [_shape(node) for node in theirs]:
        return
    for one, other in zip(ours, theirs, strict=True):
        labels = {label for part, label in counted if part == one.number}
        yield from (replace(found, part=one.number) for found in _in_part(one.part, other.part, labels))


def _shape(node: Node) -> tuple[str, str]:
    return node.number, node.part.media.kind


def _in_header_section(first: Fields, second: Fields, counted: Collection[str]) -> Iterator[Uncounted]:
    names = [name for name, _ in first], [name for name, _ in second]
    for name in dict.fromkeys(names[0] + names[1]):
        if name.startswith("content-") or name in counted or f"{name} (raw)" in counted:
            continue
        ours, theirs = _joined(first, name), _joined(second, name)
        if ours != theirs:
            shown = _title(name)
            yield Uncounted("", f"{_SPELLING} of {shown}" if name in _READ_DECODED else shown, ours, theirs)
    if names[0] != names[1] and sorted(names[0]) == sorted(names[1]):
        yield Uncounted("", "order of the header fields", None, None)


def _in_part(first: Part, second: Part, counted: Collection[str]) -> Iterator[Uncounted]:
    found = [_parameter(first, second, "boundary"), _parameter(first, second, "charset")]
    yield from filter(None, found)
    for name in _OF_PARTS:
        ours, theirs = _joined(first.fields, name), _joined(second.fields, name)
        if ours != theirs and not any(found) and not _touched(counted):
            yield Uncounted("", f"{_SPELLING} of {_title(name)}", ours, theirs)
    ours, theirs = _joined(first.fields, "content-id"), _joined(second.fields, "content-id")
    if ours != theirs and "field content-id" not in counted:
        yield Uncounted("", "Content-ID", ours, theirs)
    if not isinstance(first, Leaf) or not isinstance(second, Leaf):
        return
    if first.encoding != second.encoding:
        yield Uncounted("", "transfer encoding", first.encoding, second.encoding)
    elif first.body != second.body and octets(first) == octets(second) and not _touched(counted):
        yield Uncounted("", f"{_SPELLING} in {first.encoding}", None, None)
    if not _touched(counted) and _written_differently(first, second):
        yield Uncounted("", "white space, line ends or Unicode form", None, None)


def _touched(counted: Collection[str]) -> bool:
    """Say whether a difference in a part's content or type counts."""
    return any(
        label in {"part", "parts", "text", "bytes", "raw", "disposition"} or label.startswith("parameter ")
        for label in counted
    )


def _parameter(first: Part, second: Part, name: str) -> Uncounted | None:
    ours, theirs = first.media.get(name), second.media.get(name)
    return None if ours == theirs else Uncounted("", name, _text(ours), _text(theirs))


def _written_differently(first: Leaf, second: Leaf) -> bool:
    """Say whether two texts that read the same are not the same characters."""
    ours, theirs = _decoded(first), _decoded(second)
    if ours is None or theirs is None or ours == theirs:
        return False
    return fold_text(ours) == fold_text(theirs)


def _decoded(leaf: Leaf) -> str | None:
    content = octets(leaf)
    charset = (leaf.media.get("charset") or b"us-ascii").decode("ascii", "replace").lower()
    return decode_text(content, charset) if content is not None and leaf.media.kind.startswith("text/") else None


def _joined(fields: Fields, name: str) -> str | None:
    found = field_values(fields, name)
    return "\n".join(_text(unfold(value).strip()) or "" for value in found) if found else None


def _text(octets_: bytes | None) -> str | None:
    return None if octets_ is None else octets_.decode("utf-8", "backslashreplace")


def _title(name: str) -> str:
    """Write a field's name as one knows it."""
    special = {"message-id": "Message-ID", "mime-version": "MIME-Version", "list-id": "List-Id"}
    if name in special:
        return special[name]
    if name.startswith(("dkim-", "arc-")):
        first, _, rest = name.partition("-")
        return f"{first.upper()}-{rest.title()}"
    return name.title()
