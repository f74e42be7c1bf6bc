"""Header field values: unfolding, encoded words (RFC 2047), parameters (RFC 2045 section 5.1, RFC 2231).

Strict: where a reader would have to guess, the answer is None, and then the raw value counts.
"""

from __future__ import annotations

import binascii
import re
from collections import Counter
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from relay.judge.text.decode import STATEFUL, decode_text, fold_text, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Fields: TypeAlias = tuple[tuple[str, bytes], ...]
"""Name in lower case and raw value, folds included, in the order of the header section."""
Parameters: TypeAlias = tuple[tuple[str, bytes], ...]

PARAMETER_LIMIT = 100
_COMMON_LENGTH = 40
_SHORT = 400
"""Bytes of a value that is remembered."""

# RFC 2047 section 2: no white space inside, and white space or the ends of the field around it.
_ENCODED_WORD = re.compile(rb"=\?([!->@-~]+)\?([bBqQ])\?([!->@-~]*)\?=")
_BAD_Q = re.compile(rb"=(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
# In a structured field these mean something, unless they come out of an encoded word (RFC 2047 section 5 rule 3).
_SPECIALS = frozenset('()<>[]:;@\\,"')

_TOKEN = rb"[^\x00-\x20\x7f-\xff()<>@,;:\\\"/\[\]?=]+"
_KIND = re.compile(rb"[ \t]*(%b(?:/%b)?)[ \t]*" % (_TOKEN, _TOKEN))
# Unquoted values are read as mailers write them: `boundary=----=_Part_1` is common and has one meaning.
_PARAMETER = re.compile(
    rb";[ \t]*(?:(%b)[ \t]*=[ \t]*(?:\"([^\"\\]*(?:\\.[^\"\\]*)*)\"|([^\x00-\x20\x7f-\xff()<>@,;\\\"]+))[ \t]*)?"
    % _TOKEN,
    re.DOTALL,
)
# Some readers take the backslash off, some show it (RFC 5322 section 3.2.4); before a quote mark all do the same.
_BACKSLASH = re.compile(rb"\\(?!\")")
_SEGMENT = re.compile(r"([^*]+)(?:\*(0|[1-9][0-9]{0,3}))?(\*)?")


class _Segment(NamedTuple):
    """A piece of a parameter (RFC 2231): `filename*1*=value`."""

    number: int
    encoded: bool
    value: bytes
    key: str


class Parametric(NamedTuple):
    """A value such as `text/html; charset=utf-8`: kind and names in lower case, quotes off, order kept.

    A value in which a backslash stands for anything but a quote mark is raw: it still has all its backslashes.
    """

    kind: str
    parameters: Parameters = ()

    def get(self, name: str) -> bytes | None:
        """Give the raw value of a parameter."""
        for key, value in self.parameters:
            if key == name:
                return value
        return None

    def has_extended(self, name: str) -> bool:
        """Say whether a parameter is given in the form of RFC 2231, which some readers obey and some do not."""
        return bool(self.parameters) and any(key.startswith(f"{name}*") for key, _ in self.parameters)


def values(fields: Sequence[tuple[str, bytes]], name: str) -> list[bytes]:
    """Give the raw values of all fields of a name."""
    return [value for key, value in fields if key == name]


def unfold(raw: bytes) -> bytes:
    """Take the line breaks of folding out (RFC 5322 section 2.2.3). A raw value has no others."""
    return raw.replace(b"\r", b"").replace(b"\n", b"")


def decode_value(raw: bytes, *, structured: bool = False) -> bytes | None:
    """Give the text that a reader sees: encoded words decoded, NFC, white space folded, as UTF-8."""
    # A site's From, and the Subject of a twin or of a bulk mail, come again and again.
    return (_decode_short if len(raw) <= _SHORT else _decode_value)(raw, structured)


def _decode_value(raw: bytes, structured: bool) -> bytes | None:
    if b"\v" in raw:
        return None
    if b"=?" not in raw:
        return read_text(unfold(raw), "utf-8")
    shown: list[str] = []
    after_word = False
    for charset, group in groupby(raw.split(), _charset):
        tokens = list(group)
        decoded = _decode_words(tokens, charset) if charset else _decode_literal(tokens)
        if decoded is None or (charset and structured and not _SPECIALS.isdisjoint(decoded)):
            return None
        # RFC 2047 section 6.2: white space between two encoded words is not shown.
        shown.append(decoded if charset and after_word else f" {decoded}")
        after_word = bool(charset)
    return fold_text("".join(shown))


_decode_short = lru_cache(maxsize=256)(_decode_value)


def _charset(token: bytes) -> str:
    word = _ENCODED_WORD.fullmatch(token)
    return word[1].decode("ascii").lower() if word else ""


def _decode_literal(tokens: Iterable[bytes]) -> str | None:
    text = b" ".join(tokens)
    # Some readers decode a malformed or badly placed encoded word, some do not.
    return None if b"=?" in text else decode_text(text, "utf-8")


def _decode_words(tokens: Iterable[bytes], charset: str) -> str | None:
    """Join the octets before decoding: mailers split characters, although RFC 2047 section 5 forbids it.

    Not those of a charset with states: some readers begin each word in the first state.
    """
    octets = []
    for token in tokens:
        _, _, encoding, text, _ = token.split(b"?")
        piece = _decode_q(text) if encoding in b"qQ" else _decode_b(text)
        if piece is None:
            return None
        octets.append(piece)
    if charset not in STATEFUL:
        return decode_text(b"".join(octets), charset)
    texts = [decode_text(piece, charset) for piece in octets]
    return None if None in texts else "".join(filter(None, texts))


def _decode_q(text: bytes) -> bytes | None:
    return None if _BAD_Q.search(text) else binascii.a2b_qp(text, header=True)


def _decode_b(text: bytes) -> bytes | None:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return None


def _unescape(text: bytes) -> bytes | None:
    """Undo `%41`, or give None where a mark stands alone."""
    pieces = _ESCAPE.split(text)
    if None in pieces:
        return None
    pieces[1::2] = [bytes.fromhex(digits.decode("ascii")) for digits in pieces[1::2]]
    return b"".join(pieces)


def parse_parametric(raw: bytes) -> Parametric | None:
    """Take apart the value of Content-Type or Content-Disposition."""
    # Few values stand in nearly all parts. Those with a boundary or a file name are never seen again.
    return _parse_common(raw) if len(raw) <= _COMMON_LENGTH and b"boundary" not in raw else _parse_parametric(raw)


def _parse_parametric(raw: bytes) -> Parametric | None:
    value = unfold(raw)
    kind = _KIND.match(value)
    if not kind:
        return None
    parameters: dict[str, bytes] = {}
    at = kind.end()
    while at < len(value):
        found = _PARAMETER.match(value, at)
        if not found:
            return None
        at = found.end()
        name, quoted, plain = found.groups()
        if name is None:
            continue
        key = name.decode("ascii").lower()
        if key in parameters or len(parameters) == PARAMETER_LIMIT:
            return None
        parameters[key] = plain if quoted is None else _unquote(quoted)
    return Parametric(kind[1].decode("ascii").lower(), tuple(parameters.items()))


def _unquote(quoted: bytes) -> bytes:
    return quoted if _BACKSLASH.search(quoted) else quoted.replace(b'\\"', b'"')


_parse_common = lru_cache(maxsize=256)(_parse_parametric)


def decode_parameters(parameters: Parameters) -> list[tuple[str, bytes]]:
    """Give names and readable values, sorted: RFC 2231 continuations joined and charsets decoded.

    A mailer may give one parameter in the old and in the new form: readers show either, so the name says which is
    which. What does not decode stays as it was written, its stars included.
    """
    if not any("*" in key for key, _ in parameters):
        return sorted(_plain(key, value) for key, value in parameters)
    readable = []
    groups: dict[tuple[str, str], list[_Segment]] = {}
    forms: Counter[str] = Counter()
    for key, value in parameters:
        found = _SEGMENT.fullmatch(key) if "*" in key else None
        if not found:
            readable.append(_plain(key, value))
            forms[key] += 1
            continue
        form = "extended" if found[2] is None else "continued"
        group = groups.setdefault((found[1], form), [])
        group.append(_Segment(int(found[2] or 0), found[3] is not None, value, key))
    forms.update(name for name, _ in groups)
    for (name, form), segments in groups.items():
        joined = _join_segments(sorted(segments))
        if joined is None:
            readable += [_raw(segment.key, segment.value) for segment in segments]
        else:
            readable.append((name if forms[name] == 1 else f"{name} ({form})", joined))
    return sorted(readable)


def _plain(key: str, value: bytes) -> tuple[str, bytes]:
    text = None if b"\\" in value else read_text(value, "utf-8")
    return _raw(key, value) if text is None else (key, text)


def _raw(key: str, value: bytes) -> tuple[str, bytes]:
    return (f"{key} (raw)", b'"%b"' % value) if b"\\" in value else (key, value)


def _join_segments(segments: list[_Segment]) -> bytes | None:
    """RFC 2231 section 3 and 4: charset and language stand before the first segment, and only if it is encoded."""
    if [segment.number for segment in segments] != list(range(len(segments))):
        return None
    charset = b"utf-8"
    octets = []
    for number, encoded, value, _ in segments:
        text = None if b"\\" in value else value
        if encoded and number == 0:
            charset, mark, value = value.partition(b"'")  # noqa: PLW2901
            _, second, value = value.partition(b"'")  # noqa: PLW2901
            if not (mark and second):
                return None
        if encoded:
            text = _unescape(value)
        if text is None:
            return None
        octets.append(text)
    decoded = decode_text(b"".join(octets), charset.decode("ascii", "replace").lower())
    return None if decoded is None else fold_text(decoded)
