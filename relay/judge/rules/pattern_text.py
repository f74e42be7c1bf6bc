"""What the text of a pattern tells about its matches. In doubt the answers are the cautious ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from relay.judge.rules.pattern import Pattern

if TYPE_CHECKING:
    from collections.abc import Collection

_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
# A caret at the start of a class (`[^a]`) is not an anchor.
_ANCHOR = re.compile(r"(?<!\[)\^|\$")
_ESCAPED_ANCHORS = frozenset("AzbBQ")
# These have another meaning in one of several joined lines: ends of the whole text, literal text without an end, flags
# turned off.
_NOT_JOINABLE = re.compile(r"\\[AzQ]|\(\?[a-zA-Z]*-")


def is_local(text: str) -> bool:
    """Returns whether every match in a piece of a text is a match in the whole text too."""
    escaped = _ESCAPED.findall(text)
    return _ESCAPED_ANCHORS.isdisjoint(escaped) and not _ANCHOR.search(_ESCAPED.sub("", text))


def join_patterns(texts: Collection[str]) -> Pattern | None:
    """Returns a pattern that matches values joined by line feeds wherever one of the patterns matches a value.

    Returns None if that is not certain.
    """
    if not texts or any(map(_NOT_JOINABLE.search, texts)):
        return None
    try:
        return Pattern("(?m)" + "|".join(f"(?:{text})" for text in texts))
    except ValueError:
        return None  # Each pattern is small enough, all together are too large.
