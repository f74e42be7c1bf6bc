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
    from collections.abc import Iterator, Mapping

    from relay.core.headers import Parameters
    from relay.core.message import Fields, Message, Part

# Label, name of the header field, and whether it is structured (RFC 2047 section 5).
_COUNTED = (("Subject", False), ("From", True), ("Reply-To", True), ("List-Id", True))
# These say how to read a part, and are read; or change on every send.
_READ = frozenset(("content-type", "content-transfer-encoding", "content-disposition", "content-id", "mime-version"))


class Field(NamedTuple):
    """A thing that counts: what it is, and its value."""

    label: str
    value: bytes


@dataclass(frozen=True, slots=True)
class NormalForm:
    """What counts of a message, in order."""

    fields: tuple[Field, ...]
    texts: tuple[bytes, ...]
    """The text as decoded as it could be, in which rules look for links. Not hashed."""
    broken: str = ""
    """Why the raw bytes count."""


class _Content(NamedTuple):
    """What is in a leaf: the field that counts, the text to search, and what may refer to Content-IDs."""

    fields: tuple[Field, ...]
    text: bytes | None = None
    html: bool = False
    octets: bytes = b""


def normalise(message: Message, *, sender: bytes) -> NormalForm:
    """Give what counts of a message; `sender` is its reverse-path, which stands in for a missing From field."""
    fields = [*_header_fields(message.fields, sender)]
    if message.root is None:
        fields += _raw_fields(message)
        return NormalForm(tuple(fields), _searchable(message.raw), message.broken)
    if message.root.fields_named("mime-version") != [b"1.0"]: ...
    return NormalForm((), ())
