"""Text from a message, made fit for a terminal."""

from __future__ import annotations

_ESCAPES = {"\r": "\\r", "\n": "\\n", "\t": "\\t", "\0": "[ignored]"}


def printable(text: str) -> str:
    """Escape what is no visible character: controls, direction marks, odd blanks. NUL is what was left out."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _ESCAPES.get(char) or _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
