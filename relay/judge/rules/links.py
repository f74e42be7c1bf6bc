"""Finds links and images in a text, HTML or plain, without rendering it.

Includes too much rather than too little: a link that a rule looks for may be in an attribute, in the text, or in raw
octets that could not be decoded.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# An attribute's value ends at its closing quote and may contain white space. Elsewhere a link ends at white space.
_VALUE = re.compile(rb"href\s*=\s*(?:\"([^\"]*)|'([^']*)|([^\s\"'<>]+))")
_REST = re.compile(rb"://[^\s\"'<>]+")
_SCHEME = re.compile(rb"[a-z][a-z0-9+.-]{0,30}\Z", re.IGNORECASE)
_LONGEST_SCHEME = 31
# The attributes before `src` hold no tag sign. The search takes linear time, since `<img` is in none of the pieces.
_IMAGE = re.compile(rb"<img\b[^<>]*?[\s\"'/]src\s*=\s*(?:\"([^\"<>]*)|'([^'<>]*)|([^\s\"'<>]+))", re.IGNORECASE)
# Character references that can hide the characters by which a link is found.
_HIDING_REFERENCES = (b"&#", b"&colon", b"&sol")
# Browsers remove these from a URL (URL Living Standard, section 4.4).
_REMOVED_BY_BROWSERS = b"\t\r\n"
_LEADING_ZEROS = re.compile(rb"(&#[xX]?)0++(?=[0-9a-fA-F])")
# More digits than any character has. `int` refuses thousands of digits.
_NO_CHARACTER = re.compile(rb"&#(?:[0-9]{9,}+|[xX][0-9a-fA-F]{9,}+);?")


def find_links(text: bytes) -> list[bytes]:
    """Returns all links without repetitions. Character references are resolved."""
    found = list(_in_attributes(text))
    if b"&" in text and any(reference in text for reference in _HIDING_REFERENCES):
        text = resolve_references(text)
    found += _in_text(text)
    unresolved = [link for link in found if b"&" in link]
    if unresolved:
        # One call for all links is many times faster. NUL is in no reference and in no decoded text.
        found = [link for link in found if b"&" not in link] + resolve_references(b"\0".join(unresolved)).split(b"\0")
    return list(dict.fromkeys([link.translate(None, _REMOVED_BY_BROWSERS) for link in found]))


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


def _in_text(text: bytes) -> Iterator[bytes]:
    at = text.find(b"://")
    while at >= 0:
        end = at + len(b"://")
        scheme = _SCHEME.search(text, max(0, at - _LONGEST_SCHEME), at)
        rest = scheme and _REST.match(text, at)
        if scheme and rest:
            end = rest.end()
            yield text[scheme.start() : end]
        at = text.find(b"://", end)


def find_images(text: bytes) -> list[bytes]:
    """Returns the `src` of all images of an HTML text without repetitions. Character references are resolved."""
    found = [match[match.lastindex or 0] for match in _IMAGE.finditer(text)]
    if any(b"&" in source for source in found):
        found = resolve_references(b"\0".join(found)).split(b"\0")
    return list(dict.fromkeys([source.translate(None, _REMOVED_BY_BROWSERS) for source in found]))


def resolve_references(octets: bytes) -> bytes:
    """Returns the text with its character references resolved."""
    if b"&#" in octets:
        octets = _NO_CHARACTER.sub("\ufffd".encode(), _LEADING_ZEROS.sub(rb"\1", octets))
    return html.unescape(octets.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
