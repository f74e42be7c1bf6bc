"""A parsed message: its header fields and its tree of parts (RFC 5322, RFC 2045, RFC 2046)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.judge.mime.headers import Fields
    from relay.judge.mime.parameters import ParameterisedValue


class Leaf(NamedTuple):
    """A part that is not a multipart. A `message/*` part is a leaf."""

    fields: Fields
    media: ParameterisedValue
    disposition: ParameterisedValue | None
    encoding: str
    """Content-Transfer-Encoding: in lower case if readers agree about it, else as written."""
    body: bytes
    """Still encoded."""


class Multipart(NamedTuple):
    """A container of parts. The text before the first and after the last delimiter counts too."""

    fields: Fields
    media: ParameterisedValue
    disposition: ParameterisedValue | None
    preamble: bytes
    children: tuple[Part, ...]
    epilogue: bytes
    is_closed: bool = True
    """Whether the closing boundary is there."""


Part: TypeAlias = Leaf | Multipart


@dataclass(frozen=True, slots=True)
class Message:
    """A header section and the MIME tree below it. A broken message has no `root`, and `raw` counts instead."""

    fields: Fields
    """All fields of the header section; empty if the header section is broken."""
    root: Part | None
    """The tree. Its fields are those that begin with `Content-`: the others describe the message (RFC 2045 section 3).
    """
    raw: bytes = b""
    """Of a broken message the body, or the whole content if the header section is broken."""
    broken: str = ""
    """Why the message is broken, or empty."""
    received: tuple[bytes, ...] = ()
    """Raw values of the Received fields, top first. In a broken header section they are found by a looser pattern."""
    size: int = 0
    """Bytes of the whole content."""
    by_name: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    """The raw values of the fields with each name, in order."""

    def values(self, name: str) -> Sequence[bytes]:
        """Returns the raw values of all fields with this name, which is in lower case."""
        return self.by_name.get(name, ())


def has_attachment(part: Part) -> bool:
    """Returns whether a part, or one inside it, is an attachment or has a file name."""
    if isinstance(part, Multipart):
        return any(map(has_attachment, part.children))
    if part.media.get("name") is not None:
        return True
    disposition = part.disposition
    return disposition is not None and (
        disposition.kind == "attachment"
        or disposition.get("filename") is not None
        or disposition.has_extended("filename")
    )
