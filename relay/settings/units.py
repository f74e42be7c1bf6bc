"""Parses and formats durations, sizes, whole numbers, switches and lists.

Each `parse_` function takes a value from a TOML file, an environment variable or a flag. It raises `ValueError` with a
remedy. Each `format_` function returns text that its `parse_` function reads back to the same value.
"""

from __future__ import annotations

import re
import tomllib
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SECONDS = {"d": Decimal(86400), "h": Decimal(3600), "m": Decimal(60), "s": Decimal(1), "ms": Decimal("0.001")}
_BYTES = {
    "GiB": 1024**3,
    "GB": 1000**3,
    "MiB": 1024**2,
    "MB": 1000**2,
    "KiB": 1024,
    "kB": 1000,
    "B": 1,
}  # largest first

# Longer than any useful setting, and far from overflow in a store.
_LONGEST = 3650 * _SECONDS["d"]
_DURATION = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,15})?)\s*(?P<unit>d|h|m|s|ms|)")
_SIZE = re.compile(r"(?P<number>[0-9]{1,15})\s*(?P<unit>[KkMGg]i?B|B|)", re.IGNORECASE)
_QUOTED = 200
"""Characters."""
_SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def parse_duration(value: object) -> float:
    """Returns the seconds of `"90s"`, `"10m"`, `"1h"`, `"2d"`, `"500ms"` or 0, the only number without a unit."""
    text = _text(value)
    match = _DURATION.fullmatch(text)
    if not match:
        if _DURATION.fullmatch(text.removeprefix("-")):
            raise ValueError(f'negative; write "{text.removeprefix("-")}"')
        raise ValueError('not a duration; write for example "10m"')
    number, unit = Decimal(match["number"]), match["unit"]
    if number and not unit:
        choices = dict.fromkeys((f"{text}s", format_duration(float(number))))
        raise ValueError(f'"{text}" has no unit; write ' + " or ".join(f'"{choice}"' for choice in choices))
    seconds = number * _SECONDS[unit or "s"]
    if seconds > _LONGEST:
        raise ValueError('longer than ten years; write "3650d" or less')
    if seconds % _SECONDS["ms"]:
        raise ValueError('finer than a millisecond; write whole milliseconds, for example "500ms"')
    return float(seconds)


def format_duration(seconds: float) -> str:
    """Returns seconds, to the millisecond, as a whole number of the largest possible unit, such as `"10m"`."""
    exact = Decimal(repr(round(float(seconds), 3)))
    unit, length = next((unit, length) for unit, length in _SECONDS.items() if exact % length == 0)
    return f"{exact / length:.0f}{unit}" if exact else "0"


def parse_size(value: object) -> int:
    """Returns the bytes of `"25MiB"` (binary), `"10MB"` (decimal) or `"1024"` (bytes)."""
    match = _SIZE.fullmatch(_text(value))
    if not match:
        raise ValueError('not a size; write for example "25MiB"')
    factors = {unit.lower(): factor for unit, factor in _BYTES.items()}
    return int(match["number"]) * factors[match["unit"].lower() or "b"]


def format_size(size: int) -> str:
    """Returns bytes as a whole number of the largest possible unit, such as `"25MiB"`."""
    unit, factor = next((unit, factor) for unit, factor in _BYTES.items() if size % factor == 0)
    return f"{size // factor}{unit}" if size and factor > 1 else str(size)


def parse_count(value: object) -> int:
    """Returns a whole number of at least 1."""
    text = _text(value)
    if not re.fullmatch(r"[0-9]{1,9}", text) or not int(text):
        raise ValueError("not a whole number above 0; write for example 20")
    return int(text)


def parse_limit(value: object) -> int:
    """Returns a whole number; 0 means no limit."""
    return 0 if _text(value) == "0" else parse_count(value)


def parse_switch(value: object) -> bool:
    """Returns a boolean. Text may be true, false, yes, no, on, off, 1 or 0."""
    try:
        return _SWITCH[_text(value).lower()]
    except KeyError:
        raise ValueError("neither on nor off; write true or false") from None


def shortened(text: str) -> str:
    """Returns the text, cut to 200 characters for messages."""
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…"


def parse_list(value: object, example: str) -> Sequence[object]:
    """Returns the items of a TOML list, of its text, or of comma-separated text. Errors quote `example`."""
    if isinstance(value, str):
        value = _toml_list(value) if value.lstrip().startswith("[") else value.replace(",", " ").split()
    if not isinstance(value, list | tuple):
        raise ValueError(f"not a list; write for example {example}")  # noqa: TRY004 - pydantic wants it
    return value


def _toml_list(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
