"""Messages in an mbox file (RFC 4155) of any dialect: mboxo, mboxrd, mboxcl, mboxcl2; LF or CRLF.

A message starts at a line "From " with a time, which follows a blank line and is followed by a header field.
Content-Length is trusted if it leads to such a line or to the end of the file.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from relay.judge.mime.message import Multipart
from relay.judge.mime.parser import HEADER_LIMIT, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 1 << 20
_FROM = rb"From [^\r\n]{0,200}[0-9]:[0-9]{2}[^\r\n]{0,200}\r?\n"
_MESSAGE_START = re.compile(rb"%b(?:[!-9;-~]{1,100}[ \t]*:|>From )" % _FROM)
_OVERLAP = 1024
"""Bytes that two blocks share; more than `_MESSAGE_START` matches."""
_CONTENT_END = re.compile(rb"(?:\r?\n){0,2}(?=%b|\Z)" % _FROM)
_CONTENT_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*([0-9]{1,12})[ \t]*\r?$")
_BLANK_LINE = re.compile(rb"\n\r?\n")
_QUOTED_FROM = re.compile(rb"(?m)^>(>*From )")


class MessageSpan(NamedTuple):
    """The offset and size of a message with its From_ line, in bytes, and its beginning."""

    start: int
    size: int
    head: bytes


class MboxMessage(NamedTuple):
    """The From_ line of a message, and its content as it was before an mbox stored it."""

    from_line: bytes
    content: bytes


def find_messages(descriptor: int, size: int) -> Iterator[MessageSpan]:
    """Yields the span of each message in an open mbox file of `size` bytes. Raises `OSError`."""
    at = 0
    while at < size:
        head = os.pread(descriptor, HEADER_LIMIT, at)
        if not head:
            return
        end = _end(descriptor, head, at, size)
        yield MessageSpan(at, end - at, head[: end - at])
        at = end


def unpack(raw: bytes) -> MboxMessage:
    """Removes what the mbox added: the From_ line, one `>` of quoted From lines, and the blank line at the end."""
    line, newline, content = raw.partition(b"\n")
    if content.endswith((b"\n\n", b"\n\r\n")):
        content = content[:-1].removesuffix(b"\r")
    if b">From " in content:
        content = _QUOTED_FROM.sub(rb"\1", content)
    return MboxMessage(line + newline, content)


def is_truncated(raw: bytes) -> bool:
    """Returns whether the last message of an mbox lacks its end.

    An mbox ends each message with a line end and a blank line. A malformed message that has them is complete. Some
    writers leave out the blank line, so a message without a line end, or whose closing boundary is missing as well, is
    taken as cut off.
    """
    if raw.endswith((b"\n\n", b"\n\r\n")):
        return False
    message = parse(unpack(raw).content)
    if isinstance(message.root, Multipart):
        return not message.root.is_closed
    return not raw.endswith(b"\n") or message.broken in {
        "a multipart without its closing boundary",
        "no blank line after the header section",
    }


def _end(descriptor: int, head: bytes, at: int, size: int) -> int:
    """Returns the offset where the next message starts."""
    blank = _BLANK_LINE.search(head)
    length = _CONTENT_LENGTH.search(head, 0, blank.end()) if blank else None
    if blank and length:
        content_end = at + blank.end() + int(length[1])
        match = _CONTENT_END.match(os.pread(descriptor, _OVERLAP, content_end)) if content_end <= size else None
        if match:
            return content_end + match.end()
    block, base = head, at
    while True:
        if start := _next_start(block):
            return base + start
        if base + len(block) >= size or len(block) <= _OVERLAP:
            return size
        base += len(block) - _OVERLAP
        block = os.pread(descriptor, _BLOCK, base)


def _next_start(block: bytes) -> int:
    """Returns the offset in a block where a message starts, or 0."""
    at = block.find(b"\nFrom ")
    while at >= 0:
        if block.endswith((b"\n", b"\n\r"), max(0, at - 2), at) and _MESSAGE_START.match(block, at + 1):
            return at + 1
        at = block.find(b"\nFrom ", at + 1)
    return 0
