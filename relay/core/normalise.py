"""The normalised form: what counts of a message, as ordered fields. They are hashed, and `relay explain` prints them.

Every body byte stands in a field or is knowingly left out; what could not be decoded for certain stands there raw.
"""

from __future__ import annotations

import binascii
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from relay.core.headers import decode_parameters, decode_value, unfold, values
from relay.core.html_noise import leave_out_noise, refers_to_ids
from relay.core.message import Leaf
from relay.core.text import TEXT_LIMIT, decode_text, fold_text
from relay.core.text_transfer import decode_transfer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from relay.core.headers import Fields, Parameters
    from relay.core.message import Message, Part

# Name of the header field, and whether it is structured (RFC 2047 section 5).
_COUNTED = (("Subject", False), ("From", True), ("Reply-To", True), ("List-Id", True))
# These say how a part is read, and the reading counts; or they change on every send.
_READ = frozenset(("content-type", "content-transfer-encoding", "content-disposition", "content-id"))
# The text that they lead to counts instead.
_LEADING = frozenset(("charset", "boundary"))


class Field(NamedTuple):
    """A thing that counts: what it is, and its value."""

    label: str
    value: bytes


@dataclass(frozen=True, slots=True)
class NormalForm:
    """What counts of a message, in order."""

    fields: tuple[Field, ...]
    texts: tuple[bytes, ...]
    """Its texts, each as far decoded as it could be, in which rules look for links. Not hashed."""
    broken: str = ""
    """Why the raw bytes count, or empty."""


class _Content(NamedTuple):
    """What is in a leaf: decoded octets, and for a text that could be read its folded form."""

    fields: tuple[Field, ...]
    octets: bytes
    text: bytes | None = None


def normalise(message: Message, *, sender: bytes) -> NormalForm:
    """Give what counts of a message; `sender` is its reverse-path, which stands in for a missing From field."""
    fields = list(_header_fields(message.fields, sender))
    if message.root is None:
        fields += _raw_fields(message)
        return NormalForm(tuple(fields), _lenient_texts(message.raw), message.broken)
    leaves = list(_leaves(message.root))
    contents = [_read(leaf) for leaf in leaves]
    ordinals, contents = _without_noise(leaves, contents, {} if _names_start(message.root) else _ordinals(leaves))
    fields += _mime_version(message.fields)
    fields += _part_fields(message.root, iter(contents), ordinals, top=True)
    texts = (
        content.octets[:TEXT_LIMIT] if content.text is None else content.text
        for leaf, content in zip(leaves, contents, strict=True)
        if leaf.media.kind.startswith("text/")
    )
    return NormalForm(tuple(fields), tuple(texts))


def _header_fields(fields: Fields, sender: bytes) -> Iterator[Field]:
    for label, structured in _COUNTED:
        raw_values = values(fields, label.lower())
        for raw in raw_values:
            text = decode_value(raw, structured=structured)
            yield Field(f"{label} (raw)", raw) if text is None else Field(label, text)
        if label == "From" and not raw_values:
            yield Field("reverse-path", sender)


def _mime_version(fields: Fields) -> Iterator[Field]:
    """Without the version some readers show the source (RFC 2045 section 4)."""
    if any(name in _READ for name, _ in fields):
        version = b" ".join(values(fields, "mime-version")).strip()
        if not version.startswith(b"1.0"):
            yield Field("MIME-Version", version)


def _raw_fields(message: Message) -> Iterator[Field]:
    for name, value in message.fields:
        if name.startswith("content-") or name == "mime-version":
            yield Field(f"{name} (raw)", value)
    yield Field("raw body" if message.fields else "raw content", _digest(message.raw))


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


def _read(leaf: Leaf) -> _Content:
    octets = decode_transfer(leaf.body, leaf.encoding)
    charset = leaf.media.get("charset")
    label = () if charset is None else (Field("charset", charset),)
    if octets is None or leaf.media.kind.startswith("message/"):
        encoding = Field("transfer encoding", leaf.encoding.encode())
        return _Content((*label, encoding, Field("raw", _digest(leaf.body))), leaf.body)
    attached = leaf.disposition is not None and leaf.disposition.kind == "attachment"
    shown = leaf.media.kind.startswith("text/") and not attached and not leaf.media.has_extended("charset")
    if shown and len(octets) <= TEXT_LIMIT:
        decoded = decode_text(octets, "us-ascii" if charset is None else charset.decode("ascii", "replace").lower())
        text = None if decoded is None else fold_text(decoded)
        if text is not None:
            return _Content((Field("text", text),), octets, text)
    return _Content((*label, Field("bytes", _digest(octets))), octets)


def _digest(octets: bytes) -> bytes:
    return f"{len(octets)} bytes, blake2b {hashlib.blake2b(octets, digest_size=32).hexdigest()}".encode()


def _without_noise(
    leaves: Sequence[Leaf], contents: Sequence[_Content], ordinals: Mapping[bytes, int]
) -> tuple[Mapping[bytes, int], list[_Content]]:
    """Leave noise out of HTML. Gives also the Content-IDs that do not count, with the ordinal of their leaf."""
    quiet = [_quiet(leaf, content, ordinals) for leaf, content in zip(leaves, contents, strict=True)]
    # Whatever still refers to an id may mean another leaf when ids change places.
    if ordinals and any(map(_may_refer_to_ids, leaves, quiet)):
        ordinals = {}
        quiet = [_quiet(leaf, content, ordinals) for leaf, content in zip(leaves, contents, strict=True)]
    return ordinals, quiet


def _quiet(leaf: Leaf, content: _Content, ordinals: Mapping[bytes, int]) -> _Content:
    if content.text is None or leaf.media.kind != "text/html":
        return content
    text = leave_out_noise(content.text, ordinals)
    return content._replace(fields=(Field("text", text),), text=text)


def _may_refer_to_ids(leaf: Leaf, content: _Content) -> bool:
    if content.text is not None:
        return refers_to_ids(content.text)
    if len(content.octets) > TEXT_LIMIT:
        return leaf.media.kind.startswith("text/")
    return refers_to_ids(content.octets)


def _names_start(part: Part) -> bool:
    """Say whether a parameter names the part to begin with by its Content-ID (RFC 2387 section 3.2)."""
    if part.media.get("start") is not None or part.media.has_extended("start"):
        return True
    return not isinstance(part, Leaf) and any(map(_names_start, part.children))


def _ordinals(leaves: Sequence[Leaf]) -> dict[bytes, int]:
    ordinals: dict[bytes, int] = {}
    for number, leaf in enumerate(leaves):
        name = _content_id(leaf.fields)
        if name in ordinals:
            return {}
        if name is not None:
            ordinals[name] = number
    return ordinals


def _content_id(fields: Fields) -> bytes | None:
    found = [unfold(value).strip() for value in values(fields, "content-id")]
    if len(found) == 1 and found[0][:1] == b"<" and found[0][-1:] == b">":
        return found[0][1:-1]
    return None


def _part_fields(
    part: Part, contents: Iterator[_Content], ordinals: Mapping[bytes, int], *, top: bool = False
) -> Iterator[Field]:
    is_leaf = isinstance(part, Leaf)
    yield Field("part" if is_leaf else "parts", part.media.kind.encode())
    yield from _parameter_fields(part.media.parameters)
    if part.disposition:
        yield Field("disposition", part.disposition.kind.encode())
        yield from _parameter_fields(part.disposition.parameters)
    yield from _own_fields(part.fields, ordinals if is_leaf else {}, top=top)
    if isinstance(part, Leaf):
        yield from next(contents).fields
        return
    yield from _around("preamble", part.preamble)
    for child in part.children:
        yield from _part_fields(child, contents, ordinals)
    yield from _around("epilogue", part.epilogue)
    yield Field("end of parts", b"")


def _parameter_fields(parameters: Parameters) -> Iterator[Field]:
    counted = tuple(parameter for parameter in parameters if parameter[0] not in _LEADING)
    for name, value in decode_parameters(counted) if counted else ():
        yield Field(f"parameter {name}", value)


def _own_fields(fields: Fields, ordinals: Mapping[bytes, int], *, top: bool) -> Iterator[Field]:
    """Of the header section of the message only Content-* describes the part; in a part's own every field does."""
    generated = _content_id(fields) in ordinals
    for name, value in fields:
        if name == "content-id":
            if not generated:
                yield Field(name, unfold(value).strip())
        elif name not in _READ and (name.startswith("content-") or not top):
            text = decode_value(value)
            yield Field(f"{name} (raw)", value) if text is None else Field(name, text)


def _around(label: str, octets: bytes) -> Iterator[Field]:
    """RFC 2046 section 5.1.1 has readers ignore it; we do not: PHPMailer writes a preamble, always the same."""
    decoded = decode_text(octets, "us-ascii")
    text = None if decoded is None else fold_text(decoded)
    if text is None:
        yield Field(f"{label} (raw)", _digest(octets))
    elif text:
        yield Field(label, text)
