"""What can be told of a pattern by its text. In doubt the answer is the careful one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from relay.judge.rules.pattern import Pattern

if TYPE_CHECKING:
    from collections.abc import Collection

_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
# A caret that begins a class (`[^a]`) asks about no end.
_END = re.compile(r"(?<!\[)\^|\$")
_ESCAPED_ENDS = frozenset("AzbBQ")
# In one of many lines these would mean something else: the ends of all, literal text without an end, flags turned off.
_ABOUT_THE_WHOLE = re.compile(r"\\[AzQ]|\(\?[a-zA-Z]*-")


def is_local(text: str) -> bool:
    """Say whether what the pattern finds in a piece of a text, it finds in the whole text too."""
    escaped = _ESCAPED.findall(text)
    return _ESCAPED_ENDS.isdisjoint(escaped) and not _END.search(_ESCAPED.sub("", text))


def any_of(texts: Collection[str]) -> Pattern | None:
    """Join patterns: what one of them finds in a text, this one finds in many texts joined as lines. None in doubt."""
    if not texts or any(map(_ABOUT_THE_WHOLE.search, texts)):
        return None
    try:
        return Pattern("(?m)" + "|".join(f"(?:{text})" for text in texts))
    except ValueError:
        return None  # Each is small enough, all together are not.
