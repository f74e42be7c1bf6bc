"""Content-Transfer-Encoding undone (RFC 2045 section 6), strictly: what a reader would have to guess is None."""

from __future__ import annotations

import binascii
import re

CHUNK = 1 << 20
"""Bytes decoded at once: binascii holds the GIL while it works, a few milliseconds for a megabyte."""
IDENTITY = frozenset(("7bit", "8bit", "binary"))
# Section 6.7: `=` is followed by two hexadecimal digits or by the end of the line. Readers take lower case too.
_BAD_ESCAPE = re.compile(rb"=(?![0-9A-Fa-f]{2}|\r?\n)")


def decode_transfer(body: bytes, encoding: str, *, chunk: int = CHUNK) -> bytes | None:
    """Give the octets that were encoded, or None where the encoding is not known or broken."""
    if encoding in IDENTITY:
        return body
    if encoding == "quoted-printable":
        return _quoted_printable(body, chunk)
    if encoding == "base64":
        return _base64(body, chunk)
    return None


def _quoted_printable(body: bytes, chunk: int) -> bytes | None:
    pieces = []
    start = 0
    while start < len(body):
        stop = len(body)
        if stop - start > chunk:
            stop = body.rfind(b"\n", start, start + chunk) + 1
            if not stop:
                return None  # A line of a megabyte: section 6.7 rule 5 allows 76 characters.
        piece = body[start:stop]
        if not piece.isascii() or _BAD_ESCAPE.search(piece):
            return None
        pieces.append(binascii.a2b_qp(piece))
        start = stop
    return b"".join(pieces)


def _base64(body: bytes, chunk: int) -> bytes | None:
    pieces = []
    rest, padded = b"", False
    for start in range(0, len(body), chunk):
        piece = rest + body[start : start + chunk].translate(None, b"\r\n")
        if padded and piece:
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
    return None if rest else b"".join(pieces)
