"""Patterns and names in the tables of rules, as an operator writes them.

Each function raises `ValueError` whose text says how to mend the value, and quotes the part of a pattern that is wrong.
"""

from __future__ import annotations

import re

from relay.judge.rules.pattern import Pattern
from relay.settings.units import shortened

_NAME_LIMIT = 80

# What people know from other languages, by the beginning of what RE2 quotes.
_MENDS = {
    "(?=": "RE2 has no look-ahead; say in a second condition, or in a rule before this one, what else has to hold",
    "(?!": "RE2 has no look-ahead; write a rule before this one that takes what shall not match",
    "(?<": "RE2 has no look-behind; write what stands before as a part of the pattern",
    "(?>": "RE2 has no atomic groups, and never needs them; write (?:...)",
    "(?#": "RE2 has no comments; write it behind a # on a line of its own",
    "(?|": "RE2 has no branch reset; write (?:...)",
    "(?P": "RE2 has no back-references, only (?P<name>...); write out what stands there",
    "\\Z": r"the end of the text is $ or \z",
    "\\h": r"write [ \t]",
    "\\R": r"write \r?\n",
    "\\K": "RE2 has no \\K; write the pattern without it",
    "\\u": r"write the character itself, or \x{20AC}",
    "\\k": "RE2 has no back-references; write out what stands there",
}
# The same by what RE2 says.
_MENDS_BY_KIND = {
    "no argument for repetition": "patterns are no wildcards: write .* for anything",
    "bad repetition operator": "RE2 needs no possessive repetition; write one sign",
    "invalid repetition size": "RE2 repeats 1,000 times at most; write a{1000}a* for more",
    "pattern too large": "write it shorter, or as a list of patterns",
    "trailing \\": "write \\\\ for a backslash",
}
_BACK_REFERENCE = re.compile(r"\\[1-9]")
_QUOTED = re.compile(r' at "(.*)"\Z', re.DOTALL)
_FIELD_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322, section 2.2
_PARAMETER = re.compile(r"[^\s=&;?#]+")
_ATTRIBUTE = re.compile(r"[^\s\"'<>/=]+")
_OWN_KEYS = frozenset({"subject", "from"})


def parse_pattern(value: object) -> Pattern | None:
    """Read one pattern; None is none."""
    return None if value is None else _pattern(value)


def parse_patterns(value: object) -> tuple[Pattern, ...]:
    """Read a pattern, or a list of them."""
    if not isinstance(value, list | tuple):
        return (_pattern(value),)
    if not value:
        raise ValueError("the list is empty; name a pattern, or leave the key out")
    return tuple(map(_pattern, value))


def parse_field_name(value: object) -> str:
    """Read the name of a header field."""
    name = str(value)
    if not _FIELD_NAME.fullmatch(name):
        raise ValueError("not the name of a header field; write for example header.X-Priority")
    if name.lower() in _OWN_KEYS:
        raise ValueError(f"this field has a condition of its own; write {name.lower()} = in place of header.{name} =")
    return name


def parse_name(value: object) -> str:
    """Read the name of a rule, or of what is ignored."""
    text = _text(value).strip()
    if not text or not text.isprintable() or len(text) > _NAME_LIMIT:
        raise ValueError(f'not a name; write one line of at most {_NAME_LIMIT} characters, for example "invoices"')
    return text


def parse_parameter(value: object) -> str:
    """Read the name of a query parameter."""
    text = _text(value)
    if not _PARAMETER.fullmatch(text):
        raise ValueError('not the name of a parameter; write for example "cache", without "?", "&" and "="')
    return text


def parse_attribute(value: object) -> str:
    """Read the name of an HTML attribute."""
    text = _text(value)
    if not _ATTRIBUTE.fullmatch(text):
        raise ValueError('not the name of an attribute; write for example "data-time"')
    return text.lower()


def _pattern(value: object) -> Pattern:
    if isinstance(value, Pattern):
        return value
    text = _text(value)
    if not text:
        raise ValueError("an empty pattern is found in everything; write '.' for any text, '^$' for none")
    # "\b" in double quotes is a backspace for TOML.
    if not text.isprintable():
        raise ValueError("holds a character that nobody sees; write it in 'single quotes', where a backslash is one")
    try:
        return Pattern(text)
    except ValueError as error:
        reason = str(error)
        raise ValueError(_QUOTED.sub(_quoted_in_short, reason) + _mend(reason)) from None


def _quoted_in_short(found: re.Match[str]) -> str:
    return f' at "{shortened(found[1])}"'


def _mend(reason: str) -> str:
    found = _QUOTED.search(reason)
    quoted = found[1] if found else ""
    for kind, mend in _MENDS_BY_KIND.items():
        if reason.startswith(kind):
            return f"; {mend}"
    if _BACK_REFERENCE.match(quoted):
        return "; RE2 has no back-references; write out what stands there"
    return next((f"; {mend}" for start, mend in _MENDS.items() if quoted.startswith(start)), "")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not text; write it in 'single quotes'")  # noqa: TRY004 - pydantic wants it
    return value
