"""Links in a text, HTML or plain, as far as they can be seen without rendering it.

Generous: what a rule looks for may stand in an attribute, in the text, or in raw octets that nobody could decode.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# The value of an attribute goes to its closing quote, white space included; elsewhere a link ends at white space.
_VALUE = re.compile(rb"href\s*=\s*(?:\"([^\"]*)|'([^']*)|([^\s\"'<>]+))")
_REST = re.compile(rb"://[^\s\"'<>]+")
_SCHEME = re.compile(rb"[a-z][a-z0-9+.-]{0,30}\Z", re.IGNORECASE)
_LONGEST_SCHEME = 31
# Character references that may hide the marks by which a link is found.
_HIDDEN = (b"&#", b"&colon", b"&sol")
# Browsers take them out of a URL (URL Living Standard, section 4.4).
_PASSED_OVER = b"\t\r\n"
_LEADING_ZEROS = re.compile(rb"(&#[xX]?)0++(?=[0-9a-fA-F])")
# More digits than any character has; `int` refuses thousands of them.
_NO_CHARACTER = re.compile(rb"&#(?:[0-9]{9,}+|[xX][0-9a-fA-F]{9,}+);?")


def links(text: bytes) -> list[bytes]:
    """Give every link, each once, its character references resolved."""
    found = list(_in_attributes(text))
    if b"&" in text and any(reference in text for reference in _HIDDEN):
        text = _resolve(text)
    found += _bare(text)
    written = [link for link in found if b"&" in link]
    if written:
        # In one go, which is many times quicker. NUL is part of no reference, and of no text that was decoded.
        found = [link for link in found if b"&" not in link] + _resolve(b"\0".join(written)).split(b"\0")
    return list(dict.fromkeys([link.translate(None, _PASSED_OVER) for link in found]))


def _in_attributes(text: bytes) -> Iterator[bytes]:
    lower = text.lower()
    at = lower.find(b"href")
    while at >= 0:
        match = _VALUE.match(lower, at)
        end = at + len(b"href")
        if match:
            start, end = match.span(match.lastindex or 0)
            yield text[start:end]
        at = lower.find(b"href", end)


def _bare(text: bytes) -> Iterator[bytes]:
    at = text.find(b"://")
    while at >= 0:
        end = at + len(b"://")
        scheme = _SCHEME.search(text, max(0, at - _LONGEST_SCHEME), at)
        rest = scheme and _REST.match(text, at)
        if scheme and rest:
            end = rest.end()
            yield text[scheme.start() : end]
        at = text.find(b"://", end)


def _resolve(octets: bytes) -> bytes:
    if b"&#" in octets:
        octets = _NO_CHARACTER.sub("\ufffd".encode(), _LEADING_ZEROS.sub(rb"\1", octets))
    return html.unescape(octets.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
