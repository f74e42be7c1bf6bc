"""Single changes to a message that a reader could see.

They change the source at places that patterns find, and share no code with the parser that they test. Where a part is
encoded, they change what is encoded.
"""

from __future__ import annotations

import base64
import binascii
import re
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LETTER = re.compile(rb"[A-Za-z0-9]")
_WORD = re.compile(rb"(?<![A-Za-z0-9])[A-Za-z0-9]{2,}(?=[ \r\n.,!?<])")
_SCHEME = re.compile(rb"(?i)cid(?=:)")
_LINK = re.compile(rb"(?:href=[\"']?|https?://)[^\s\"'<>]*[A-Za-z0-9]")
_SOURCE = re.compile(rb"\bsrc=[\"']?[^\s\"'<>?]*[A-Za-z0-9]")
_FILE_NAME = re.compile(rb"(?i)(?<=[; \t])(?:file)?name(?:\*[0-9]*\*?)?=\"?(?:[a-z0-9-]*'[a-z]*')?[^\s\";]*[A-Za-z0-9]")
_BASE64 = re.compile(
    rb"(?i)content-transfer-encoding: *base64.*?\r?\n\r?\n([a-z0-9+/=\r\n]+?)(?=\r?\n--|\r?\n?\Z)", re.DOTALL
)
_BOUNDARY = re.compile(rb"(?i)boundary=(?:\"([^\"\r\n]+)\"|([^\s;\"]+))")
_SHOWN = re.compile(rb"(?i)^(subject|from): *", re.MULTILINE)
# Without the character before the padding of base64, some of whose bits encode nothing.
_ENCODED_WORD = re.compile(rb"=\?[^?\s]+\?[bBqQ]\?([^?\s]*?)(?:[^?\s]=+)?\?=")


class Mutation(NamedTuple):
    """The kind of change, its offset, and the changed message."""

    kind: str
    at: int
    content: bytes


def mutations(content: bytes, choose: Callable[[list[int]], list[int]]) -> Iterator[Mutation]:
    """Yields changed messages. `choose` selects from all offsets at which a kind of change can be made."""
    start = body_start(content)
    shown = visible(content, start)
    changes: list[tuple[str, list[int], Callable[[int], bytes]]] = [
        ("a letter or digit", shown, lambda at: _replace_character(content, at)),
        ("a case", _plain_letters(content, shown), lambda at: _overwrite(content, at, content[at : at + 1].swapcase())),
        ("a letter more", shown, lambda at: content[:at] + b"7" + content[at:]),
        ("a letter less", shown, lambda at: content[:at] + content[at + 1 :]),
        ("a link", _ends(_LINK, content, start), lambda at: _replace_character(content, at)),
        ("the source of an image", _ends(_SOURCE, content, start), lambda at: _replace_character(content, at)),
        ("the name of a file", _ends(_FILE_NAME, content, 0), lambda at: _replace_character(content, at)),
        ("Subject or From", _header_letters(content, start), lambda at: _replace_character(content, at)),
    ]
    for kind, places, change in changes:
        for at in choose(places):
            yield Mutation(kind, at, change(at))
    words = {found.start(): found[0] for found in _WORD.finditer(content, start) if found.start() in set(shown)}
    for at in choose(list(words)):
        yield Mutation("a word less", at, content[:at] + content[at + len(words[at]) :])
        yield Mutation("a word twice", at, content[:at] + words[at] + b" " + content[at:])
    yield from _changed_octets(content, choose)
    yield from _swapped_parts(content)


def body_start(content: bytes) -> int:
    """Returns the offset of the first empty line, or 0."""
    return max(content.find(b"\r\n\r\n"), content.find(b"\n\n"), 0)


def visible(content: bytes, start: int) -> list[int]:
    """Returns the offsets of letters and digits outside of the header sections of parts and of boundaries."""
    found = []
    in_header = False
    at = start
    for line in content[start:].splitlines(keepends=True):
        if line.startswith(b"--"):
            in_header = True
        elif not line.strip():
            in_header = False
        elif not in_header:
            found += [at + letter.start() for letter in _LETTER.finditer(line)]
        at += len(line)
    return found


def _plain_letters(content: bytes, shown: list[int]) -> list[int]:
    """Returns the offsets of letters whose case a reader sees: no quoted-printable digits, nor the scheme of a URL."""
    if b"quoted-printable" in content.lower():
        return []
    schemes = {at for found in _SCHEME.finditer(content) for at in range(*found.span())}
    return [at for at in shown if content[at : at + 1].isalpha() and at not in schemes]


def _ends(pattern: re.Pattern[bytes], content: bytes, start: int) -> list[int]:
    return [found.end() - 1 for found in pattern.finditer(content, start)]


def _header_letters(content: bytes, end: int) -> list[int]:
    """Returns the offsets of letters in Subject and From; in an encoded word only those of the encoded text."""
    found = []
    for field in _SHOWN.finditer(content, 0, end):
        stop = re.compile(rb"\r?\n(?![ \t])").search(content, field.end(), end + 1)
        last = stop.start() if stop else end
        words = list(_ENCODED_WORD.finditer(content, field.end(), last))
        for letter in _LETTER.finditer(content, field.end(), last):
            at = letter.start()
            around = next((word for word in words if word.start() <= at < word.end()), None)
            if around is None or around.start(1) <= at < around.end(1):
                found.append(at)
    return found


def _changed_octets(content: bytes, choose: Callable[[list[int]], list[int]]) -> Iterator[Mutation]:
    """Yields messages with one changed octet in what base64 encodes."""
    for block in _BASE64.finditer(content):
        try:
            octets = base64.b64decode(block[1], validate=False)
        except binascii.Error:
            continue
        # White space is folded in texts, and a changed line end may be white space too.
        for at in choose([at for at, octet in enumerate(octets) if octet not in b"\r\n"]):
            changed = base64.encodebytes(_overwrite(octets, at, bytes([octets[at] ^ 1]))).strip()
            yield Mutation(
                "an octet of base64", block.start(1), content[: block.start(1)] + changed + content[block.end(1) :]
            )


def _swapped_parts(content: bytes) -> Iterator[Mutation]:
    """Yields messages in which two neighbouring parts that differ are swapped."""
    for boundary in {(found[1] or found[2]).rstrip() for found in _BOUNDARY.finditer(content)}:
        delimiter = re.compile(rb"\r?\n--%b(?=[ \t]*\r?\n)" % re.escape(boundary))
        close = content.rfind(b"\n--" + boundary + b"--")
        starts = [found.end() for found in delimiter.finditer(content) if found.start() < close]
        for first, second in pairwise(starts):
            middle = delimiter.search(content, first)
            last = delimiter.search(content, second, close)
            stop = last.start() if last else close - (content[close - 1 : close] == b"\r")
            if middle is None or content[first : middle.start()] == content[second:stop]:
                continue
            between = content[middle.start() : second]
            yield Mutation(
                "two parts swapped",
                first,
                content[:first] + content[second:stop] + between + content[first : middle.start()] + content[stop:],
            )


def _replace_character(content: bytes, at: int) -> bytes:
    return _overwrite(content, at, b"8" if content[at : at + 1] == b"7" else b"7")


def _overwrite(content: bytes, at: int, octets: bytes) -> bytes:
    return content[:at] + octets + content[at + len(octets) :]
