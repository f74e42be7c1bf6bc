"""`relay why`: what became of a message, and of which earlier one it is a repeat."""

from __future__ import annotations

import textwrap
import time
from itertools import groupby
from typing import TYPE_CHECKING

import click

from relay.cli.options import store_options
from relay.cli.records import something
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from relay.cli.records import Wanted
    from relay.core.claim import Original
    from relay.core.record import Record, Repeat
    from relay.settings import Loaded, Settings

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
@store_options
@click.argument("what", metavar="ID|MESSAGE-ID|ADDRESS", callback=something)
@click.option("--json", "json_lines", is_flag=True, help="One JSON object a line, with all that is recorded.")
def why(loaded: Loaded, what: str, json_lines: bool) -> None:
    """Explain what was suppressed, of which earlier message it is a repeat, and why the two are equal.

    ID stands in the reply to the client, in the log line and in `relay suppressed`; it may be that of the suppressed
    message or of the one that it repeats. A Message-ID likewise. For an ADDRESS all that was suppressed for it.
    """
    from relay.cli.store_access import run

    run(_explain(loaded.settings, what, json_lines))


async def _explain(settings: Settings, what: str, json_lines: bool) -> bool:
    import json

    from relay.cli.records import Wanted, as_json, names_of
    from relay.cli.store_access import EVER, reach, records

    names = names_of(settings)
    wanted = Wanted.read(what, names)
    async with reach(settings) as reached:
        found = [(record, repeats) async for record in records(reached, EVER) if (repeats := _meant(record, wanted))]
    if not found:
        _tell_nothing(settings, wanted, secret=names is not None)
        return False
    found.reverse()
    if json_lines:
        for record, _ in found:
            click.echo(json.dumps(as_json(record)))
        return True
    click.echo("\n\n".join(_paragraphs(found, wanted, settings)))
    return True


def _meant(record: Record, wanted: Wanted) -> list[Repeat]:
    """Give what of a record was asked for: all of it, what repeats one message, or what one recipient missed."""
    if wanted.is_record(record):
        return list(record.repeats)
    return [repeat for repeat in record.repeats if wanted.recipient_of(repeat) or wanted.is_original(repeat.original)]


def _tell_nothing(settings: Settings, wanted: Wanted, *, secret: bool) -> None:
    from relay.settings.units import format_duration

    keep_for = settings.record.keep_for
    kept = f"records are kept for {format_duration(keep_for)}" if keep_for else "record.keep_for is 0: none are kept"
    click.echo(
        f"error: no suppression of {printable(wanted.written)} is recorded; {kept}. A message that was forwarded "
        "leaves a record only once a copy of it is suppressed, else its line in the log.",
        err=True,
    )
    if wanted.recipients and not secret:
        click.echo(
            "note: there is no record.secret_file here yet, so addresses that were hashed elsewhere are not found",
            err=True,
        )


def _paragraphs(found: Sequence[tuple[Record, list[Repeat]]], wanted: Wanted, settings: Settings) -> Iterator[str]:

    originals = dict.fromkeys(
        repeat.original for _, repeats in found for repeat in repeats if wanted.is_original(repeat.original)
    )
    for original in originals:
        if original:
            accepted, *more = _accepted(original)
            yield "\n".join([f"{printable(original.id)} was {accepted}", *more, "Its copies were suppressed:"])
    for record, repeats in found:
        yield "\n".join(_record(record, repeats, wanted, settings))


def _record(record: Record, repeats: Sequence[Repeat], wanted: Wanted, settings: Settings) -> Iterator[str]:
    from relay.cli.records import span, timestamp

    head = click.style(f"{printable(record.id)}  {timestamp(record.at)}", bold=True)
    yield f"{head}  {span(max(0.0, time.time() - record.at))} ago"
    yield _row("message", f"{_message_id(record.message_id)}, from {printable(record.sender) or '<>'}")
    for same in _alike(repeats):
        yield from _case(same, wanted)
    rules = dict.fromkeys(repeat.rule for repeat in repeats)
    for rule in rules:
        of_rule = f" (rule {printable(rule)})" if len(rules) > 1 else ""
        yield _row("equal in", (printable(", ".join(record.forms.get(rule, ()))) or "not recorded") + of_rule)
        if ignored := record.ignored.get(rule):
            yield _row("ignored", printable(", ".join(ignored)) + of_rule)
    yield _row("copy", _copy(record, settings))


def _alike(repeats: Sequence[Repeat]) -> Iterator[list[Repeat]]:
    """Give together the recipients for whom the same was decided, for the same reason."""

    def case(repeat: Repeat) -> tuple[str, str, str]:
        return repeat.outcome.value, repeat.rule, repeat.original.id if repeat.original else ""

    for _, same in groupby(sorted(repeats, key=case), case):
        yield list(same)


def _case(same: Sequence[Repeat], wanted: Wanted) -> Iterator[str]:
    from relay.cli.records import counted, span
    from relay.core.outcome import Outcome

    first = same[0]
    whom = f"{counted(len(same), 'recipient')}: {_recipients(same, wanted)}"
    if first.outcome is Outcome.SUPPRESSED:
        yield _row("suppressed", f"for {whom}")
    else:
        yield _row("forwarded", f"all the same, because it was only observed, to {whom}")
    if first.original:
        accepted, *more = _accepted(first.original)
        yield _row("repeats", f"{printable(first.original.id)}, {span(first.age)} older, {accepted}")
        yield from (_row("", line) for line in more)
    else:
        yield _row("repeats", "a message that was under way at that moment")
    yield _row("rule", printable(first.rule))


def _accepted(original: Original) -> tuple[str, str]:
    from relay.cli.records import timestamp

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


def _recipients(repeats: Sequence[Repeat], wanted: Wanted) -> str:

    named = [printable(wanted.written if wanted.recipient_of(one) else one.recipient) for one in repeats[:_MOST_NAMED]]
    more = len(repeats) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _copy(record: Record, settings: Settings) -> str:
    from relay.records.kept_copies import KeptCopies

    if not record.kept:
        return "not kept" + ("" if settings.record.keep else " (record.keep is off)")
    if not settings.record.keep:
        return f"was kept as {printable(record.kept)}; record.keep no longer names where"
    try:
        found = KeptCopies(settings.record.keep.path).find(record.id)
    except OSError as error:
        return f"was kept as {printable(record.kept)}; {error.filename}: {error.strerror}"
    if not found:
        return f"was kept as {printable(record.kept)} and is gone"
    if found.released:
        return "kept, and released already"
    return f"kept; to deliver it after all: relay release {record.id}"
