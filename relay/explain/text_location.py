"""Names the place of a difference inside a text or an HTML page: a link, an attribute, a comment, a style sheet."""

from __future__ import annotations

import re

# Possessive, and matched from the beginning of the tag only: one tag may have 50 MB.
_ATTRIBUTE = re.compile(r"(?<![^\s\"'<>/=])([^\s\"'<>/=]++)\s*+=\s*+(?:\"[^\"]*+|'[^']*+|[^\s\"'>]*+)\Z")
_TAG = re.compile(r"<(\w*)")
_RAW_TEXT = (("<!--", "-->", "a comment"), ("<style", "</style", "a style sheet"), ("<script", "</script", "a script"))
_LONGEST_LINK = 2048


def describe_location(text: str, at: int) -> str:
    """Returns what is at an offset of a text: a link, an attribute, a comment, or just the text."""
    for opening, closing, name in _RAW_TEXT:
        start = text.rfind(opening, 0, at)
        if start >= 0 and text.find(closing, start + len(opening), at) < 0:
            return name
    tag = text.rfind("<", 0, at)
    if tag >= 0 and tag > text.rfind(">", 0, at) and (match := _TAG.match(text, tag)) and (match[1] or at == tag + 1):
        return _describe_attribute(match[1].lower(), _ATTRIBUTE.search(text, tag, at))
    word = text[max(0, at - _LONGEST_LINK) : at].rsplit(maxsplit=1)
    return "a link" if word and "://" in word[-1] and not text[at - 1].isspace() else "the text"


def _describe_attribute(tag: str, match: re.Match[str] | None) -> str:
    if not match:
        return "a tag"
    name = match[1].lower()
    if name == "href":
        return "a link"
    return "the address of an image" if (tag, name) == ("img", "src") else f"the attribute {name}"
