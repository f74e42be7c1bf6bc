"""Writes the result of a simulation as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from relay.core.quantities import counted, duration
from relay.runtime.terminal import printable
from relay.settings.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BAR = 40
_SUBJECT = 60
_NO_SUBJECT = "(no subject)"


def report_lines(result: dict[str, Any]) -> Iterator[str]:
    """Yields the lines about a result of `relay.simulate.result` with at least one message."""
    yield from _archive(result)
    yield ""
    yield from _suppressed(result)
    yield from _rules(result)
    if result["groups_in_all"]:
        yield from _windows(result)
        yield from _gaps(result)
    if result["groups"]:
        yield from _groups(result)
    if result["near_misses"]:
        yield from _near_misses(result)


def _archive(result: dict[str, Any]) -> Iterator[str]:
    yield f"{counted(result['messages'], 'message')} from {result['from']} to {result['to']}"
    yield f"  for           {counted(result['recipients'], 'recipient')}, added up over the messages"
    yield f"  dated by      {_sources(result['dates'])}"
    yield f"  recipients by {_sources(result['addressed_by'])}"
    yield f"  reverse-paths {_sources(result['reverse_paths'])}"
    if result["broken"]:
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in result["broken"].items())
        yield f"  broken        {sum(result['broken'].values()):,}, whose raw bytes count: {reasons}"


def _suppressed(result: dict[str, Any]) -> Iterator[str]:
    counts = result["suppressed"]
    window = format_duration(result["window_seconds"])
    recipients = f"{counts['recipients']:,} of {counted(result['recipients'], 'recipient')}"
    title = f"With dedup.window = {window}, {recipients} would not have received a second copy"
    yield click.style(title, bold=True)
    part = f", {counts['messages_in_part']:,} more for some of them" if counts["messages_in_part"] else ""
    yield f"  {counted(counts['messages'], 'message')} would have been suppressed for all their recipients{part}"
    if counts["observed_recipients"]:
        yield f"  {counted(counts['observed_recipients'], 'more recipient')} only counted (action observe)"
    if counts["mail_between"]:
        yield (
            f"  {counts['mail_between']:,} had another mail of the same sender in between: if they report a state that "
            'changes back,\n  write a rule with repeats = "consecutive", which forwards them (docs/rules.md)'
        )
    if counts["same_message_id"]:
        yield (
            f"  {counts['same_message_id']:,} have the Message-ID of the copy before: the sender tried again, or the "
            "archive contains a message twice"
        )


def _rules(result: dict[str, Any]) -> Iterator[str]:
    rows = [("rule", "action", "window", "recipients", "repeats")]
    for row in result["rules"]:
        exempt = row["action"] == "exempt"
        window, repeats = ("", "") if exempt else (format_duration(row["window_seconds"]), f"{row['repeats']:,}")
        rows.append((printable(row["rule"]), row["action"], window, f"{row['recipients']:,}", repeats))
    yield from _table("By rule", "<<>>>", rows)


def _windows(result: dict[str, Any]) -> Iterator[str]:
    rows = [("dedup.window", "repeats", "")]
    rows += [
        (
            format_duration(row["window_seconds"]),
            f"{row['recipients']:,}",
            "in force" if row["window_seconds"] == result["window_seconds"] else "",
        )
        for row in result["windows"]
    ]
    yield from _table("By window", ">><", rows)


def _gaps(result: dict[str, Any]) -> Iterator[str]:
    yield from _heading("Gaps between copies for one recipient")
    most = max(row["copies"] for row in result["gaps"])
    for row in result["gaps"]:
        name = f"{duration(row['from_seconds'])} to {duration(row['to_seconds'])}"
        bar = "█" * -(-row["copies"] * _BAR // most) if most else ""
        yield f"  {name:>16}  {row['copies']:>7,}  {bar}".rstrip()


def _groups(result: dict[str, Any]) -> Iterator[str]:
    rows = [("repeats", "copies", "messages", "gaps", "subject")]
    rows += [
        (
            f"{row['repeats']:,}",
            f"{row['copies']:,}",
            f"{row['messages']:,}",
            _between(row),
            _short(row["subject"]) or _NO_SUBJECT,
        )
        for row in result["groups"]
    ]
    title = f"Most repeated ({len(result['groups'])} of {result['groups_in_all']:,})"
    yield from _table(title, ">>><<", rows)


def _near_misses(result: dict[str, Any]) -> Iterator[str]:
    title = (
        f"Near misses: {counted(result['near_miss_pairs'], 'pair')} of one subject and recipient, one piece different"
    )
    yield from _heading(title)
    for row in result["near_misses"]:
        yield f"  {counted(row['pairs'], 'pair')}, {_between(row)} apart: {_short(row['subject']) or _NO_SUBJECT}"
        removed = click.style(f"[-{printable(row['first'])}-]", fg="red")
        added = click.style(f"{{+{printable(row['second'])}+}}", fg="green")
        where = f" ({row['places']} places)" if row["places"] > 1 else ""
        yield f"    {row['field']}{where}: …{printable(row['before'])}{removed}{added}{printable(row['after'])}…"


def _table(title: str, sides: str, rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yields a table. `sides` has the alignment of each column, `<` or `>`, as in a format string."""
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
    shortest, longest = duration(row["shortest_gap_seconds"]), duration(row["longest_gap_seconds"])
    return shortest if shortest == longest else f"{shortest} to {longest}"


def _short(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= _SUBJECT else shown[: _SUBJECT - 1] + "…"
