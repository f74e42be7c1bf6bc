"""Text that somebody else has written, made fit for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Escape what is no visible character: controls, direction marks, odd blanks."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
