"""Operators' patterns: RE2, which takes linear time whatever the pattern and the text, so no pattern stalls the relay.

The syntax is RE2's; texts are UTF-8 octets. `(?i)` ignores case, `^` and `$` are the ends of the text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import re2

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEMORY = 4 << 20
"""Bytes that one compiled pattern may take."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern, compiled. Raises `ValueError` that says what is wrong and quotes the part."""

    text: str
    _regexp: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        options = re2.Options()
        options.log_errors = False
        options.max_mem = _MEMORY
        try:
            compiled = re2.compile(self.text.encode(), options)
        except re2.error as error:
            raise ValueError(_reason(error)) from None
        object.__setattr__(self, "_regexp", compiled)

    def search(self, octets: bytes) -> bool:
        """Say whether it matches anywhere."""
        return self._regexp.search(octets) is not None

    def fullmatch(self, octets: bytes) -> bool:
        """Say whether it matches the whole."""
        return self._regexp.fullmatch(octets) is not None

    def spans(self, octets: bytes) -> Iterator[tuple[int, int]]:
        """Give begin and end of every match that is not empty, from left to right, none overlapping."""
        return (found.span() for found in self._regexp.finditer(octets) if found.end() > found.start())


def _reason(error: re2.error) -> str:
    """RE2 says `missing ): (foo`: what, and where."""
    said = error.args[0] if error.args else b""
    what, colon, part = (said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)).partition(": ")
    return f'{what} at "{part}"' if colon else what
