"""Decodes a message. All of its normal forms are made from the result."""

from __future__ import annotations

import binascii
import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from relay.judge.fingerprint.header import Field, counted_fields
from relay.judge.html.style_sheet import may_hold_link, shows_white_space, split_style
from relay.judge.mime.content_ids import ordinals_of
from relay.judge.mime.message import Leaf
from relay.judge.mime.transfer import decode_chunks
from relay.judge.text.decode import TEXT_LIMIT, UNICODE, decode_text, read_html, read_lines, read_plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from relay.judge.mime.message import Message, Part

STYLE_SHEET = "style sheet"
_CACHED_BODIES = 16
_SMALL_MESSAGE = 1 << 16
"""Bytes. A decoded body takes a few times the memory of its message."""
_SMALL_LEAF_COUNT = 50
"""Each leaf takes a kilobyte, however short it is."""


class LeafContent(NamedTuple):
    """The decoded content of a leaf."""

    fields: tuple[Field, ...]
    """What counts of it."""
    octets: bytes
    """The decoded octets, at most `TEXT_LIMIT` + 1 of them."""
    text: bytes | None = None
    """The folded text; None if the leaf is not a text that could be read."""
    style: bytes = b""
    """The style sheet that was taken out of the text."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodedBody:
    """What is below the header section, decoded. Of a broken message it has the texts only.

    Small bodies are cached by their leaves, so equal leaves give the same object, with what was computed from it. A
    twin, and the next fifty recipients of a bulk mail, differ in Date, Message-ID and boundary only.
    """

    leaves: tuple[Leaf, ...]
    contents: tuple[LeafContent, ...]
    """In the order of the leaves."""
    texts: tuple[bytes, ...]
    """The texts in which rules look for links, decoded as far as possible."""
    ordinals: Mapping[bytes, int] = field(default_factory=dict)
    """The Content-IDs that may only identify a leaf, with the leaf's ordinal."""
    results: dict[object, Any] = field(default_factory=dict)
    """What was computed from the body alone, by what it was computed with, such as the `Ignores`."""


@dataclass(frozen=True, slots=True)
class DecodedMessage:
    """A message, what counts of its header section and its reverse-path, and its decoded body."""

    message: Message
    header: tuple[Field, ...]
    body: DecodedBody


def decode_message(message: Message, reverse_path: bytes, received_at: float | None = None) -> DecodedMessage:
    """Decodes a message. `received_at` is in seconds since the Unix epoch; None if it is unknown."""
    header = counted_fields(message.fields, reverse_path, received_at)
    if message.root is None:
        return DecodedMessage(message, header, DecodedBody((), (), _guessed_texts(message.raw)))
    leaves = tuple(_leaves(message.root))
    is_small = message.size <= _SMALL_MESSAGE and len(leaves) <= _SMALL_LEAF_COUNT
    return DecodedMessage(message, header, (_decode_small_body if is_small else _decode_body)(leaves))


def _decode_body(leaves: tuple[Leaf, ...]) -> DecodedBody:
    contents = tuple(map(_decode_leaf, leaves))
    texts = [
        content.octets[:TEXT_LIMIT] if content.text is None else content.text
        for leaf, content in zip(leaves, contents, strict=True)
        if leaf.media.kind.startswith("text/")
    ]
    texts += [content.style for content in contents if may_hold_link(content.style)]
    return DecodedBody(leaves, contents, tuple(texts), ordinals_of(leaves))


# Without this cache a twin or the next mail of a bulk takes 76 % longer for 50 recipients, 108 % for one (medians of
# `make bench` runs in pairs). Bodies never seen cost 3 % less without it.
_decode_small_body = lru_cache(_CACHED_BODIES)(_decode_body)


def length_and_digest(pieces: Iterable[bytes]) -> bytes:
    """Returns a short text that stands for octets: `3 bytes, blake2b bddd813c…`."""
    total = 0
    state = hashlib.blake2b(digest_size=32)
    for piece in pieces:
        total += len(piece)
        state.update(piece)
    return f"{total} bytes, blake2b {state.hexdigest()}".encode()


def _guessed_texts(raw: bytes) -> tuple[bytes, ...]:
    """Returns texts that a broken body may contain. A wrong guess is safe: rules that look for links exempt."""
    head = raw[:TEXT_LIMIT]
    return head, binascii.a2b_qp(head)


def _leaves(part: Part) -> Iterator[Leaf]:
    if isinstance(part, Leaf):
        yield part
    else:
        for child in part.children:
            yield from _leaves(child)


def _decode_leaf(leaf: Leaf) -> LeafContent:
    pieces = decode_chunks(leaf.body, leaf.encoding)
    kind = leaf.media.kind
    charset = leaf.media.get("charset")
    label = () if charset is None else (Field("charset", charset),)
    if pieces is None or kind.startswith("message/"):
        encoding = Field("transfer encoding", leaf.encoding.encode())
        return LeafContent((*label, encoding, Field("raw", length_and_digest([leaf.body]))), leaf.body)
    octets = pieces[0][: TEXT_LIMIT + 1] if len(pieces) == 1 else b"".join(_first_octets(pieces, TEXT_LIMIT + 1))
    if len(octets) <= TEXT_LIMIT and kind.startswith("text/") and _is_displayed(leaf):
        charset_name = "us-ascii" if charset is None else charset.decode("ascii", "replace").lower()
        text, style = _read_text(leaf, octets, charset_name)
        if text is not None:
            fields = (Field("text", text), Field(STYLE_SHEET, style)) if style else (Field("text", text),)
            return LeafContent(fields, octets, text, style)
    return LeafContent((*label, Field("bytes", length_and_digest(pieces))), octets)


def _read_text(leaf: Leaf, octets: bytes, charset: str) -> tuple[bytes | None, bytes]:
    """Returns the text as it is compared, or None if it is not certain, and the style sheet that was taken out."""
    if leaf.media.kind == "text/html":
        return _read_page(octets, charset)
    # RFC 3676: in flowed text a blank at the end of a line joins it to the next. The parameter may be in pieces
    # (RFC 2231).
    is_flowed = any(name.startswith("format") for name, _ in leaf.media.parameters)
    read = read_plain if leaf.media.kind == "text/plain" and not is_flowed else read_lines
    return read(octets, charset), b""


def _read_page(octets: bytes, charset: str) -> tuple[bytes | None, bytes]:
    """Returns the folded source, or None if it cannot be read, and the style sheet that was taken out of it."""
    if charset not in UNICODE:
        text = decode_text(octets, charset)
        if text is None:
            return None, b""
        octets, charset = text.encode(), "utf-8"
    page, style = split_style(octets)
    return (read_lines if shows_white_space(style) else read_html)(page, charset), style


def _first_octets(pieces: Iterable[bytes], length: int) -> Iterator[bytes]:
    for piece in pieces:
        yield piece[:length]
        length -= len(piece)
        if length <= 0:
            return


def _is_displayed(leaf: Leaf) -> bool:
    """Returns whether readers show the leaf as text, and agree on its charset."""
    attached = leaf.disposition is not None and leaf.disposition.kind == "attachment"
    return not attached and not leaf.media.has_extended("charset")
