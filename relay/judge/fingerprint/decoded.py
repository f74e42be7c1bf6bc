"""A message decoded, before anything is left out: what all normalised forms of it share."""

from __future__ import annotations

import binascii
import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from relay.judge.html.style_sheet import may_hold_link, split_style
from relay.judge.mime.content_ids import ordinals_of
from relay.judge.mime.headers import decode_value, field_values, unfold
from relay.judge.mime.message import Leaf
from relay.judge.mime.transfer import decode_chunks
from relay.judge.text.decode import TEXT_LIMIT, UNICODE, decode_text, read_html, read_lines, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from relay.judge.mime.headers import Fields
    from relay.judge.mime.message import Message, Part

STYLE_SHEET = "style sheet"
REMEMBERED = 16
"""Small bodies."""
_SMALL = 1 << 16
"""Bytes of a message. What is made of its body is some times as large."""
_FEW = 50
"""Leaves. Each takes a kilobyte, however short it is."""
# By name of the header field: label, and whether it is structured (RFC 2047 section 5).
_COUNTED = {
    "subject": ("Subject", False),
    "from": ("From", True),
    "reply-to": ("Reply-To", True),
    "list-id": ("List-Id", True),
}


class Field(NamedTuple):
    """A thing that counts: what it is, and its value."""

    label: str
    value: bytes


class LeafContent(NamedTuple):
    """What is in a leaf: what counts of it, decoded octets, and for a text that could be read its folded form."""

    fields: tuple[Field, ...]
    octets: bytes
    """Of a long one the beginning, one octet more than `TEXT_LIMIT`."""
    text: bytes | None = None
    style: bytes = b""
    """The style sheet that was taken out of it."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodedBody:
    """What is below the header section, decoded; of a broken message only the texts.

    Of equal leaves that come soon after each other small bodies are one and the same, so what is made of one can be
    remembered: a twin, and the next fifty recipients of a bulk mail, have new Dates, Message-IDs and boundaries, and
    nothing else that is new.
    """

    leaves: tuple[Leaf, ...]
    contents: tuple[LeafContent, ...]
    """In the order of the leaves."""
    texts: tuple[bytes, ...]
    """Each as far decoded as it could be: in these rules look for links."""
    ordinals: Mapping[bytes, int] = field(default_factory=dict)
    """The Content-IDs that may say nothing but which leaf is meant, with its ordinal."""
    is_small: bool = False


@dataclass(frozen=True, slots=True)
class DecodedMessage:
    """A message and what is in it."""

    message: Message
    header: tuple[Field, ...]
    """What counts of the header section of the message."""
    body: DecodedBody

    def shown(self, label: str) -> list[bytes]:
        """Give the values of a header field that counts, as a reader sees them; raw where that is not certain."""
        raw = f"{label} (raw)"
        return [
            value if name == label else unfold(value).strip() for name, value in self.header if name in (label, raw)
        ]


def decode_message(message: Message, sender: bytes) -> DecodedMessage:
    """Decode a message; `sender` is its reverse-path, which stands for a missing From."""
    header = tuple(_header_fields(message.fields, sender))
    if message.root is None:
        return DecodedMessage(message, header, DecodedBody((), (), _lenient_texts(message.raw)))
    leaves = tuple(_leaves(message.root))
    is_small = message.size <= _SMALL and len(leaves) <= _FEW
    return DecodedMessage(message, header, (_small_body if is_small else _body)(leaves, is_small))


def _body(leaves: tuple[Leaf, ...], is_small: bool) -> DecodedBody:
    contents = tuple(map(_content, leaves))
    texts = [
        content.octets[:TEXT_LIMIT] if content.text is None else content.text
        for leaf, content in zip(leaves, contents, strict=True)
        if leaf.media.kind.startswith("text/")
    ]
    texts += [content.style for content in contents if may_hold_link(content.style)]
    return DecodedBody(leaves, contents, tuple(texts), ordinals_of(leaves), is_small)


_small_body = lru_cache(REMEMBERED)(_body)


def digest(pieces: Iterable[bytes]) -> bytes:
    """Name octets by their number and a digest."""
    total = 0
    state = hashlib.blake2b(digest_size=32)
    for piece in pieces:
        total += len(piece)
        state.update(piece)
    return f"{total} bytes, blake2b {state.hexdigest()}".encode()


def _header_fields(fields: Fields, sender: bytes) -> Iterator[Field]:
    counted = [field for field in fields if field[0] in _COUNTED]
    for name, (label, structured) in _COUNTED.items():
        raw_values = field_values(counted, name)
        for raw in raw_values:
            text = decode_value(raw, structured=structured)
            yield Field(f"{label} (raw)", raw) if text is None else Field(label, text)
        if name == "from" and not raw_values:
            yield Field("reverse-path", sender)


def _lenient_texts(raw: bytes) -> tuple[bytes, ...]:
    """Guess: a rule that exempts errs on the safe side."""
    head = raw[:TEXT_LIMIT]
    return head, binascii.a2b_qp(head)


def _leaves(part: Part) -> Iterator[Leaf]:
    if isinstance(part, Leaf):
        yield part
    else:
        for child in part.children:
            yield from _leaves(child)


def _content(leaf: Leaf) -> LeafContent:
    pieces = decode_chunks(leaf.body, leaf.encoding)
    kind = leaf.media.kind
    charset = leaf.media.get("charset")
    label = () if charset is None else (Field("charset", charset),)
    if pieces is None or kind.startswith("message/"):
        encoding = Field("transfer encoding", leaf.encoding.encode())
        return LeafContent((*label, encoding, Field("raw", digest([leaf.body]))), leaf.body)
    octets = pieces[0][: TEXT_LIMIT + 1] if len(pieces) == 1 else b"".join(_head(pieces, TEXT_LIMIT + 1))
    if len(octets) <= TEXT_LIMIT and kind.startswith("text/") and _is_shown(leaf):
        text, style = _read(kind, octets, "us-ascii" if charset is None else charset.decode("ascii", "replace").lower())
        if text is not None:
            fields = (Field("text", text), Field(STYLE_SHEET, style)) if style else (Field("text", text),)
            return LeafContent(fields, octets, text, style)
    return LeafContent((*label, Field("bytes", digest(pieces))), octets)


def _read(kind: str, octets: bytes, charset: str) -> tuple[bytes | None, bytes]:
    """Give the text in the form that is compared, and the style sheet that was taken out of it."""
    if kind != "text/html":
        return (read_text if kind == "text/plain" else read_lines)(octets, charset), b""
    if charset not in UNICODE:
        text = decode_text(octets, charset)
        if text is None:
            return None, b""
        octets, charset = text.encode(), "utf-8"
    page, style = split_style(octets)
    return read_html(page, charset), style


def _head(pieces: Iterable[bytes], length: int) -> Iterator[bytes]:
    """Give the first so many octets."""
    for piece in pieces:
        yield piece[:length]
        length -= len(piece)
        if length <= 0:
            return


def _is_shown(leaf: Leaf) -> bool:
    attached = leaf.disposition is not None and leaf.disposition.kind == "attachment"
    return not attached and not leaf.media.has_extended("charset")
