"""Numbers with their units, for people. The notation of the settings is in `relay.settings.units`."""

from __future__ import annotations

_DURATIONS = ((2 * 86400.0, 86400.0, "d"), (3600.0, 3600.0, "h"), (60.0, 60.0, "min"), (1.0, 1.0, "s"))
"""From which duration on a unit is used, its length, both in seconds, and its name."""
_SIZES = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))
_TENS = 10


def size(octets: float) -> str:
    """Returns a number of bytes with its unit, such as `1.5 MiB`."""
    for unit, name in _SIZES:
        if octets >= unit:
            return f"{_short(octets / unit)} {name}"
    return f"{octets:.0f} B"


def duration(seconds: float) -> str:
    """Returns a duration in one unit, such as `34 s`, `2.5 min`, `24 h` or `120 ms`."""
    for least, unit, name in _DURATIONS:
        if seconds >= least:
            number = seconds / unit
            return f"{_short(number) if number < _TENS else format(number, '.0f')} {name}"
    return f"{seconds * 1000:.0f} ms" if seconds else "0 s"


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun, such as `1 file` or `1,200 files`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
