"""The parts of a message as a list with numbers, for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from relay.explain.field_pairs import TOP
from relay.judge.mime.message import Leaf
from relay.judge.mime.parameters import decode_parameters
from relay.judge.mime.transfer import decode_transfer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.judge.mime.message import Message, Part

_NAMES = frozenset(("filename", "name"))


class Node(NamedTuple):
    """A part, its number and how deep it stands."""

    number: str
    depth: int
    part: Part


@dataclass(frozen=True, slots=True)
class Row:
    """What one part is. Sizes in bytes; what does not apply or cannot be said is empty or None."""

    number: str
    depth: int
    kind: str
    name: str
    disposition: str
    charset: str
    encoding: str
    size: int | None
    decoded_size: int | None


def nodes(message: Message) -> Iterator[Node]:
    """Give all parts in order; none where the message is broken."""
    if message.root is not None:
        yield from _below(message.root, "" if isinstance(message.root, Leaf) else TOP, 0)


def octets(leaf: Leaf) -> bytes | None:
    """Give what a leaf holds once its transfer encoding is undone, or None."""
    return decode_transfer(leaf.body, leaf.encoding)


def rows(message: Message) -> Iterator[Row]:
    """Describe all parts."""
    for number, depth, part in nodes(message):
        disposition = part.disposition.kind if part.disposition else ""
        if isinstance(part, Leaf):
            decoded = octets(part)
            yield Row(
                number,
                depth,
                part.media.kind,
                file_name(part),
                disposition,
                (part.media.get("charset") or b"").decode("utf-8", "backslashreplace"),
                part.encoding,
                len(part.body),
                None if decoded is None else len(decoded),
            )
        else:
            yield Row(number, depth, part.media.kind, file_name(part), disposition, "", "", None, None)


def file_name(part: Part) -> str:
    """Give the name that a part would be saved under, as far as it can be read."""
    given = (*(part.disposition.parameters if part.disposition else ()), *part.media.parameters)
    found = [value for name, value in decode_parameters(given) if name.partition(" ")[0] in _NAMES]
    return found[0].decode("utf-8", "backslashreplace") if found else ""


def _below(part: Part, number: str, depth: int) -> Iterator[Node]:
    yield Node(number or "1", depth, part)
    if not isinstance(part, Leaf):
        prefix = "" if number == TOP else f"{number}."
        for count, child in enumerate(part.children, start=1):
            yield from _below(child, f"{prefix}{count}", depth + 1)
