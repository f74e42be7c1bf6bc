"""Bounds for text that an upstream chose, before it is stored, quoted or matched by any pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING, AnyStr

if TYPE_CHECKING:
    from relay.core.reply import Reply

LONGEST_LINE = 1000
"""Octets of one reply line that are kept. RFC 5321 section 4.5.3.1.5 limits a line to 512."""
MOST_LINES = 50
HIDE = bytes.maketrans(bytes({*range(0x20), 0x7F} - {ord("\t")}), b"?" * 32)
"""Replaces control characters: a bare CR in a reply could forge another reply for a later reader."""
LONGEST_QUOTE = 500
"""Characters of an upstream's text in an error message."""


def excerpt(text: AnyStr, longest: int, blank: AnyStr) -> AnyStr:
    """Returns the beginning of a text. Cuts it at a blank if there is one, so that no address is cut in two.

    A cut address would no longer look like one, and would not be redacted.
    """
    if len(text) <= longest:
        return text
    whole_words, _, _ = text[: longest + 1].rpartition(blank)
    return whole_words or text[:longest]


def quote(text: str) -> str:
    """Returns an excerpt that is short enough for an error message."""
    return excerpt(text, LONGEST_QUOTE, " ")


def describe(reply: Reply) -> str:
    """Returns code and text of a reply, for an error message."""
    return quote(f"{reply.code} {reply.text}")
