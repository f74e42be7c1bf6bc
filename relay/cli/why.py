"""`relay why`: explains which earlier message a suppressed one repeats, and why the two are equal."""

from __future__ import annotations

import textwrap
import time
from itertools import groupby
from typing import TYPE_CHECKING

import click

from relay.cli.asking import MAX_AGE, open_records, read_records
from relay.cli.exit_status import run
from relay.cli.options import Target, target_options
from relay.cli.records import Query, counted, duration, json_line, parse_query, timestamp
from relay.core.trace import TraceOutcome
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from relay.core.claim import Original
    from relay.core.trace import RecipientTrace, Trace

_WIDTH = 110
_MOST_NAMED = 5
"""Recipients that are named; --json names all."""


@click.command(
    short_help="Explain why a message was suppressed.",
    epilog="""\b
Examples:
  relay why 3f9c0a1b2c4d
  relay why '<1b2c3d@tube.example.org>'
  relay why alice@example.org
Exit status: 0 found, 1 nothing is recorded or the store cannot be read,
78 the settings are wrong.""",
)
@target_options
@click.argument("what", metavar="ID|MESSAGE-ID|ADDRESS", callback=parse_query)
@click.option("--json", "json_lines", is_flag=True, help="Write one JSON object per line, with the whole record.")
def why(target: Target, what: str, json_lines: bool) -> None:
    """Explain what was suppressed, which earlier message it repeats, and why the two are equal.

    The ID is in the reply to the client, in the log line, and in the output of `relay suppressed`. An ID or
    Message-ID can be that of the suppressed message or of the one that it repeats. An ADDRESS shows all that was
    suppressed for this recipient.
    """
    run(_explain(target, what, json_lines))


async def _explain(target: Target, what: str, json_lines: bool) -> bool:
    async with open_records(target) as source:
        query = await Query.parse(what, source)
        found = [
            (record, repeats) async for record in read_records(source, MAX_AGE) if (repeats := _asked(record, query))
        ]
        if not found:
            _report_none(await source.keep_for(), query)
            return False
        found.reverse()
        if json_lines:
            lines = [json_line(record) for record, _ in found]
        else:
            copies = {record.id: await source.describe_copy(record.id, record.kept) for record, _ in found}
            lines = ["\n\n".join(_paragraphs(found, query, copies))]
    for line in lines:
        click.echo(line)
    return True


def _asked(record: Trace, query: Query) -> list[RecipientTrace]:
    """Returns the part of a record that was asked for: all, what repeats one message, or what one recipient missed."""
    if query.matches_record(record):
        return list(record.repeats)
    return [one for one in record.repeats if query.matches_recipient(one) or query.matches_original(one.original)]


def _report_none(keep_for: float, query: Query) -> None:
    from relay.settings.units import format_duration

    kept = f"records are kept for {format_duration(keep_for)}" if keep_for else "record.keep_for is 0: none are kept"
    click.echo(
        f"error: no suppression of {printable(query.written)} is recorded; {kept}. A message that was forwarded is in "
        "the log, and leaves a record only when a copy of it is suppressed.",
        err=True,
    )
    if not query.hashed:
        click.echo(
            "note: there is no record.secret_file here yet, so addresses that were hashed elsewhere are not found",
            err=True,
        )


def _paragraphs(
    found: Sequence[tuple[Trace, list[RecipientTrace]]], query: Query, copies: Mapping[str, str]
) -> Iterator[str]:
    originals = dict.fromkeys(
        repeat.original for _, repeats in found for repeat in repeats if query.matches_original(repeat.original)
    )
    for original in originals:
        if original:
            accepted, details = _accepted(original)
            yield f"{printable(original.id)} was {accepted}\n{details}\nIts copies were suppressed:"
    for record, repeats in found:
        yield "\n".join(_record_lines(record, repeats, query, copies))


def _record_lines(
    record: Trace, repeats: Sequence[RecipientTrace], query: Query, copies: Mapping[str, str]
) -> Iterator[str]:
    title = click.style(f"{printable(record.id)}  {timestamp(record.at)}", bold=True)
    yield f"{title}  {duration(max(0.0, time.time() - record.at))} ago"
    yield _row("message", f"{_message_id(record.message_id)}, from {printable(record.sender) or '<>'}")
    # Recipients for whom the same was decided, for the same reason, are shown together.
    for _, same in groupby(sorted(repeats, key=_decision), _decision):
        yield from _decision_lines(list(same), query)
    rules = dict.fromkeys(repeat.rule for repeat in repeats)
    for rule in rules:
        of_rule = f" (rule {printable(rule)})" if len(rules) > 1 else ""
        yield _row("equal in", (printable(", ".join(record.forms.get(rule, ()))) or "not recorded") + of_rule)
        if ignored := record.ignored.get(rule):
            yield _row("ignored", printable(", ".join(ignored)) + of_rule)
    yield _row("copy", copies[record.id])


def _decision(repeat: RecipientTrace) -> tuple[str, str, str]:
    return repeat.outcome.value, repeat.rule, repeat.original.id if repeat.original else ""


def _decision_lines(same: Sequence[RecipientTrace], query: Query) -> Iterator[str]:
    first = same[0]
    recipients = f"{counted(len(same), 'recipient')}: {_recipients(same, query)}"
    if first.outcome is TraceOutcome.SUPPRESSED:
        yield _row("suppressed", f"for {recipients}")
    else:
        yield _row("forwarded", f"all the same, because it was only observed, to {recipients}")
    if first.original:
        accepted, details = _accepted(first.original)
        yield _row("repeats", f"{printable(first.original.id)}, {duration(first.age)} older, {accepted}")
        yield _row("", details)
    else:
        yield _row("repeats", "a message that was under way at that moment")
    yield _row("rule", printable(first.rule))


def _accepted(original: Original) -> tuple[str, str]:
    return (
        f"accepted by the upstream at {timestamp(original.accepted_at)}",
        f"{_message_id(original.message_id)}; the upstream said: {printable(original.reply) or 'nothing'}",
    )


def _row(label: str, text: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=f"  {label:<12}",
        subsequent_indent=" " * 14,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _message_id(message_id: str) -> str:
    return f"Message-ID {printable(message_id)}" if message_id else "no Message-ID"


def _recipients(repeats: Sequence[RecipientTrace], query: Query) -> str:
    named = [
        printable(query.written if query.matches_recipient(repeat) else repeat.recipient)
        for repeat in repeats[:_MOST_NAMED]
    ]
    more = len(repeats) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
