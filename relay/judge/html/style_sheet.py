"""The style sheet in the head of a page: most of many a mail, and the one text of it whose white space is not folded.

Folding a thousand short lines costs more than all else that is done to a notification. Two messages of one template
have the same style sheet to the last blank, so that it can count as it stands but for its line ends.
"""

from __future__ import annotations

import re
from functools import lru_cache

_ATTRIBUTE = rb"\s++[a-z:-]++\s*+=\s*+(?:\"[^\"<>]*+\"|'[^'<>]*+')"
# HTML Living Standard, section 13.2.6.4.4: behind nothing but these a browser is in the head, where `<style>` begins a
# style sheet. Behind all else (a comment, a script) it may be something else, and then it is a text like any other.
_HEAD = re.compile(
    rb"\s*+(?>(?:(?:<!doctype\b[^<>\"']*+>|<title\s*+>[^<]*+</title\s*+>"
    rb"|</?(?:html|head|meta|link|base)(?>(?:%b)*)\s*+/?>)\s*+)*)<style(?>(?:%b)*)\s*+>" % (_ATTRIBUTE, _ATTRIBUTE),
    re.IGNORECASE,
)
_END = b"</style>"
_LINE_END = re.compile(rb"\r?\n")
# Without any of these there is no link in it, nor what hides one.
_OF_LINKS = (b"&", b"=", b"//")
REMEMBERED = 16
"""Style sheets. A site has one for all its mails."""
_LARGEST = 1 << 16
"""Bytes."""


def split_style(page: bytes) -> tuple[bytes, bytes]:
    """Take the first style sheet out of a page, its tags left behind; an empty one where that is not certain.

    One that is too large to be remembered is a text like any other.
    """
    begin = _HEAD.match(page)
    if begin:
        start = begin.end()
        end = page.find(b"<", start)
        style = page[start:end]
        if page.startswith(_END, end) and style.isascii() and b"\0" not in style and b"\v" not in style:
            on_the_wire = _with_wire_ends(style)
            if len(on_the_wire) <= _LARGEST:
                return page[:start] + page[end:], on_the_wire
    return page, b""


@lru_cache(REMEMBERED)
def may_hold_link(style: bytes) -> bool:
    """Say whether a rule may find a link in a style sheet."""
    return any(sign in style for sign in _OF_LINKS)


def _with_wire_ends(style: bytes) -> bytes:
    """Make line ends what they are on the wire. Where the first is, the others are taken to be."""
    first = style.find(b"\n")
    return style if first < 0 or style[first - 1 : first] == b"\r" else _LINE_END.sub(b"\r\n", style)
