"""Text: charset to Unicode to the one form that is compared. What cannot be decoded for certain is not text.

The form of a plain text is UTF-8 in NFC, with each run of ASCII white space, line ends included, folded to one space
and none at the ends. No-break spaces and zero-width characters stay: somebody put them there. HTML is folded too, but
its code points stay: NFC would make `>` and a stroke one character. Any other text keeps all but its line ends.
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
    r"[\\~\xa2\xa3\xa5\xac\xb7\u1e3f\u2014-\u2016\u203e\u20a9\u2212\u2225\u301c\u30fb\u9fb4-\u9fbb\ue000-\uf8ff"
    r"\ufe10-\ufe19\uff0d\uff5e\uffe0-\uffe6]"
)
# RFC 2319 has frames where later tables have the letter of Belarusian.
_DIFFERING_IN_KOI8_U = re.compile(r"[\u255d\u256c]")
# KS X 1001 annex 3: eight octets that make up one syllable, which most readers show as letters.
_MADE_UP = b"\xa4\xd4"
# Readers take ISO 8859 for its Windows cousin, where these are letters and signs: what is seen would be a guess.
_C1_CONTROL = re.compile("[\x80-\x9f]")
# Characters that are never composed with the one before them, nor replaced: a text of these and ASCII is in NFC. Only
# those that are common in mail; Python's own check looks at every character of the text.
_ALWAYS_NFC = re.compile(
    "[\x80-\u02ff\u0400-\u0482\u048a-\u052f\u2010-\u2027\u2030-\u205e\u20a0-\u20bf\u2190-\u2328\u2500-\u2abf"
    "\u3001-\u3029\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3\ufe0f\U0001f300-\U0001faff]*"
)
_ASCII = bytes(range(0x80))
# What NFC makes ASCII (`;`, a backquote, K), and the stroke that it joins to `<`, `=` and `>`, whatever marks stand
# between: these are signs of markup, of addresses and of tokens. To whoever serves an address it is octets.
_NOT_FOR_NFC = re.compile("[\u037e\u1fef\u212a\u0338]|://")
# In the value of an attribute white space may be part of an address. A value ends at `<` and `>` here: behind them
# it is not certain that it is one.
_SPACE_IN_VALUE = re.compile(
    rb"(=[ \t\r\n\f]*+)(\"(?>(?:[^\"<>\t\r\n\f ]++| (?! ))*)[\t\r\n\f ][^\"<>]*+\""
    rb"|'(?>(?:[^'<>\t\r\n\f ]++| (?! ))*)[\t\r\n\f ][^'<>]*+')"
)
# Octets that stand in no UTF-8.
_SPACES, _KEPT = b" \t\r\n\f", b"\xfb\xfc\xfd\xfe\xff"
_KEEP = bytes.maketrans(_SPACES, _KEPT)
_GIVE_BACK = bytes.maketrans(_KEPT, _SPACES)
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
    return text if charset in UNICODE or _is_certain(text, codec, octets) else None


def _is_certain(text: str, codec: str, octets: bytes) -> bool:
    """Say whether all readers see this text in these octets, as far as we know their tables."""
    if codec not in _EAST_ASIAN:
        differing = _DIFFERING_IN_KOI8_U if codec == "koi8-u" else _C1_CONTROL
        return not (codec.startswith(("iso8859", "koi8-u")) and differing.search(text))
    if _DIFFERING.search(text) or (codec == "euc_kr" and _MADE_UP in octets):
        return False
    try:  # Of two spellings of one text some readers know only one, or make two texts of them.
        return text.encode(codec) == octets
    except UnicodeEncodeError:
        return False


def read_text(octets: bytes, charset: str) -> bytes | None:
    """Decode and fold a plain text, or give None: as `decode_text` and `fold_text` do, and quicker for most mail."""
    if not (octets.isascii() and charset in UNICODE):
        text = decode_text(octets, charset)
        if text is None:
            return None
        if charset not in UNICODE or not _ALWAYS_NFC.fullmatch(octets.translate(None, _ASCII).decode()):
            return fold_text(text)
    if _is_no_text(octets):
        return fold_text(octets.decode())
    return b" ".join(octets.split())


def read_html(octets: bytes, charset: str) -> bytes | None:
    """Decode and fold HTML, or give None. In the value of an attribute line ends, tabs and rows of blanks stay."""
    source = _read_source(octets, charset)
    if source is None:
        return None
    kept = _SPACE_IN_VALUE.sub(lambda found: found[1] + found[2].replace(b"\r\n", b"\n").translate(_KEEP), source)
    folded = b" ".join(kept.split())
    return folded if kept is source else folded.translate(_GIVE_BACK)


def read_lines(octets: bytes, charset: str) -> bytes | None:
    """Decode a text in which lines, tabs and columns mean something; only line ends are made alike."""
    source = _read_source(octets, charset)
    return None if source is None else source.replace(b"\r\n", b"\n")


def _read_source(octets: bytes, charset: str) -> bytes | None:
    """Give the code points as they are, in UTF-8."""
    if not (octets.isascii() and charset in UNICODE):
        text = decode_text(octets, charset)
        if text is None:
            return None
        octets = octets if charset in UNICODE else text.encode()
    return None if _is_no_text(octets) else octets


def _is_no_text(octets: bytes) -> bool:
    # NUL is our own mark for what is left out, and a vertical tab is white space to Python but not to HTML. Behind an
    # escape some readers see Japanese (RFC 1468), whatever the label says.
    return b"\0" in octets or b"\v" in octets or b"\x1b" in octets or len(octets) > TEXT_LIMIT


def fold_text(text: str) -> bytes | None:
    """Give the form of a plain text that is compared, or None where it holds what no text holds."""
    if "\0" in text or "\v" in text or "\x1b" in text or len(text) > TEXT_LIMIT:
        return None
    if not (text.isascii() or unicodedata.is_normalized("NFC", text) or _NOT_FOR_NFC.search(text)):
        if _LONG_RUN.search(text):
            return None
        text = unicodedata.normalize("NFC", text)
    return b" ".join(text.encode().split())
