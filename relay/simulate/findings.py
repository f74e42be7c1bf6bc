"""How `relay simulate` writes its report for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from relay.runtime.terminal import printable
from relay.settings.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BAR = 40
_SUBJECT = 60
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Write a report on one message at least."""
    yield from _archive(found)
    yield ""
    yield from _result(found)
    yield from _rules(found)
    if found["groups_in_all"]:
        yield from _windows(found)
        yield from _gaps(found)
    if found["groups"]:
        yield from _groups(found)
    if found["near_misses"]:
        yield from _near_misses(found)


def many(count: int, word: str) -> str:
    """Write a number of things."""
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def _archive(found: dict[str, Any]) -> Iterator[str]:
    yield f"{many(found['messages'], 'message')} from {found['from']} to {found['to']}"
    yield f"  for           {many(found['recipients'], 'recipient')}, added up over the messages"
    yield f"  dated by      {_sources(found['dates'])}"
    yield f"  recipients by {_sources(found['addressed_by'])}"
    yield f"  reverse-paths {_sources(found['reverse_paths'])}"
    if found["broken"]:
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in found["broken"].items())
        yield f"  broken        {sum(found['broken'].values()):,}, whose raw bytes count: {reasons}"


def _result(found: dict[str, Any]) -> Iterator[str]:
    counts = found["suppressed"]
    window = format_duration(found["window_seconds"])
    yield click.style(
        f"With dedup.window = {window}, {counts['recipients']:,} of {many(found['recipients'], 'recipient')} would "
        "have got no second copy",
        bold=True,
    )
    part = f", {counts['messages_in_part']:,} more to some of their recipients" if counts["messages_in_part"] else ""
    yield f"  {many(counts['messages'], 'message')} would not have been forwarded at all{part}"
    if counts["observed_recipients"]:
        yield f"  {many(counts['observed_recipients'], 'recipient')} more only counted: observe"
    if counts["same_message_id"]:
        yield (
            f"  {counts['same_message_id']:,} carry the Message-ID of the copy before: the sender tried again, or the "
            "archive holds a message twice"
        )


def _rules(found: dict[str, Any]) -> Iterator[str]:
    rows = [("rule", "action", "window", "recipients", "repeats")]
    for row in found["rules"]:
        exempt = row["action"] == "exempt"
        window, repeats = ("", "") if exempt else (format_duration(row["window_seconds"]), f"{row['repeats']:,}")
        rows.append((printable(row["rule"]), row["action"], window, f"{row['recipients']:,}", repeats))
    yield from _table("By rule", "<<>>>", rows)


def _windows(found: dict[str, Any]) -> Iterator[str]:
    rows = [("dedup.window", "repeats", "")]
    rows += [
        (
            format_duration(row["window_seconds"]),
            f"{row['recipients']:,}",
            "in force" if row["window_seconds"] == found["window_seconds"] else "",
        )
        for row in found["windows"]
    ]
    yield from _table("By window", ">><", rows)


def _gaps(found: dict[str, Any]) -> Iterator[str]:
    yield from _heading("Gaps between copies for one recipient")
    most = max(row["copies"] for row in found["gaps"])
    for row in found["gaps"]:
        name = f"{_gap(row['from_seconds'])} to {_gap(row['to_seconds'])}"
        bar = "█" * -(-row["copies"] * _BAR // most) if most else ""
        yield f"  {name:>16}  {row['copies']:>7,}  {bar}".rstrip()


def _groups(found: dict[str, Any]) -> Iterator[str]:
    rows = [("repeats", "copies", "messages", "gaps", "subject")]
    rows += [
        (
            f"{row['repeats']:,}",
            f"{row['copies']:,}",
            f"{row['messages']:,}",
            _between(row),
            _short(row["subject"]) or "(none)",
        )
        for row in found["groups"]
    ]
    title = f"Most repeated ({len(found['groups'])} of {found['groups_in_all']:,})"
    yield from _table(title, ">>><<", rows)


def _near_misses(found: dict[str, Any]) -> Iterator[str]:
    title = f"Near misses: {many(found['near_miss_pairs'], 'pair')} of one subject and recipient, one piece different"
    yield from _heading(title)
    for row in found["near_misses"]:
        yield f"  {many(row['pairs'], 'pair')}, {_between(row)} apart: {_short(row['subject']) or '(no subject)'}"
        removed = click.style(f"[-{printable(row['first'])}-]", fg="red")
        added = click.style(f"{{+{printable(row['second'])}+}}", fg="green")
        where = f" ({row['places']} places)" if row["places"] > 1 else ""
        yield f"    {row['field']}{where}: …{printable(row['before'])}{removed}{added}{printable(row['after'])}…"


def _table(title: str, sides: str, rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Write a table. `sides` says for each column whether it is flush left or right, as in a format string."""
    yield from _heading(title)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True))
        yield "  " + "  ".join(cells).rstrip()


def _heading(title: str) -> Iterator[str]:
    yield ""
    yield click.style(title, bold=True)


def _sources(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {source}" for source, count in counts.items())


def _between(row: dict[str, Any]) -> str:
    shortest, longest = _gap(row["shortest_gap_seconds"]), _gap(row["longest_gap_seconds"])
    return shortest if shortest == longest else f"{shortest} to {longest}"


def _gap(seconds: float) -> str:
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{seconds / length:.1f}".removesuffix(".0") + f" {unit}"
    return f"{seconds:.0f} s"


def _short(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= _SUBJECT else shown[: _SUBJECT - 1] + "…"
