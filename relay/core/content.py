"""The content of a message, as it is sent after DATA: header section and body."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

# Only CRLF "." CRLF ends the data (RFC 5321 section 4.1.1.4). Some receivers also end it at a dot between bare CRs or
# LFs, and would read the rest as commands (SMTP smuggling). Such a dot is sent doubled.
_LONE_DOTS = (b"\n.\n", b"\r.\r", b"\n.\r", b"\r.\n")
_LINE_END = (b"\r", b"\n")


@dataclass(frozen=True)
class Content:
    """Content in its transparent form: lines that begin with a dot have one more. The final dot is not included."""

    wire: bytes

    @classmethod
    def from_plain(cls, plain: bytes) -> Content:
        """Returns the transparent form of content without added dots, such as a file. It ends with CRLF."""
        wire = re.sub(rb"(\A|\r\n)\.", rb"\1..", plain)
        return cls(wire if not wire or wire.endswith(b"\r\n") else wire + b"\r\n")

    @cached_property
    def safe_wire(self) -> bytes:
        """The transparent form in which no lenient receiver finds an end of data."""
        wire = self.wire
        if wire.startswith(b".") and wire[1:2] in _LINE_END:
            wire = b"." + wire
        for dot in _LONE_DOTS:
            while dot in wire:  # a second time if two dots shared a line end
                wire = wire.replace(dot, dot.replace(b".", b".."))
        return wire

    @cached_property
    def plain(self) -> bytes:
        """The content without the added dots, as a recipient receives `safe_wire`."""
        return self.safe_wire.removeprefix(b".").replace(b"\r\n.", b"\r\n")

    def __len__(self) -> int:
        """Returns the size in bytes on the wire."""
        return len(self.wire)
