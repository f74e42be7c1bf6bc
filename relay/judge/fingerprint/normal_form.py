"""The normalised form: what counts of a message, as ordered fields. They are hashed, and `relay explain` prints them.

Every body byte stands in a field or is knowingly left out; what could not be decoded for certain stands there raw.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from relay.judge.fingerprint.decoded import REMEMBERED, Field, LeafContent, decode_message, digest
from relay.judge.html.strip import StrippedText, refers_to_ids, strip_ignored_html, strip_ignored_text
from relay.judge.mime.content_ids import NO_ORDINALS, content_id, uses_ids
from relay.judge.mime.headers import decode_parameters, decode_value, field_values, unfold
from relay.judge.mime.message import Leaf
from relay.judge.rules.url_ignores import ScanBudget
from relay.judge.text.decode import TEXT_LIMIT, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from relay.judge.fingerprint.decoded import DecodedBody, DecodedMessage
    from relay.judge.mime.headers import Fields, Parameters
    from relay.judge.mime.message import Message, Part
    from relay.judge.rules.ignores import Ignored, Ignores

__all__ = ["Field", "NormalForm", "normal_form", "normalise"]

# These say how a part is read, and the reading counts; or they change on every send.
_READ = frozenset(("content-type", "content-transfer-encoding", "content-disposition", "content-id"))
# The text that they lead to counts instead.
_LEADING = frozenset(("charset", "boundary"))
# In these, decoded or not, a reference can be written in more ways than are looked for.
_OF_TEXT = ("text/", "application/xhtml", "application/xml")


@dataclass(frozen=True, slots=True)
class NormalForm:
    """What counts of a message, in order."""

    fields: tuple[Field, ...]
    texts: tuple[bytes, ...]
    """Its texts, each as far decoded as it could be, in which rules look for links. Not hashed."""
    broken: str = ""
    """Why the raw bytes count, or empty."""
    ignored: tuple[Ignored, ...] = ()
    """What was left out, in order. Not hashed."""


def normalise(message: Message, *, sender: bytes, noise: Ignores) -> NormalForm:
    """Give what counts of a message but for `noise`; `sender` is its reverse-path, which stands for a missing From."""
    return normal_form(decode_message(message, sender), noise)


def normal_form(reading: DecodedMessage, noise: Ignores) -> NormalForm:
    """Give what counts of a decoded message but for `noise`."""
    message, body = reading.message, reading.body
    if message.root is None:
        return NormalForm((*reading.header, *_raw_fields(message)), body.texts, message.broken)
    leave_out = _remember_without_noise if body.is_small else _without_noise
    quiet = leave_out(body, noise, bool(body.ordinals) and uses_ids(message.root))
    fields = [*reading.header, *_mime_version(message.fields)]
    _add_part(fields, message.root, iter(quiet.contents), quiet.ordinals)
    return NormalForm(tuple(fields), body.texts, ignored=quiet.ignored)


def _mime_version(fields: Fields) -> Iterator[Field]:
    """Without the version some readers show the source (RFC 2045 section 4)."""
    if any(name in _READ for name, _ in fields):
        version = b" ".join(field_values(fields, "mime-version")).strip()
        if not version.startswith(b"1.0"):
            yield Field("MIME-Version", version)


def _raw_fields(message: Message) -> Iterator[Field]:
    for name, value in message.fields:
        if name.startswith("content-") or name == "mime-version":
            yield Field(f"{name} (raw)", value)
    yield Field("raw body" if message.fields else "raw content", digest([message.raw]))


class _QuietLeaves(NamedTuple):
    """The leaves without noise, and the Content-IDs that do not count, with the ordinal of their leaf."""

    contents: list[LeafContent]
    ignored: tuple[Ignored, ...]
    ordinals: Mapping[bytes, int]


def _without_noise(body: DecodedBody, noise: Ignores, ids_count: bool) -> _QuietLeaves:
    ordinals = NO_ORDINALS if ids_count else body.ordinals
    work = ScanBudget(sum(map(len, body.texts)))
    contents = []
    ignored: list[Ignored] = []
    referred: set[int] = set()
    for leaf, content in zip(body.leaves, body.contents, strict=True):
        quiet = content
        if content.text is not None:
            text, left_out, leaves = _quiet_text(leaf.media.kind, content.text, noise, work, ordinals)
            if text is not content.text:
                quiet = LeafContent((Field("text", text), *content.fields[1:]), content.octets, text, content.style)
            ignored += left_out
            referred |= leaves
        contents.append(quiet)
    # Whatever still refers to an id may mean another leaf when ids change places.
    if ordinals and any(map(_may_refer_to_ids, body.leaves, contents)):
        return _without_noise(body, noise, ids_count=True)
    # An id that no reference was seen to may be meant where nobody looked.
    generated = {name: ordinal for name, ordinal in ordinals.items() if ordinal in referred}
    return _QuietLeaves(contents, tuple(ignored), generated)


_remember_without_noise = lru_cache(REMEMBERED)(_without_noise)


def _quiet_text(
    kind: str, text: bytes, noise: Ignores, work: ScanBudget, ordinals: Mapping[bytes, int]
) -> StrippedText:
    if kind == "text/html":
        return strip_ignored_html(text, noise, work, ordinals)
    if kind == "text/plain":
        return strip_ignored_text(text, noise, work)
    return StrippedText(text)


def _may_refer_to_ids(leaf: Leaf, content: LeafContent) -> bool:
    if content.text is not None:
        return refers_to_ids(content.text) or refers_to_ids(content.style)
    kind = leaf.media.kind
    if kind.startswith(_OF_TEXT) or kind.endswith("+xml"):
        return True
    return len(content.octets) <= TEXT_LIMIT and b"cid:" in content.octets.lower()


def _add_part(fields: list[Field], part: Part, contents: Iterator[LeafContent], ordinals: Mapping[bytes, int]) -> None:
    is_leaf = isinstance(part, Leaf)
    fields.append(Field("part" if is_leaf else "parts", part.media.kind.encode()))
    _add_parameters(fields, part.media.parameters)
    if part.disposition:
        fields.append(Field("disposition", part.disposition.kind.encode()))
        _add_parameters(fields, part.disposition.parameters)
    _add_own(fields, part.fields, ordinals if is_leaf else NO_ORDINALS)
    if isinstance(part, Leaf):
        fields += next(contents).fields
        return
    _add_around(fields, "preamble", part.preamble)
    for child in part.children:
        _add_part(fields, child, contents, ordinals)
    _add_around(fields, "epilogue", part.epilogue)
    fields.append(Field("end of parts", b""))


def _add_parameters(fields: list[Field], parameters: Parameters) -> None:
    counted = tuple([parameter for parameter in parameters if parameter[0] not in _LEADING])
    if counted:
        fields += [Field(f"parameter {name}", value) for name, value in decode_parameters(counted)]


def _add_own(fields: list[Field], own: Fields, ordinals: Mapping[bytes, int]) -> None:
    """Add a part's own header fields. No name holds a blank, so that none of them passes for a label of ours."""
    generated = bool(ordinals) and content_id(own) in ordinals
    for name, value in own:
        if name == "content-id":
            if not generated:
                fields.append(Field(f"field {name}", unfold(value).strip()))
        elif name not in _READ:
            text = decode_value(value)
            fields.append(Field(f"field {name} (raw)", value) if text is None else Field(f"field {name}", text))


def _add_around(fields: list[Field], label: str, octets: bytes) -> None:
    """RFC 2046 section 5.1.1 has readers ignore it; we do not: PHPMailer writes a preamble, always the same."""
    text = read_text(octets, "us-ascii")
    if text is None:
        fields.append(Field(f"{label} (raw)", digest([octets])))
    elif text:
        fields.append(Field(label, text))
