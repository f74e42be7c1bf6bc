"""The content of a message, as it is sent after DATA: header section and body."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Only CRLF "." CRLF ends the data (RFC 5321 section 4.1.1.4). Some receivers also end it at a dot between bare CRs or
# LFs, and would read the rest as commands (SMTP smuggling). Others drop NULs, or end a line at one. Such a dot is sent
# doubled.
_LINE_END = (b"\r", b"\n", b"\0")
_LONE_DOTS = tuple(before + b"." + after for before in _LINE_END for after in _LINE_END)
_BLOCK = 256 * 1024
"""Bytes."""


@dataclass(frozen=True)
class Content:
    """Content in its transparent form: lines that begin with a dot have one more. The final dot is not included."""

    wire: bytes
    _safe_wire: bytes | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def from_plain(cls, plain: bytes) -> Content:
        """Returns the transparent form of content without added dots, such as a file. It ends with CRLF."""
        wire = re.sub(rb"(\A|\r\n)\.", rb"\1..", plain)
        return cls(wire if not wire or wire.endswith(b"\r\n") else wire + b"\r\n")

    @property
    def safe_wire(self) -> bytes:
        """The transparent form in which no lenient receiver finds an end of data. Usually it is `wire` itself.

        Computed once. Not a `functools.cached_property`: before Python 3.12 it has one lock for all messages, so that a
        large one in a thread holds up a small one in the event loop.
        """
        if self._safe_wire is None:
            object.__setattr__(self, "_safe_wire", _double_lone_dots(self.wire))
        return self._safe_wire or b""

    @property
    def has_bare_line_end(self) -> bool:
        """Whether a CR or LF is not part of CRLF (RFC 5321 section 2.3.8). 50 MB take 0.1 s."""
        pairs = self.wire.count(b"\r\n")
        return self.wire.count(b"\r") != pairs or self.wire.count(b"\n") != pairs

    @property
    def plain(self) -> bytes:
        """The content without the added dots, as a recipient receives `safe_wire`.

        Computed at each access: a copy would take as much memory as the message, for as long as the message lives.
        """
        return _replace_in_blocks(self.safe_wire.removeprefix(b"."), _remove_added_dots, before=2, after=0)

    def __len__(self) -> int:
        """Returns the size in bytes on the wire."""
        return len(self.wire)


def _double_lone_dots(wire: bytes) -> bytes:
    if wire.startswith(b".") and wire[1:2] in _LINE_END:
        wire = b"." + wire
    return _replace_in_blocks(wire, _double_dots_of_block, before=1, after=1)


def _double_dots_of_block(block: bytes) -> bytes:
    if b"\n." not in block and b"\r." not in block and b"\0" not in block:  # usual, and found out in half the time
        return block
    for dot in _LONE_DOTS:
        while dot in block:  # a second time if two dots shared a line end
            block = block.replace(dot, dot.replace(b".", b".."))
    return block


def _remove_added_dots(block: bytes) -> bytes:
    # `replace` counts first: it takes 11 µs for 6 KB without such a dot, and `in` 1 µs.
    return block.replace(b"\r\n.", b"\r\n") if b"\r\n." in block else block


def _replace_in_blocks(octets: bytes, replace: Callable[[bytes], bytes], *, before: int, after: int) -> bytes:
    """Replaces block by block, because each call holds the GIL: for 0.3 s and more if 45 MB are nothing but dots.

    A block is passed with so many octets `before` and `after` it, which `replace` must not change. Returns `octets`
    itself if nothing changed.
    """
    if len(octets) <= _BLOCK:
        return replace(octets)
    changed = False
    blocks = []
    for start in range(0, len(octets), _BLOCK):
        stop = min(start + _BLOCK, len(octets))
        lead, tail = min(before, start), min(after, len(octets) - stop)
        block = octets[start - lead : stop + tail]
        replaced = replace(block)
        changed = changed or replaced is not block
        blocks.append(replaced[lead : len(replaced) - tail])
    return b"".join(blocks) if changed else octets
