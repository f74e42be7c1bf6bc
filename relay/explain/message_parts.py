"""The parts of a message with their IMAP numbers: a summary of each, and the bytes that count only as a digest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from relay.explain.field_pairs import TOP
from relay.judge.mime.message import Leaf, Multipart
from relay.judge.mime.parameters import decode_parameters
from relay.judge.mime.transfer import decode_transfer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.explain.field_pairs import NumberedField
    from relay.judge.mime.message import Message, Part

_FILE_NAMES = frozenset(("filename", "name"))


class NumberedPart(NamedTuple):
    """A part, its number as IMAP counts (RFC 9051 section 6.4.5.1), and its depth in the tree, from 0."""

    number: str
    depth: int
    part: Part


@dataclass(frozen=True, slots=True)
class PartSummary:
    """The properties of one part. Sizes in bytes. A property that does not apply or cannot be read is empty or None."""

    number: str
    depth: int
    kind: str
    name: str
    disposition: str
    charset: str
    encoding: str
    size: int | None
    decoded_size: int | None


class PartIndex:
    """The parts of one message, by number."""

    def __init__(self, message: Message) -> None:
        self._message = message
        self._parts = {numbered.number: numbered.part for numbered in number_parts(message)}

    def source_of(self, field: NumberedField) -> bytes:
        """Returns the bytes that a field of the normalised form stands for; the field itself may hold their digest."""
        part = self._parts.get(field.part)
        match field.label, part:
            case "raw body" | "raw content", _:
                return self._message.raw
            case "bytes", Leaf():
                return decoded_bytes(part) or b""
            case "raw", Leaf():
                return part.body
            case "preamble (raw)", Multipart():
                return part.preamble
            case "epilogue (raw)", Multipart():
                return part.epilogue
            case _:
                return field.value

    def kind(self, number: str) -> str:
        """Returns the media type of a part, or an empty text if there is no such part."""
        return self._parts[number].media.kind if number in self._parts else ""

    def describe(self, number: str) -> str:
        """Returns a short description, such as `application/pdf "report.pdf", 128 bytes`."""
        part = self._parts[number]
        name = file_name(part)
        size = f", {len(part.body):,} bytes" if isinstance(part, Leaf) else ""
        return part.media.kind + (f' "{name}"' if name else "") + size


def number_parts(message: Message) -> Iterator[NumberedPart]:
    """Yields all parts in order; none if the message is broken."""
    if message.root is not None:
        yield from _number_tree(message.root, "" if isinstance(message.root, Leaf) else TOP, 0)


def summarise_parts(message: Message) -> Iterator[PartSummary]:
    """Yields a summary of each part, in order."""
    for number, depth, part in number_parts(message):
        disposition = part.disposition.kind if part.disposition else ""
        charset, encoding, size, decoded_size = "", "", None, None
        if isinstance(part, Leaf):
            decoded = decoded_bytes(part)
            charset, encoding, size = readable(part.media.get("charset") or b""), part.encoding, len(part.body)
            decoded_size = None if decoded is None else len(decoded)
        yield PartSummary(
            number, depth, part.media.kind, file_name(part), disposition, charset, encoding, size, decoded_size
        )


def decoded_bytes(leaf: Leaf) -> bytes | None:
    """Returns the body without its transfer encoding, or None if it cannot be decoded."""
    return decode_transfer(leaf.body, leaf.encoding)


def file_name(part: Part) -> str:
    """Returns the name under which a reader would save the part, as far as it can be read."""
    parameters = (*(part.disposition.parameters if part.disposition else ()), *part.media.parameters)
    names = [value for name, value in decode_parameters(parameters) if name.partition(" ")[0] in _FILE_NAMES]
    return readable(names[0]) if names else ""


def readable(octets: bytes) -> str:
    r"""Returns the bytes as UTF-8 text, with `\xNN` for each byte that is not UTF-8."""
    return octets.decode("utf-8", "backslashreplace")


def _number_tree(part: Part, number: str, depth: int) -> Iterator[NumberedPart]:
    yield NumberedPart(number or "1", depth, part)
    if not isinstance(part, Leaf):
        prefix = "" if number == TOP else f"{number}."
        for count, child in enumerate(part.children, start=1):
            yield from _number_tree(child, f"{prefix}{count}", depth + 1)
