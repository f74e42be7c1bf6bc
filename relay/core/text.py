"""Text: charset to Unicode to the one form that is compared. What cannot be decoded for certain is not text.

The form is UTF-8 in NFC, with each run of ASCII white space, line ends included, folded to one space and none at the
ends. No-break spaces and zero-width characters stay: somebody put them there.
"""

from __future__ import annotations

import re
import unicodedata

TEXT_LIMIT = 1 << 20
"""Bytes. Longer text is compared byte for byte, so that nothing below works long without letting go of the GIL."""

# Without 6 and 8, in which letters stand as they are seen, from left to right (RFC 1556).
_ISO_8859 = {f"iso-8859-{part}": f"iso8859-{part}" for part in (*range(1, 6), 7, 9, 10, 11, *range(13, 17))}
_WINDOWS = {f"{prefix}{page}": f"cp{page}" for prefix in ("windows-", "cp") for page in (874, *range(1250, 1259))}
# Only codecs that give the same text for the same bytes, and that neither expand nor execute what they read. `utf-7`,
# `unicode_escape`, `idna` and the like are none of them.
_CODECS = {
    "us-ascii": "ascii",
    "ascii": "ascii",
    "utf-8": "utf-8",
    "utf8": "utf-8",
    **_ISO_8859,
    "latin1": "iso8859-1",
    **_WINDOWS,
    "koi8-r": "koi8-r",
    "koi8-u": "koi8-u",
    "iso-2022-jp": "iso2022_jp",
    "shift_jis": "shift_jis",
    "euc-jp": "euc_jp",
    "gb2312": "gb2312",
    "gbk": "gbk",
    "gb18030": "gb18030",
    "big5": "big5",
    "euc-kr": "euc_kr",
}
STATEFUL = frozenset(("iso-2022-jp",))
"""Charsets in which a byte means what the bytes before it say."""
# RFC 1468: a line ends in the first state. Where it does not, readers differ about the next line.
_OPEN_STATE = re.compile(rb"\x1b(?!\(B)[^\x1b]*(?:[\r\n]|\Z)")
UNICODE = frozenset(("us-ascii", "ascii", "utf-8", "utf8"))
"""Charsets whose octets are UTF-8, if they are anything."""
_EAST_ASIAN = frozenset(("iso2022_jp", "shift_jis", "euc_jp", "gb2312", "gbk", "gb18030", "big5", "euc_kr"))
# Where the tables of readers differ: backslash, yen and won, tilde and overline, and dashes, waves and signs that
# have two places in Unicode.
_DIFFERING = re.compile(
    r"[\\~\xa2\xa3\xa5\xac\xb7\u2014-\u2016\u203e\u20a9\u2212\u2225\u301c\u30fb\uff0d\uff5e\uffe0-\uffe6]"
)
# Readers take ISO 8859 for its Windows cousin, where these are letters and signs: what is seen would be a guess.
_C1_CONTROL = re.compile("[\x80-\x9f]")
# Characters that are never composed with the one before them, nor replaced: a text of these and ASCII is in NFC. Only
# those that are common in mail; Python's own check looks at every character of the text.
_ALWAYS_NFC = re.compile(
    "[\x80-\u02ff\u0400-\u0482\u048a-\u052f\u2010-\u2027\u2030-\u205e\u20a0-\u20bf\u2190-\u2328\u2500-\u2abf"
    "\u3001-\u3029\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3\ufe0f\U0001f300-\U0001faff]*"
)
_ASCII = bytes(range(0x80))
# CPython sorts combining characters by insertion, so a hostile run of them takes quadratic time; real ones are short
# (UAX #15 section 13 allows 30).
_LONG_RUN = re.compile("(?<![^\0-\u02ff])[^\0-\u02ff]{256}")


def decode_text(octets: bytes, charset: str) -> str | None:
    """Decode strictly, or give None."""
    codec = _CODECS.get(charset)
    if codec is None or (charset in STATEFUL and _OPEN_STATE.search(octets)):
        return None
    try:
        text = octets.decode(codec)
    except UnicodeDecodeError:
        return None
    if codec.startswith("iso8859") and _C1_CONTROL.search(text):
        return None
    if codec in _EAST_ASIAN and _DIFFERING.search(text):
        return None
    return text


def read_text(octets: bytes, charset: str) -> bytes | None:
    """Decode and fold, or give None: the same as `decode_text` and `fold_text` in turn, and quicker for most mail."""
    if not (octets.isascii() and charset in UNICODE):
        text = decode_text(octets, charset)
        if text is None:
            return None
        if charset not in UNICODE or not _ALWAYS_NFC.fullmatch(octets.translate(None, _ASCII).decode()):
            return fold_text(text)
    if b"\0" in octets or b"\v" in octets or len(octets) > TEXT_LIMIT:
        return fold_text(octets.decode())
    return b" ".join(octets.split())


def fold_text(text: str) -> bytes | None:
    """Give the form that is compared, or None where the text holds what no text holds."""
    # NUL is our own mark for what is left out, and a vertical tab is white space to Python but not to HTML.
    if "\0" in text or "\v" in text or len(text) > TEXT_LIMIT:
        return None
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        if _LONG_RUN.search(text):
            return None
        text = unicodedata.normalize("NFC", text)
    return b" ".join(text.encode().split())
