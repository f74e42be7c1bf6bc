"""Values with parameters, of Content-Type and Content-Disposition (RFC 2045 section 5.1, RFC 2231).

The parser is strict: where a reader would have to guess, the answer is None, and the caller uses the raw value.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple, TypeAlias
from urllib.parse import unquote_to_bytes

from relay.judge.mime.headers import CONTROLS, unfold
from relay.judge.text.decode import decode_text, fold_text

Parameters: TypeAlias = tuple[tuple[str, bytes], ...]
"""Name in lower case and raw value, without quotes, in order: `(("charset", b"utf-8"),)`."""
_PARAMETER_LIMIT = 100
"""Parameters of one value."""

_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_TOKEN = rb"[^\x00-\x20\x7f-\xff()<>@,;:\\\"/\[\]?=]+"
_KIND = re.compile(rb"[ \t]*(%b(?:/%b)?)[ \t]*" % (_TOKEN, _TOKEN))
# Unquoted values may hold more than RFC 2045 allows: `boundary=----=_Part_1` is common and has one meaning.
_PARAMETER = re.compile(
    rb";[ \t]*(?:(%b)[ \t]*=[ \t]*(?:\"([^\"\\]*(?:\\.[^\"\\]*)*)\"|([^\x00-\x20\x7f-\xff()<>@,;\\\"]+))[ \t]*)?"
    % _TOKEN,
    re.DOTALL,
)
# Some readers remove the backslash, some show it (RFC 5322 section 3.2.4). Before a quote mark all remove it.
_BACKSLASH = re.compile(rb"\\(?!\")")
_SEGMENT_NAME = re.compile(r"([^*]+)(?:\*(0|[1-9][0-9]{0,3}))?(\*)?")
_CHARSET_AND_LANGUAGE = re.compile(rb"([^']*)'[^']*'")


class _Segment(NamedTuple):
    """One segment of an RFC 2231 parameter, such as `filename*1*=value`."""

    number: int
    encoded: bool
    value: bytes
    key: str


class ParameterisedValue(NamedTuple):
    """A value such as `text/html; charset=utf-8`.

    A parameter that holds a backslash before anything but a quote mark keeps all its backslashes.
    """

    kind: str
    """Media type or disposition type, in lower case."""
    parameters: Parameters = ()

    def get(self, name: str) -> bytes | None:
        """Returns the raw value of a parameter, or None."""
        for key, value in self.parameters:
            if key == name:
                return value
        return None

    def has_extended(self, name: str) -> bool:
        """Returns whether a parameter has the form of RFC 2231, which some readers obey and some do not."""
        form = name + "*"
        return bool([key for key, _ in self.parameters if key.startswith(form)])


def parse_parameterised(raw: bytes) -> ParameterisedValue | None:
    """Parses the value of Content-Type or Content-Disposition; returns None if readers may see different values."""
    value = unfold(raw)
    kind = _KIND.match(value)
    if not kind or CONTROLS.search(value):
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
        if key in parameters or len(parameters) == _PARAMETER_LIMIT:
            return None
        parameters[key] = plain if quoted is None else _unquote(quoted)
    return ParameterisedValue(kind[1].decode("ascii").lower(), tuple(parameters.items()))


def _unquote(quoted: bytes) -> bytes:
    return quoted if _BACKSLASH.search(quoted) else quoted.replace(b'\\"', b'"')


def decode_parameters(parameters: Parameters) -> list[tuple[str, bytes]]:
    """Returns names and readable values, sorted: RFC 2231 continuations joined and charsets decoded.

    A mailer may give one parameter in the old and in the new form, of which readers show either. Then the name states
    the form: `filename (extended)`. What cannot be decoded keeps its written form, with the asterisks of RFC 2231.
    """
    if not any("*" in key for key, _ in parameters):
        return sorted(_plain(key, value) for key, value in parameters)
    readable = []
    groups: dict[tuple[str, str], list[_Segment]] = {}
    forms: Counter[str] = Counter()
    for key, value in parameters:
        found = _SEGMENT_NAME.fullmatch(key) if "*" in key else None
        if not found:
            readable.append(_plain(key, value))
            forms[key] += 1
            continue
        form = "extended" if found[2] is None else "continued"
        group = groups.setdefault((found[1], form), [])
        group.append(_Segment(int(found[2] or 0), found[3] is not None, value, key))
    forms.update(name for name, _ in groups)
    for (name, form), segments in groups.items():
        joined = _join_segments(segments)
        if joined is None:
            readable += [_raw(segment.key, segment.value) for segment in segments]
        else:
            readable.append((name if forms[name] == 1 else f"{name} ({form})", joined))
    return sorted(readable)


def _plain(key: str, value: bytes) -> tuple[str, bytes]:
    # Readers take raw octets for different charsets.
    text = fold_text(value.decode("ascii")) if value.isascii() and b"\\" not in value else None
    return _raw(key, value) if text is None else (key, text)


def _raw(key: str, value: bytes) -> tuple[str, bytes]:
    if b"\\" in value:
        return f"{key} (raw)", b'"%b"' % value
    return (key if value.isascii() else f"{key} (raw)", value)


def _join_segments(segments: list[_Segment]) -> bytes | None:
    """Joins segments (RFC 2231 section 3 and 4). Only an encoded first segment begins with charset and language.

    Some readers join segments in the order in which they are written, and some do not decode a mixture of encoded and
    plain ones.
    """
    if [segment.number for segment in segments] != list(range(len(segments))):
        return None
    if len({segment.encoded for segment in segments}) > 1:
        return None
    charset = b"utf-8"
    first = segments[0]
    if first.encoded:
        prefix = _CHARSET_AND_LANGUAGE.match(first.value)
        if not prefix:
            return None
        charset = prefix[1]
        segments = [first._replace(value=first.value[prefix.end() :]), *segments[1:]]
    octets = []
    for segment in segments:
        is_unclear = _BAD_PERCENT.search(segment.value) if segment.encoded else b"\\" in segment.value
        if is_unclear:
            return None
        octets.append(unquote_to_bytes(segment.value) if segment.encoded else segment.value)
    decoded = decode_text(b"".join(octets), charset.decode("ascii", "replace").lower())
    return None if decoded is None else fold_text(decoded)
