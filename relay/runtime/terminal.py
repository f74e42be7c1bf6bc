"""Foreign text, such as a server's reply, made safe for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Escapes what is not a visible character: controls, direction marks, special blanks. ESC becomes `\x1b`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
