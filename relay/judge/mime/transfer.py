"""Content-Transfer-Encoding undone (RFC 2045 section 6), strictly: what a reader would have to guess is None."""

from __future__ import annotations

import binascii
import re

CHUNK = 1 << 16
"""Bytes decoded at once: little enough to stay in the processor's cache, and binascii holds the GIL while it works."""
LINE_LIMIT = 1 << 20
"""Bytes. RFC 2045 section 6.7 rule 5 allows 76 characters."""
IDENTITY = frozenset(("7bit", "8bit", "binary"))
# Section 6.7: `=` is followed by two hexadecimal digits or by the end of the line. Readers take lower case too.
# RFC 2045 section 6.7: blanks at the end of a line are no content for some decoders (3), and for others are.
_UNCERTAIN = re.compile(rb"=(?![0-9A-Fa-f]{2}|\r?\n)|[ \t](?:\r?\n|\Z)")


def decode_transfer(body: bytes, encoding: str) -> bytes | None:
    """Give the octets that were encoded, or None where the encoding is not known or broken."""
    pieces = decode_pieces(body, encoding)
    return None if pieces is None else b"".join(pieces)


def decode_pieces(body: bytes, encoding: str, *, chunk: int = CHUNK) -> list[bytes] | None:
    """Give the same in pieces, of a size that can be worked with without holding the GIL for long."""
    if encoding in IDENTITY:
        return [body]
    if encoding == "quoted-printable":
        return _quoted_printable(body, chunk)
    if encoding == "base64":
        return _base64(body, chunk)
    return None


def _quoted_printable(body: bytes, chunk: int) -> list[bytes] | None:
    pieces = []
    start = 0
    while start < len(body):
        stop = _end_of_line(body, start, chunk) or _end_of_line(body, start, LINE_LIMIT)
        if not stop:
            return None
        piece = body[start:stop]
        if not piece.isascii() or _UNCERTAIN.search(piece):
            return None
        pieces.append(binascii.a2b_qp(piece))
        start = stop
    return pieces


def _end_of_line(body: bytes, start: int, length: int) -> int:
    """Give where the last line ends that ends within the length, or 0."""
    return len(body) if len(body) - start <= length else body.rfind(b"\n", start, start + length) + 1


def _base64(body: bytes, chunk: int) -> list[bytes] | None:
    pieces = []
    start = 0
    while stop := _end_of_line(body, start, chunk) if len(body) - start > chunk else 0:
        piece = _whole_lines(body[start:stop])
        if piece is None:
            break
        pieces.append(piece)
        start = stop
    rest = _strict_base64(body, start, chunk)
    return None if rest is None else pieces + rest


def _whole_lines(lines: bytes) -> bytes | None:
    """Decode lines of nothing but letters, as nearly all are, in one step; None where it is not certain."""
    try:
        piece = binascii.a2b_base64(lines)
    except binascii.Error:
        return None
    # It skips what is no letter. Four letters make three octets, so then there are too few.
    letters = len(lines) - lines.count(b"\r") - lines.count(b"\n")
    return piece if len(piece) * 4 == letters * 3 else None


def _strict_base64(body: bytes, start: int, chunk: int) -> list[bytes] | None:
    pieces = []
    rest, padded = b"", False
    for at in range(start, len(body), chunk):
        piece = rest + body[at : at + chunk].translate(None, b"\r\n")
        if not piece:
            continue
        if padded:
            return None
        whole = len(piece) // 4 * 4
        piece, rest = piece[:whole], piece[whole:]
        try:
            pieces.append(binascii.a2b_base64(piece, strict_mode=True))
        except binascii.Error:
            return None
        padded = piece.endswith(b"=")
        # RFC 4648 section 3.5: bits that belong to no octet are zero, and decoders differ where they are not.
        if padded and binascii.b2a_base64(pieces[-1][-(len(pieces[-1]) % 3) :], newline=False) != piece[-4:]:
            return None
    return None if rest else pieces
