"""`relay release`: forward a kept copy after all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from relay.cli.options import file_options
from relay.core.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.core.delivery import Unclear
    from relay.core.record import Copy
    from relay.core.reply import Reply
    from relay.records.keep import Found, Keep
    from relay.settings import Loaded, Settings


@click.command(
    short_help="Forward a suppressed copy after all.",
    epilog="""\b
Examples:
  relay release 3f9c0a1b2c4d
  relay release 3f9c0a1b2c4d --to alice@example.org
Exit status: 0 the upstream accepted it for all, 1 it did not or there is no copy,
78 the settings are wrong.""",
)
@file_options
@click.argument("record", metavar="ID")
@click.option("--to", "only", metavar="ADDRESS", multiple=True, help="Only to this recipient; may be given repeatedly.")
@click.option("--again", is_flag=True, help="Also where it was released before.")
def release(loaded: Loaded, record: str, only: tuple[str, ...], again: bool) -> None:
    """Forward a kept copy to the recipients that it was suppressed for, through the upstream, byte for byte.

    Copies are kept where record.keep = "maildir:PATH" is set. Nothing else changes: later copies are still suppressed
    as repeats of the first one; `relay forget ID` frees them.
    """
    from relay.cli.reach import run

    run(_release(loaded.settings, record.strip().lower(), only, again))


async def _release(settings: Settings, record: str, only: Sequence[str], again: bool) -> bool:
    from relay.settings.sources import upstream_password

    found = _find(settings, record)
    if found is None:
        return False
    keep, place = found
    if place.released and not again:
        click.echo(f"error: {record} was released before; relay release {record} --again sends it once more", err=True)
        return False
    copy = _read(place, record)
    paths = _chosen(copy, only, record) if copy else ()
    if not copy or not paths:
        return False
    answers = await _send(settings, upstream_password(settings), copy, paths)
    return _tell(answers, keep, place, record)


def _find(settings: Settings, record: str) -> tuple[Keep, Found] | None:
    from relay.records.keep import Keep
    from relay.settings.units import format_duration

    if not re.fullmatch(r"[0-9a-f]{12}", record):
        raise click.BadParameter("not the id of a record, which has 12 hexadecimal digits", param_hint="'ID'")
    if settings.record.keep is None:
        click.echo(
            'error: record.keep is off, so no copy is kept; with record.keep = "maildir:PATH" those are that are '
            "suppressed from then on",
            err=True,
        )
        return None
    keep = Keep(settings.record.keep.path)
    try:
        place = keep.find(record)
    except OSError as error:
        click.echo(
            f"error: record.keep {error.filename}: {error.strerror}; run this as a user who may read it", err=True
        )
        return None
    if place is None:
        click.echo(
            f"error: no copy of {record} is kept in {keep.path}; copies stay for "
            f"{format_duration(settings.record.keep_for)} (record.keep_for), and only of suppressed messages. "
            f"relay why {record} tells what is recorded",
            err=True,
        )
        return None
    return keep, place


def _read(place: Found, record: str) -> Copy | None:
    from relay.records.copies import DamagedError, decode

    try:
        return decode(place.path.read_bytes(), record)
    except OSError as error:
        click.echo(f"error: {place.path}: {error.strerror}; run this as a user who may read it", err=True)
    except DamagedError as error:
        click.echo(f"error: {place.path}: {error}; it is not sent", err=True)
    return None


def _chosen(copy: Copy, only: Sequence[str], record: str) -> tuple[bytes, ...]:
    from relay.core.envelope import fold
    from relay.records.naming import address

    wanted = {address(written): written for written in only}
    strange = wanted.keys() - {fold(path) for path in copy.paths}
    for recipient in sorted(strange):
        click.echo(f"error: {record} was not suppressed for {wanted[recipient]}", err=True)
    if strange:
        return ()
    return tuple(path for path in copy.paths if not wanted or fold(path) in wanted)


async def _send(
    settings: Settings, password: str | None, copy: Copy, paths: Sequence[bytes]
) -> Mapping[bytes, Reply | Unclear]:
    from relay.core.delivery import NotSent
    from relay.core.envelope import Envelope
    from relay.core.reply import UNREACHABLE
    from relay.service import build_upstream

    upstream = build_upstream(settings, password)
    delivery = upstream.begin(Envelope(copy.reverse_path, copy.parameters))
    try:
        answers: dict[bytes, Reply | Unclear] = {path: await delivery.rcpt(path) for path in paths}
        taken = [path for path in paths if _positive(answers[path])]
        if taken:
            answers |= await delivery.prepare(taken)
            taken = [path for path in taken if _positive(answers[path])]
        if taken:
            outcome = await delivery.send(b"", copy.content)
            answers |= dict.fromkeys(taken, UNREACHABLE if isinstance(outcome, NotSent) else outcome)
        return answers
    finally:
        await delivery.finish()
        await upstream.close()


def _positive(answer: Reply | Unclear) -> bool:
    return bool(getattr(answer, "positive", False))


def _tell(answers: Mapping[bytes, Reply | Unclear], keep: Keep, place: Found, record: str) -> bool:
    from relay.core.reply import Reply

    for path, answer in answers.items():
        said = (
            f"{answer.code} {answer.text}" if isinstance(answer, Reply) else f"no reply after the dot: {answer.reason}"
        )
        click.echo(f"{printable(path.decode('utf-8', 'backslashreplace'))}  {printable(said)}")
    accepted = sum(map(_positive, answers.values()))
    if accepted:
        try:
            keep.mark_released(place)
        except OSError as error:
            click.echo(f"warning: {place.path}: cannot be marked as released: {error.strerror}", err=True)
    if accepted < len(answers):
        click.echo(
            f"error: not accepted for {len(answers) - accepted} of {len(answers)}; to try again: relay release {record}"
            + (" --again --to ADDRESS" if accepted else ""),
            err=True,
        )
    return accepted == len(answers)
