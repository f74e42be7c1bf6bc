"""Parses patterns and names in rules and ignores.

Each function raises `ValueError` with a remedy, and quotes the wrong part of a pattern.
"""

from __future__ import annotations

import re

from relay.judge.rules.pattern import Pattern
from relay.settings.units import shortened

_NAME_LIMIT = 80
_LARGEST_PATTERN = 2_000
"""The largest weight of a pattern (`Pattern.weight`): 0.7 s for a text of 64 KiB that is made for it."""

# Remedies for syntax of other regular expression languages, by the beginning of what RE2 quotes.
_REMEDIES = {
    "(?=": "RE2 has no look-ahead; use a second condition, or a rule before this one",
    "(?!": "RE2 has no look-ahead; write a rule before this one that matches what this one must not",
    "(?<": "RE2 has no look-behind; make the preceding text part of the pattern",
    "(?>": "RE2 has no atomic groups, and never needs them; write (?:...)",
    "(?#": "RE2 has no comments; write the comment on a separate line after #",
    "(?|": "RE2 has no branch reset; write (?:...)",
    "(?P": "RE2 has no back-references, only (?P<name>...); repeat the text itself",
    "\\Z": r"the end of the text is $ or \z",
    "\\h": r"write [ \t]",
    "\\R": r"write \r?\n",
    "\\K": "RE2 has no \\K; write the pattern without it",
    "\\u": r"write the character itself, or \x{20AC}",
    "\\k": "RE2 has no back-references; repeat the text itself",
}
# Remedies by RE2's error message.
_REMEDIES_BY_ERROR = {
    "no argument for repetition": "this is not a wildcard: write .* for any text",
    "bad repetition operator": "RE2 needs no possessive repetition; write one operator",
    "invalid repetition size": "RE2 repeats 1,000 times at most; write a{1000}a* for more",
    "pattern too large": "shorten it, or split it into a list of patterns",
    "trailing \\": "write \\\\ for a backslash",
}
_BACK_REFERENCE = re.compile(r"\\[1-9]")
_QUOTED = re.compile(r' at "(.*)"\Z', re.DOTALL)
_FIELD_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322, section 2.2
_PARAMETER = re.compile(r"[^\s=&;?#]+")
_ATTRIBUTE = re.compile(r"[^\s\"'<>/=]+")
_PROPERTY = re.compile(r"[A-Za-z0-9-]+")  # RFC 5545, section 3.1
_PART_PARAMETER = re.compile(r"[^\x00-\x20\x7f-\U0010ffff()<>@,;:\\\"/\[\]?=*']+")  # RFC 2231, section 7
_OWN_KEYS = frozenset({"subject", "from"})


def parse_pattern(value: object) -> Pattern | None:
    """Returns the pattern, or None for None."""
    return None if value is None else _pattern(value)


def parse_patterns(value: object) -> tuple[Pattern, ...]:
    """Returns the patterns of one pattern or of a list."""
    if not isinstance(value, list | tuple):
        return (_pattern(value),)
    if not value:
        raise ValueError("the list is empty; write a pattern, or remove the key")
    return tuple(map(_pattern, value))


def parse_field_name(value: object) -> str:
    """Returns the name of a header field."""
    name = str(value)
    if not _FIELD_NAME.fullmatch(name):
        raise ValueError("not the name of a header field; write for example header.X-Priority")
    if name.lower() in _OWN_KEYS:
        raise ValueError(f"this field has its own condition; write {name.lower()} = instead of header.{name} =")
    return name


def parse_ignored_field(value: object) -> str:
    """Returns the name of a header field that an ignore may name, in lower case."""
    name = _text(value)
    if not _FIELD_NAME.fullmatch(name):
        raise ValueError('not the name of a header field; write for example "X-Campaign"')
    if name.lower().startswith("content-") or name.lower() == "mime-version":
        raise ValueError("this field says how to read the message, so it counts with the parts; name another field")
    return name.lower()


def parse_name(value: object) -> str:
    """Returns the name of a rule or an ignore."""
    text = _text(value).strip()
    if not text or not text.isprintable() or len(text) > _NAME_LIMIT:
        raise ValueError(f'not a name; write one line of at most {_NAME_LIMIT} characters, for example "invoices"')
    return text


def parse_parameter(value: object) -> str:
    """Returns the name of a query parameter."""
    text = _text(value)
    if not _PARAMETER.fullmatch(text):
        raise ValueError('not the name of a parameter; write for example "cache", without "?", "&" and "="')
    return text


def parse_attribute(value: object) -> str:
    """Returns the name of an HTML attribute."""
    text = _text(value)
    if not _ATTRIBUTE.fullmatch(text):
        raise ValueError('not the name of an attribute; write for example "data-time"')
    return text.lower()


def parse_property(value: object) -> str:
    """Returns the name of a property of iCalendar."""
    text = _text(value)
    if not _PROPERTY.fullmatch(text):
        raise ValueError('not the name of a property; write for example "DTSTAMP", without ":" and value')
    return text


def parse_part_parameter(value: object) -> str:
    """Returns the name of a parameter of a part."""
    text = _text(value).lower()
    if not _PART_PARAMETER.fullmatch(text):
        raise ValueError('not the name of a parameter; write for example "creation-date"')
    if text in {"charset", "boundary"}:
        raise ValueError(f"{text} never counts, only the text that it helps to decode; leave this ignore out")
    return text


def _pattern(value: object) -> Pattern:
    if isinstance(value, Pattern):
        return value
    text = _text(value)
    if not text:
        raise ValueError("an empty pattern matches everything; write '.' for any text, '^$' for empty text")
    # "\b" in double quotes is a backspace for TOML.
    if not text.isprintable():
        raise ValueError("contains an invisible character; write it in 'single quotes', where a backslash is one")
    try:
        pattern = Pattern(text)
    except ValueError as error:
        reason = str(error)
        raise ValueError(_QUOTED.sub(_shorten_quote, reason) + _remedy(reason)) from None
    if pattern.weight > _LARGEST_PATTERN:
        raise ValueError(
            f"takes too long for some messages: its repetitions are {pattern.weight} steps when written out, and "
            f"{_LARGEST_PATTERN} are allowed; write * or + in place of a large counted repetition such as {{1,900}}"
        )
    return pattern


def _shorten_quote(found: re.Match[str]) -> str:
    return f' at "{shortened(found[1])}"'


def _remedy(reason: str) -> str:
    found = _QUOTED.search(reason)
    quoted = found[1] if found else ""
    for error, remedy in _REMEDIES_BY_ERROR.items():
        if reason.startswith(error):
            return f"; {remedy}"
    if _BACK_REFERENCE.match(quoted):
        return "; RE2 has no back-references; repeat the text itself"
    return next((f"; {remedy}" for start, remedy in _REMEDIES.items() if quoted.startswith(start)), "")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not text; write it in 'single quotes'")  # noqa: TRY004 - pydantic wants it
    return value
