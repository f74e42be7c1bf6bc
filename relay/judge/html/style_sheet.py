"""Takes the style sheet out of the head of a page. It is most of many mails, and its white space is not folded.

To fold a thousand short lines costs more than the rest of the judgement of a notification. Two messages of one template
have the same style sheet to the last blank, so that it counts unchanged except for its line ends.
"""

from __future__ import annotations

import re
from collections import deque
from functools import lru_cache

from relay.judge.text.decode import may_keep_white_space

_ATTRIBUTE = rb"\s++[a-z:-]++\s*+=\s*+(?:\"[^\"<>]*+\"|'[^'<>]*+')"
# HTML Living Standard, section 13.2.6.4.4: after nothing but these a browser is in the head, where `<style>` begins a
# style sheet. After anything else (a comment, a script) it may be something else, and counts like any text.
_HEAD = re.compile(
    rb"\s*+(?>(?:(?:<!doctype\b[^<>\"']*+>|<title\s*+>[^<]*+</title\s*+>"
    rb"|</?(?:html|head|meta|link|base)(?>(?:%b)*)\s*+/?>)\s*+)*)<style(?>(?:%b)*)\s*+>" % (_ATTRIBUTE, _ATTRIBUTE),
    re.IGNORECASE,
)
_END = b"</style>"
_LINE_END = re.compile(rb"\r?\n")
_NUL, _VERTICAL_TAB = b"\0\v"
# A link, or what hides one, holds one of these.
_PARTS_OF_LINKS = (b"&", b"=", b"//")
_CACHED_STYLE_SHEETS = 16  # A site has one for all its mail.
_recent_style_sheets: deque[bytes] = deque(maxlen=_CACHED_STYLE_SHEETS)
_SIZE_LIMIT = 1 << 16
"""Bytes of a style sheet that is cached."""


def split_style(page: bytes) -> tuple[bytes, bytes]:
    """Returns a page without the content of its first style sheet, and that content with CRLF line ends.

    The content is empty if it is not certain what a browser takes for a style sheet, or too large to be cached.
    """
    begin = _HEAD.match(page)
    if begin:
        start = begin.end()
        end = page.find(b"<", start)
        style = page[start:end]
        if page.startswith(_END, end) and style.isascii() and _NUL not in style and _VERTICAL_TAB not in style:
            normalised = _with_crlf(style)
            if len(normalised) <= _SIZE_LIMIT:
                return page[:start] + page[end:], _recent(normalised)
    return page, b""


def _recent(style: bytes) -> bytes:
    """Returns an equal style sheet that was seen before, else this one.

    Caches need the hash of a style sheet, which that object knows. To compute it takes 2 % of the judgement of a
    notification whose body was never seen.
    """
    for known in tuple(_recent_style_sheets):
        if known == style:
            return known
    _recent_style_sheets.append(style)
    return style


@lru_cache(_CACHED_STYLE_SHEETS)
def may_hold_link(style: bytes) -> bool:
    """Returns whether a rule may find a link in a style sheet."""
    return any(part in style for part in _PARTS_OF_LINKS)


@lru_cache(_CACHED_STYLE_SHEETS)
def shows_white_space(style: bytes) -> bool:
    """Returns whether a style sheet may let browsers show white space as it is."""
    return may_keep_white_space(style)


def _with_crlf(style: bytes) -> bytes:
    """Normalises line ends to CRLF. If the first one is CRLF, the others are taken to be."""
    first = style.find(b"\n")
    return style if first < 0 or style[first - 1 : first] == b"\r" else _LINE_END.sub(b"\r\n", style)
