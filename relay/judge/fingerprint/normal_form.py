"""The normal form: what counts of a message, as ordered fields. They are hashed, and `relay explain` prints them.

Every body byte is in a field or is knowingly left out. What could not be decoded with certainty is in a field as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from relay.judge.fingerprint.decoded import LeafContent, length_and_digest
from relay.judge.fingerprint.header import Field
from relay.judge.html.strip import StrippedText, refers_to_ids, strip_ignored_html, strip_ignored_text, strip_spans
from relay.judge.mime.content_ids import NO_ORDINALS, content_id, uses_ids
from relay.judge.mime.headers import decode_value, unfold
from relay.judge.mime.message import Leaf
from relay.judge.mime.parameters import decode_parameters
from relay.judge.rules.ignores import Ignored
from relay.judge.rules.url_ignores import ScanBudget
from relay.judge.text.decode import TEXT_LIMIT, read_plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from relay.judge.fingerprint.decoded import DecodedBody, DecodedMessage
    from relay.judge.mime.headers import Fields
    from relay.judge.mime.message import Message, Part
    from relay.judge.mime.parameters import Parameters
    from relay.judge.rules.ignores import Ignores

__all__ = ["Field", "NormalForm", "normalise"]

# They do not count as fields of a part: they say how to decode it, and the decoded content counts; or, as Content-ID,
# they differ on every send.
_DECODING_FIELDS = frozenset(("content-type", "content-transfer-encoding", "content-disposition", "content-id"))
# The text that they help to decode counts instead.
_DECODING_PARAMETERS = frozenset(("charset", "boundary"))
_SHORT = 200
"""Bytes of the longest preamble that is cached."""
# In these types, decoded or not, a reference to a Content-ID has more spellings than `refers_to_ids` knows.
_MARKUP_TYPES = ("text/", "application/xhtml", "application/xml")


@dataclass(frozen=True, slots=True)
class NormalForm:
    r"""What counts of a message.

    The fields of an AVideo notification, in this order, with NUL for the value that an ignore left out:

        (Field("Subject", b"Hello"), Field("From", b"a@example.org"), Field("parts", b"multipart/mixed"),
         Field("part", b"text/html"), Field("text", b"<img src='v.jpg?cache=\0'>"),
         Field("part", b"application/pdf"), Field("disposition", b"attachment"),
         Field("parameter filename", b"a.pdf"), Field("bytes", b"3 bytes, blake2b bddd813c…"),
         Field("end of parts", b""))
    """

    fields: tuple[Field, ...]
    """They are hashed; nothing else is."""
    broken: str = ""
    """Why the raw bytes count, or empty."""
    ignored: tuple[Ignored, ...] = ()
    """What was left out, in order."""


def normalise(decoded: DecodedMessage, ignores: Ignores) -> NormalForm:
    """Returns what counts of a message, without what `ignores` find in it."""
    message, body = decoded.message, decoded.body
    header, ignored = _strip_header(decoded.header, ignores) if ignores.headers else (decoded.header, ())
    if message.root is None:
        return NormalForm((*header, *_raw_fields(message)), message.broken, ignored)
    ids_count = bool(body.ordinals) and uses_ids(message.root)
    # Without this a twin or the next mail of a bulk takes 43 % longer for 50 recipients, 61 % for one (ADR 14).
    stripped = body.results.get((ignores, ids_count))
    if stripped is None:
        stripped = body.results[ignores, ids_count] = _strip_body(body, ignores, ids_count)
    fields = [*header, *_mime_version(message)]
    parameters = _PartParameters(ignores)
    _add_part(fields, message.root, iter(stripped.contents), stripped.ordinals, parameters)
    return NormalForm(tuple(fields), ignored=(*ignored, *stripped.ignored, *parameters.ignored))


def _strip_header(header: tuple[Field, ...], ignores: Ignores) -> tuple[tuple[Field, ...], tuple[Ignored, ...]]:
    """Returns the fields that are left, and what was left out. A label such as `Date (raw)` begins with the name."""
    left, ignored = [], []
    for label, value in header:
        name = ignores.headers.get(label.partition(" ")[0])
        if name is None:
            left.append(Field(label, value))
        else:
            ignored.append(Ignored(name, f"{label}: ".encode() + value))
    return tuple(left), tuple(ignored)


def _mime_version(message: Message) -> Iterator[Field]:
    """Yields a MIME-Version that counts. Without version 1.0 some readers show the source (RFC 2045 section 4)."""
    if not _DECODING_FIELDS.isdisjoint(message.by_name):
        version = b" ".join(message.values("mime-version")).strip()
        if not version.startswith(b"1.0"):
            yield Field("MIME-Version", version)


def _raw_fields(message: Message) -> Iterator[Field]:
    for name, value in message.fields:
        if name.startswith("content-") or name == "mime-version":
            yield Field(f"{name} (raw)", value)
    yield Field("raw body" if message.fields else "raw content", length_and_digest([message.raw]))


class _StrippedBody(NamedTuple):
    """The leaves of a body without what is ignored, and the Content-IDs that do not count with their leaf's ordinal."""

    contents: list[LeafContent]
    ignored: tuple[Ignored, ...]
    ordinals: Mapping[bytes, int]


def _strip_body(body: DecodedBody, ignores: Ignores, ids_count: bool) -> _StrippedBody:
    ordinals = NO_ORDINALS if ids_count else body.ordinals
    budget = ScanBudget(sum(map(len, body.texts)))
    contents = []
    ignored: list[Ignored] = []
    referred: set[int] = set()
    for leaf, content in zip(body.leaves, body.contents, strict=True):
        source = content.octets if content.text is None else content.text
        text, ignored_here, referred_here = _strip_leaf(leaf.media.kind, content, ignores, budget, ordinals)
        contents.append(content if text is source else _stripped_content(content, text))
        ignored += ignored_here
        referred |= referred_here
    # A reference to an id that was not replaced may mean another leaf when ids change places. Then all ids count.
    if ordinals and any(map(_may_refer_to_ids, body.leaves, contents)):
        return _strip_body(body, ignores, ids_count=True)
    # An id without a known reference counts: it may be referred to in a place that was not searched.
    generated = {name: ordinal for name, ordinal in ordinals.items() if ordinal in referred}
    return _StrippedBody(contents, tuple(ignored), generated)


def _strip_leaf(
    kind: str, content: LeafContent, ignores: Ignores, budget: ScanBudget, ordinals: Mapping[bytes, int]
) -> StrippedText:
    """Strips the text of a leaf, or its octets if they are known completely."""
    if content.text is None:
        is_whole = content.fields[-1].label == "bytes" and len(content.octets) <= TEXT_LIMIT
        return strip_spans(content.octets, ignores.in_octets(kind, content.octets, budget) if is_whole else ())
    if kind == "text/html":
        return strip_ignored_html(content.text, ignores, budget, ordinals)
    return strip_ignored_text(content.text, ignores, budget, kind)


def _stripped_content(content: LeafContent, stripped: bytes) -> LeafContent:
    if content.text is not None:
        fields = (Field("text", stripped), *content.fields[1:])
        return LeafContent(fields, content.octets, stripped, content.style)
    # The addition keeps a leaf that was stripped apart from one that holds NUL by itself.
    counted = Field("bytes", length_and_digest([stripped]) + b", without what is ignored")
    return LeafContent((*content.fields[:-1], counted), content.octets)


def _may_refer_to_ids(leaf: Leaf, content: LeafContent) -> bool:
    if content.text is not None:
        return refers_to_ids(content.text) or refers_to_ids(content.style)
    kind = leaf.media.kind
    if kind.startswith(_MARKUP_TYPES) or kind.endswith("+xml"):
        return True
    return len(content.octets) <= TEXT_LIMIT and b"cid:" in content.octets.lower()


def _add_part(
    fields: list[Field],
    part: Part,
    contents: Iterator[LeafContent],
    ordinals: Mapping[bytes, int],
    parameters: _PartParameters,
) -> None:
    is_leaf = isinstance(part, Leaf)
    fields.append(Field("part" if is_leaf else "parts", part.media.kind.encode()))
    parameters.add(fields, part.media.parameters)
    if part.disposition:
        fields.append(Field("disposition", part.disposition.kind.encode()))
        parameters.add(fields, part.disposition.parameters)
    _add_part_header(fields, part.fields, ordinals if is_leaf else NO_ORDINALS)
    if isinstance(part, Leaf):
        fields += next(contents).fields
        return
    _add_text_outside_parts(fields, "preamble", part.preamble)
    for child in part.children:
        _add_part(fields, child, contents, ordinals, parameters)
    _add_text_outside_parts(fields, "epilogue", part.epilogue)
    fields.append(Field("end of parts", b""))


class _PartParameters:
    """Adds the parameters of the parts of one message, without the values that ignores find."""

    def __init__(self, ignores: Ignores) -> None:
        self._ignores = ignores if ignores.part_parameters else None
        self._budget = ScanBudget()
        self.ignored: list[Ignored] = []

    def add(self, fields: list[Field], parameters: Parameters) -> None:
        hashed = tuple([parameter for parameter in parameters if parameter[0] not in _DECODING_PARAMETERS])
        if hashed:
            decoded = decode_parameters(hashed)
            fields += [Field(f"parameter {name}", value) for name, value in map(self._strip, decoded)]

    def _strip(self, parameter: tuple[str, bytes]) -> tuple[str, bytes]:
        name, value = parameter
        # A value that could not be decoded has another name, and counts.
        plain = name.removesuffix(" (extended)").removesuffix(" (continued)")
        ignore = self._ignores.of_part_parameter(plain, value, self._budget) if self._ignores else ""
        if not ignore:
            return parameter
        self.ignored.append(Ignored(ignore, b"%b=%b" % (plain.encode(), value)))
        return name, b"\0"


def _add_part_header(fields: list[Field], part_fields: Fields, ordinals: Mapping[bytes, int]) -> None:
    """Adds a part's header fields. The label `field NAME` differs from all other labels, since no name has a blank."""
    generated = bool(ordinals) and content_id(part_fields) in ordinals
    for name, value in part_fields:
        if name == "content-id":
            if not generated:
                fields.append(Field(f"field {name}", unfold(value).strip()))
        elif name not in _DECODING_FIELDS:
            text = decode_value(value)
            fields.append(Field(f"field {name} (raw)", value) if text is None else Field(f"field {name}", text))


# A program writes the same preamble into all of its mails.
@lru_cache(maxsize=16)
def _read_short(octets: bytes) -> bytes | None:
    return read_plain(octets, "us-ascii")


def _add_text_outside_parts(fields: list[Field], label: str, octets: bytes) -> None:
    """Adds a preamble or epilogue. Readers ignore them (RFC 2046 section 5.1.1), but every byte must count.

    PHPMailer writes a preamble, which is always the same.
    """
    if not octets:
        return
    text = _read_short(octets) if len(octets) <= _SHORT else read_plain(octets, "us-ascii")
    if text is None:
        fields.append(Field(f"{label} (raw)", length_and_digest([octets])))
    elif text:
        fields.append(Field(label, text))
