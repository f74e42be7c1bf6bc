"""Text decoded from its charset to the one form that is compared. Text that readers may decode differently gives None.

- Header values: UTF-8 in NFC. Each run of ASCII white space, line ends included, is folded to one space; none is left
  at the ends. No-break spaces and zero-width characters stay, because an author put them there.
- Plain text: UTF-8 in NFC, as displayed. Line breaks, indentation and runs of blanks count. Blanks at line ends, the
  kind of line end, and empty lines at the very end do not.
- HTML: white space is folded where a browser folds it. Its code points stay, because NFC would join `>` and a stroke to
  one character.
- Any other text: only its line ends are normalised.
"""

from __future__ import annotations

import re
import unicodedata

import re2

TEXT_LIMIT = 1 << 20
"""Bytes. Longer text is compared byte for byte, so that no step below holds the GIL for long."""

UNICODE = frozenset(("us-ascii", "ascii", "utf-8", "utf8"))
"""Charsets whose octets are valid UTF-8 wherever they decode."""
STATEFUL = frozenset(("iso-2022-jp",))
"""Charsets in which the meaning of a byte depends on the bytes before it."""
# Without parts 6 and 8, whose letters are stored in the order of display, from left to right (RFC 1556).
_ISO_8859 = frozenset((*(f"iso-8859-{part}" for part in (*range(1, 6), 7, 9, 10, 11, *range(13, 17))), "latin1"))
_WINDOWS = {f"{prefix}{page}": f"cp{page}" for prefix in ("windows-", "cp") for page in (874, *range(1250, 1259))}
_EAST_ASIAN = frozenset(("iso-2022-jp", "shift_jis", "euc-jp", "gb2312", "gbk", "gb18030", "big5", "euc-kr"))
# Python's codec for each charset. Only codecs that always give the same text for the same bytes, and that neither
# expand nor execute their input: `utf-7`, `unicode_escape`, `idna` and the like are missing.
_CODECS = {name: name for name in (*UNICODE, *_ISO_8859, "koi8-r", "koi8-u", *_EAST_ASIAN)} | _WINDOWS
# RFC 1468: a line ends in the first state. Where it does not, readers differ about the next line.
_OPEN_STATE = re.compile(rb"\x1b(?!\(B)[^\x1b]*(?:[\r\n]|\Z)")
# KS X 1001 annex 3: eight octets that make up one syllable, which most readers show as separate letters. JIS X 0212,
# which some readers do not know.
_DIFFERING_OCTETS = {"euc-kr": b"\xa4\xd4", "euc-jp": b"\x8f"}
# Backslash, yen and won; tilde and overline; dashes, waves and signs that have two places in Unicode; and DEL, which
# one reader makes another control of.
_DIFFERING_EAST_ASIAN = (
    r"\\~\x7f\xa2\xa3\xa5\xac\xb7\u1e3f\u2014-\u2016\u203e\u20a9\u2212\u2225\u301c\u30fb\u9fb4-\u9fbb\ue000-\uf8ff"
    r"\ufe10-\ufe19\uff0d\uff5e\uffe0-\uffe6"
)
# Characters for which the tables of readers differ: CPython's, PHP's mbstring, glibc's iconv, iconv-lite and the
# Encoding Standard's, as Node.js has it. `test_readers.py` compares them.
_DIFFERING = {
    # Readers decode ISO 8859 as its Windows cousin, in which these are letters and signs.
    **dict.fromkeys(_ISO_8859, re.compile("[\x80-\x9f]")),
    # RFC 2319 has frames where later tables have the letter of Belarusian.
    "koi8-u": re.compile(r"[\u255d\u256c]"),
    # Node.js 18 to 23 shows the octets 80 to 9F as controls.
    **dict.fromkeys(("windows-1252", "cp1252"), re.compile("[^\0-\x7f\xa0-\xff]")),
    **dict.fromkeys(_EAST_ASIAN, re.compile(f"[{_DIFFERING_EAST_ASIAN}]")),
    # A2E6 and A2E7, which are newer than most tables.
    "euc-kr": re.compile(f"[{_DIFFERING_EAST_ASIAN}\u20ac\xae]"),
    # C6A1 to C7FC, where every vendor has other letters, and single signs.
    "big5": re.compile(
        f"[{_DIFFERING_EAST_ASIAN}\u02cd\u0401\u0414-\u041c\u0423-\u044f\u0451\u2022\u223c\u2460-\u2469\u2474-\u247d"
        r"\u2574\u2609\u2641\u3005\u3041-\u3093\u309d-\u309e\u30a1-\u30f6\u30fe\uff0f\uff3c\uff64]"
    ),
}
# Not text: NUL stands for what an ignore removes, and a vertical tab is white space to Python but not to HTML. After an
# escape some readers show Japanese (RFC 1468), whatever the label says.
_CONTROLS = "\0\v\x1b"
# NFC turns the first three into ASCII (`;`, a backquote, K), and joins the stroke to `<`, `=` and `>`, even with other
# marks between them. These are signs of markup, addresses and tokens. A server compares an address octet by octet.
_NOT_FOR_NFC = re.compile("[\u037e\u1fef\u212a\u0338]|://")
# CPython sorts combining characters by insertion, so that a hostile run of them takes quadratic time. Real runs are
# short (UAX #15 section 13 allows 30).
_LONG_RUN = re.compile("(?<![^\0-\u02ff])[^\0-\u02ff]{256}")
# The value of an attribute that holds other white space than single spaces; it may be part of an address. A value ends
# at `<` and `>` here, because after these it may not be a value.
_SPACE_IN_VALUE = re.compile(
    rb"=[ \t\r\n\f]*+(\"(?>(?:[^\"<>\t\r\n\f ]++| (?! ))*)[\t\r\n\f ][^\"<>]*+\""
    rb"|'(?>(?:[^'<>\t\r\n\f ]++| (?! ))*)[\t\r\n\f ][^'<>]*+')"
)
# From the first of these on white space may count (HTML Living Standard, section 15.3.1; SVG 1.1, section 10.15).
# Before it no such element can be open. Where one ends is less certain: an end tag may be part of a value or a comment.
_PREFORMATTED = (b"<pre", b"<textarea", b"<xmp", b"<listing", b"<plaintext", b"xml:space")
# What a style needs to let white space count in any element: the property, letters of it written as numbers, or Word's
# property for runs of blanks, which Outlook shows. A style without quotes is not searched to its end for a number: that
# would take quadratic time.
_WHITE_SPACE_PROPERTIES = (b"white-space", b"text-wrap", b"\\", b"@import", b"<link", b"mso-spacerun")
_REFERENCE_IN_STYLE = re.compile(rb"style\s*+=\s*+(?:\"[^\"<>&]*+&|'[^'<>&]*+&|[^\s\"'<>])")
# All white space but single spaces, which most are and which folding leaves.
_WHITE_SPACE = re.compile(rb"[\t\r\n\f][ \t\r\n\f]*+| [ \t\r\n\f]++")
# White space that counts wherever it is: in a style sheet a line end may close a string, and a value may go on
# after `<` or `>`. Where an equals sign inside a value is followed by a quote mark, even the one that closes the value,
# `_SPACE_IN_VALUE` could take the space between two values for a value.
_SPACE_THAT_COUNTS = re.compile(
    rb"<style\b(?![^<>]*+></style)"
    rb"|=[ \t\r\n\f]*+(?>\"[^\"<>=]*+(?>(?:=(?![ \t\r\n\f]*+[\"'])[^\"<>=]*+)*)[<>=]"
    rb"|'[^'<>=]*+(?>(?:=(?![ \t\r\n\f]*+[\"'])[^'<>=]*+)*)[<>=]"
    rb"|[^ \t\r\n\f\"'<>=]++=[ \t\r\n\f]*+[\"'])"
)
# Where a line ends between two Chinese or Japanese characters, or beside a zero-width space, some browsers show no
# space (CSS Text Module Level 3, section 4.1.3).
_UNSHOWN_LINE_END = re.compile(
    rb"[\xe2-\xef][\x80-\xbf]{2}[ \t]*+\r?\n[ \t\r\n\f]*+[\xe2-\xef]"
    rb"|\xe2\x80\x8b[ \t]*+\r?\n|\n[ \t\r\n\f]*+\xe2\x80\x8b"
)
# Finds all that the patterns above find, and more. Most pages have nothing of the kind, and RE2 reads them in one pass:
# the searches one by one take as long as all the rest of the decoding of a notification.
_BYTES = re2.Options()
_BYTES.encoding = re2.Options.Encoding.LATIN1
_WHITE_SPACE_MAY_COUNT = re2.compile(
    rb"(?i)<(?:pre|textarea|xmp|listing|plaintext|link)|xml:space|white-space|text-wrap|\\|@import|mso-spacerun"
    rb"|<style[^<>]*(?:\z|<|>(?:\z|[^<]|<(?:\z|[^/]|/(?:\z|[^s]|s(?:\z|[^t]|t(?:\z|[^y]|y(?:\z|[^l]|l(?:\z|[^e]))))))))"
    rb"|style\s*=\s*(?:\"[^\"<>&]*&|'[^'<>&]*&|[^\s\"'<>])"
    rb"|[\xe2-\xef][\x80-\xbf]{2}[ \t\r]*\n[ \t\r\n\f]*[\xe2-\xef]|\xe2\x80\x8b[ \t\r]*\n|\n[ \t\r\n\f]*\xe2\x80\x8b"
    rb"|=[ \t\r\n\f]*\"(?:(?: ?[^\"<>\t\r\n\f ])*(?: ?[<>\t\r\n\f]|  )|[^\"<>]*=[ \t\r\n\f]*[\"'])"
    rb"|=[ \t\r\n\f]*'(?:(?: ?[^'<>\t\r\n\f ])*(?: ?[<>\t\r\n\f]|  )|[^'<>]*=[ \t\r\n\f]*[\"'])"
    rb"|=[ \t\r\n\f]*[^ \t\r\n\f\"'<>=]+=[ \t\r\n\f]*[\"']",
    _BYTES,
)


def decode_text(octets: bytes, charset: str) -> str | None:
    """Returns the text that all readers see in these octets, as far as their tables are known; else None.

    `charset` is the label in lower case.
    """
    codec = _CODECS.get(charset)
    if codec is None or (charset in STATEFUL and _OPEN_STATE.search(octets)):
        return None
    try:
        text = octets.decode(codec)
        # Of two spellings of one text some readers know only one, or see two texts.
        if charset in _EAST_ASIAN and text.encode(codec) != octets:
            return None
    except UnicodeError:
        return None
    differing = _DIFFERING.get(charset)
    if differing and differing.search(text):
        return None
    unclear = _DIFFERING_OCTETS.get(charset)
    return None if unclear and unclear in octets else text


def fold_text(text: str) -> bytes | None:
    """Returns the form in which a header value is compared; None if it is too long or holds control characters."""
    composed = _compose(text)
    return None if composed is None else b" ".join(composed.split())


def display_text(text: str) -> bytes | None:
    """Returns the form in which a plain text is compared; None if it is too long or holds control characters."""
    composed = _compose(text)
    if composed is None:
        return None
    lines = composed.replace(b"\r\n", b"\n")
    if lines.find(b" \n") >= 0 or lines.find(b"\t\n") >= 0:
        lines = b"\n".join([line.rstrip(b" \t") for line in lines.split(b"\n")])
    return lines.rstrip(b" \t\n")


def read_text(octets: bytes, charset: str) -> bytes | None:
    """Decodes and folds a header value; returns None if it is not certain."""
    text = decode_text(octets, charset)
    return None if text is None else fold_text(text)


def read_plain(octets: bytes, charset: str) -> bytes | None:
    """Decodes a plain text to the form in which it is displayed; returns None if it is not certain."""
    text = decode_text(octets, charset)
    return None if text is None else display_text(text)


def read_html(octets: bytes, charset: str) -> bytes | None:
    """Decodes HTML and folds its white space where a browser folds it; returns None if it is not certain.

    In values of attributes line ends, tabs and runs of blanks stay. In a page that `may_keep_white_space`, or has
    values or style sheets in which it may count, and from an element such as `pre` on, only line ends are normalised.
    """
    source = _decode_to_utf8(octets, charset)
    if source is None:
        return None
    if not _WHITE_SPACE_MAY_COUNT.search(source):
        return b" ".join(source.split())
    lower = source.lower()
    if (
        _may_keep_white_space(lower)
        or _SPACE_THAT_COUNTS.search(lower)
        or (not source.isascii() and _UNSHOWN_LINE_END.search(source))
    ):
        return source.replace(b"\r\n", b"\n")
    start = min([lower.find(each) for each in _PREFORMATTED if each in lower], default=len(source))
    folded = _fold_around_values(source[:start])
    return folded + source[start:].replace(b"\r\n", b"\n") if start < len(source) else folded.rstrip(b" ")


def may_keep_white_space(source: bytes) -> bool:
    """Returns whether a style in a page or style sheet may let browsers show its white space as it is."""
    return _may_keep_white_space(source.lower())


def _may_keep_white_space(lower: bytes) -> bool:
    return any(each in lower for each in _WHITE_SPACE_PROPERTIES) or _REFERENCE_IN_STYLE.search(lower) is not None


def _fold_around_values(source: bytes) -> bytes:
    pieces: list[bytes] = []
    start = 0
    for found in _SPACE_IN_VALUE.finditer(source):
        pieces += (_WHITE_SPACE.sub(b" ", source[start : found.start(1)]), found[1].replace(b"\r\n", b"\n"))
        start = found.end()
    pieces.append(_WHITE_SPACE.sub(b" ", source[start:]))
    return b"".join(pieces).lstrip(b" ")


def read_lines(octets: bytes, charset: str) -> bytes | None:
    """Decodes a text in which lines, tabs and columns have a meaning, and normalises line ends; None if not certain."""
    source = _decode_to_utf8(octets, charset)
    return None if source is None else source.replace(b"\r\n", b"\n")


def _decode_to_utf8(octets: bytes, charset: str) -> bytes | None:
    """Returns the code points unchanged, as UTF-8."""
    text = decode_text(octets, charset)
    if text is None or _has_controls(text):
        return None
    source = octets if charset in UNICODE else text.encode()
    return source if len(source) <= TEXT_LIMIT else None


def _compose(text: str) -> bytes | None:
    """Returns a text in NFC, as UTF-8; None if it is too long or holds control characters."""
    if len(text) > TEXT_LIMIT or _has_controls(text):
        return None
    if not (text.isascii() or unicodedata.is_normalized("NFC", text) or _NOT_FOR_NFC.search(text)):
        if _LONG_RUN.search(text):
            return None
        text = unicodedata.normalize("NFC", text)
    return text.encode()


def _has_controls(text: str) -> bool:
    return any(map(text.__contains__, _CONTROLS))
