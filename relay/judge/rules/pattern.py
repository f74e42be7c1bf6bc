"""Operators' patterns, in RE2 syntax.

RE2 takes linear time for every pattern and text, so no pattern stalls the relay. Texts are UTF-8 octets. `(?i)` ignores
case; `^` and `$` are the ends of the text. `is_local` and `join_patterns` examine a pattern's text, and in doubt give
the cautious answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import re2

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_MEMORY = 4 << 20
"""Bytes that one compiled pattern may take."""
_UNKNOWN_WEIGHT = 10_000
"""The weight of a pattern that cannot be weighed. Such a pattern compiles only as UTF-8."""
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
# A caret at the start of a class (`[^a]`) is not an anchor.
_ANCHOR = re.compile(r"(?<!\[)\^|\$")
# Anchors, literal text without an end, and any byte at all, even a line feed that a search excludes.
_NOT_LOCAL = frozenset("AzbBQC")
# These have another meaning in one of several joined lines: ends of the whole text, literal text without an end, flags
# turned off.
_NOT_JOINABLE = re.compile(r"\\[AzQ]|\(\?[a-zA-Z]*-")
_SPAN_GROUP = b"ignored"
"""The group that says which piece of a match an ignore leaves out. RE2 has no look-behind."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern. Raises `ValueError` that names the fault and quotes the part: `missing ) at "(foo"`."""

    text: str
    weight: int = field(init=False, repr=False, compare=False)
    """The instructions of the compiled program, with one byte for a character.

    RE2 takes up to 6 ns for each byte of a text and each instruction. In UTF-8 a class such as `\\pL` would have
    hundreds of instructions, although it costs no more than `[a-z]`.
    """
    _regexp: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            compiled = re2.compile(self.text.encode(), _options())
        except re2.error as error:
            raise ValueError(_reason(error)) from None
        object.__setattr__(self, "_regexp", compiled)
        object.__setattr__(self, "weight", _weight(self.text))

    def search(self, octets: bytes) -> bool:
        """Returns whether the pattern matches anywhere."""
        return self._regexp.search(octets) is not None

    def fullmatch(self, octets: bytes) -> bool:
        """Returns whether the pattern matches all octets."""
        return self._regexp.fullmatch(octets) is not None

    def spans(self, octets: bytes) -> Iterator[tuple[int, int]]:
        """Yields start and end of all matches that are not empty, from left to right, without overlaps.

        Of a pattern with a group named `ignored` the span of that group.
        """
        group = self._regexp.groupindex.get(_SPAN_GROUP, 0)
        return (found.span(group) for found in self._regexp.finditer(octets) if found.end(group) > found.start(group))


def _options() -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    return options


def _weight(text: str) -> int:
    options = _options()
    options.encoding = re2.Options.Encoding.LATIN1
    try:
        size: int = re2.compile(text.encode(), options).programsize
    except re2.error:
        return _UNKNOWN_WEIGHT
    return size


def is_local(text: str) -> bool:
    """Returns whether every match in a piece of a text is a match in the whole text too."""
    escaped = _ESCAPED.findall(text)
    return _NOT_LOCAL.isdisjoint(escaped) and not _ANCHOR.search(_ESCAPED.sub("", text))


def join_patterns(texts: Collection[str]) -> Pattern | None:
    """Returns a pattern that matches texts joined by line feeds wherever one of the patterns matches a text.

    Returns None if that is not certain.
    """
    if not texts or any(map(_NOT_JOINABLE.search, texts)):
        return None
    try:
        return Pattern("(?m)" + "|".join(f"(?:{text})" for text in texts))
    except ValueError:
        return None  # Each pattern is small enough, all together are too large.


def _reason(error: re2.error) -> str:
    """Returns the message with its parts in order. RE2 writes `missing ): (foo`: fault, colon, part of the pattern."""
    raw = error.args[0] if error.args else b""
    fault, colon, part = (raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)).partition(": ")
    return f'{fault} at "{part}"' if colon else fault
