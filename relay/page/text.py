"""How the page writes what it shows: foreign text made visible, numbers with units, times and durations."""

from __future__ import annotations

import time
from unicodedata import category

from markupsafe import Markup

from relay.core.trace import TraceOutcome

OUTCOME_WORDS = {
    TraceOutcome.FORWARDED: "forwarded",
    TraceOutcome.SUPPRESSED: "suppressed",
    TraceOutcome.WOULD_SUPPRESS: "would be suppressed",
    TraceOutcome.REFUSED: "refused",
    TraceOutcome.DEFERRED: "deferred",
    TraceOutcome.UNCERTAIN: "uncertain",
    TraceOutcome.RCPT_REFUSED: "refused at RCPT",
    TraceOutcome.ABORTED: "aborted",
}
"""In the order in which they are shown."""
_KEPT = "\n\t"


def visible(value: object) -> object:
    r"""Returns a value as the page may show it, before HTML escapes it.

    Characters that do not print are written as in Python's `\x1b`: control characters, ANSI sequences, and formats
    that change the direction of text or hide it. Blanks stay, such as that of Japanese texts and that before a French
    colon. All values in templates pass this function.
    """
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(
        letter if letter.isprintable() or letter in _KEPT or category(letter) == "Zs" else _escaped(letter)
        for letter in value
    )


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def count(number: float) -> str:
    """Returns a whole number with commas between thousands, such as `12,345`."""
    return f"{number:,.0f}"


def share(part: float, whole: float) -> str:
    """Returns a percentage, such as `12.5 %`; `none` if the whole is 0."""
    if not whole:
        return "none"
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent in {0, 100} else f"{percent:.1f} %"


def iso_time(seconds: float) -> str:
    """Returns a time in UTC as HTML's `datetime` attribute writes it."""
    return _utc("%Y-%m-%dT%H:%M:%SZ", seconds)


def utc_time(seconds: float) -> str:
    """Returns a time for people, in UTC."""
    return _utc("%Y-%m-%d %H:%M:%S UTC", seconds)


def short_time(seconds: float) -> str:
    """Returns hours and minutes in UTC."""
    return _utc("%H:%M", seconds)


def _utc(form: str, seconds: float) -> str:
    try:
        return time.strftime(form, time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):  # nothing but a relay should write traces to the store, but may
        return "an unknown time"
