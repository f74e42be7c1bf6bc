"""`relay release`: forward a kept copy after all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import click

from relay.cli.options import store_options
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.cli.resend import Answer
    from relay.core.record import SuppressedCopy
    from relay.records.kept_copies import KeptCopies, KeptFile
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
@store_options
@click.argument("record", metavar="ID")
@click.option("--to", "only", metavar="ADDRESS", multiple=True, help="Only to this recipient; may be given repeatedly.")
@click.option("--again", is_flag=True, help="Also to those whom it was released to before.")
def release(loaded: Loaded, record: str, only: tuple[str, ...], again: bool) -> None:
    """Forward a kept copy to the recipients that it was suppressed for, through the upstream, byte for byte.

    Copies are kept where record.keep = "maildir:PATH" is set. Whom one was released to is remembered: nobody gets it
    twice without --again. Nothing else changes: later copies are still suppressed as repeats of the first one;
    `relay forget ID` frees them.
    """
    from relay.cli.store_access import run

    run(_release(loaded.settings, record.strip().lower(), only, again))


class _Kept(NamedTuple):
    """A kept copy, and whom it was released to."""

    copy: SuppressedCopy
    released: frozenset[bytes]


async def _release(settings: Settings, record: str, only: Sequence[str], again: bool) -> bool:
    from relay.records.kept_copies import KeptCopies

    if not re.fullmatch(r"[0-9a-f]{12}", record):
        raise click.BadParameter("not the id of a record, which has 12 hexadecimal digits", param_hint="'ID'")
    if settings.record.keep is None:
        _error(
            'record.keep is off, so no copy is kept; with record.keep = "maildir:PATH" those are that are suppressed '
            "from then on"
        )
        return False
    keep = KeptCopies(settings.record.keep.path)
    try:
        with keep.lock():
            return await _release_alone(settings, keep, record, only, again)
    except FileNotFoundError:
        _tell_none(settings, keep, record)
    except BlockingIOError:
        _error(f"another relay release works in {keep.path}; try again when it has ended")
    except OSError as error:
        _error(f"record.keep {error.filename or keep.path}: {error.strerror}; run this as a user who may write there")
    return False


async def _release_alone(settings: Settings, keep: KeptCopies, record: str, only: Sequence[str], again: bool) -> bool:
    from relay.cli.resend import resend
    from relay.settings.sources import upstream_password

    found = keep.find(record)
    if found is None:
        _tell_none(settings, keep, record)
        return False
    place, kept = found, _read(found, record)
    paths = _chosen(kept, record, only, again) if kept else ()
    if not kept or not paths:
        return False

    def mark(taken: Sequence[bytes]) -> None:
        nonlocal place
        place = keep.mark_released(place, record, kept.copy, kept.released | set(taken))

    answers = await resend(settings, upstream_password(settings), kept.copy, paths, mark)
    return _tell(answers, record, " --to ADDRESS" if only else "")


def _read(place: KeptFile, record: str) -> _Kept | None:
    from relay.records.copy_format import DamagedError, decode, released

    try:
        octets = place.path.read_bytes()
        copy = decode(octets, record)
        return _Kept(copy, frozenset(copy.paths) if place.released else released(octets))
    except DamagedError as error:
        _error(f"{place.path}: {error}; it is not sent")
    return None


def _chosen(kept: _Kept, record: str, only: Sequence[str], again: bool) -> tuple[bytes, ...]:
    """Give whom to send it to: those that are meant, and who have not got it by an earlier release."""
    from relay.core.envelope import fold
    from relay.records.pseudonyms import address

    wanted = {address(written): written for written in only}
    strange = wanted.keys() - {fold(path) for path in kept.copy.paths}
    for recipient in sorted(strange):
        _error(f"{record} was not suppressed for {wanted[recipient]}")
    if strange:
        return ()
    meant = [path for path in kept.copy.paths if not wanted or fold(path) in wanted]
    chosen = tuple(path for path in meant if again or path not in kept.released)
    if not chosen:
        _error(f"{record} was released before; relay release {record} --again sends it once more")
    for path in meant if chosen else ():
        if path not in chosen:
            click.echo(f"note: {_shown(path)} got it by an earlier release; not sent again", err=True)
    return chosen


def _tell(answers: Mapping[bytes, Answer], record: str, to: str) -> bool:
    from relay.core.reply import Reply

    accepted = unclear = 0
    for path, answer in answers.items():
        if isinstance(answer, Reply):
            said = f"{answer.code} {answer.text}"
            accepted += answer.positive
        else:
            said = f"no reply after the dot: {answer.reason}"
            unclear += 1
        click.echo(f"{_shown(path)}  {printable(said)}")
    if refused := len(answers) - accepted - unclear:
        _error(f"not accepted for {refused} of {len(answers)}; to try again: relay release {record}{to}")
    if unclear:
        _error(
            f"for {unclear} of {len(answers)} nobody knows whether it was accepted; relay release {record} --again"
            f"{to} sends it once more, perhaps a second copy"
        )
    return accepted == len(answers)


def _tell_none(settings: Settings, keep: KeptCopies, record: str) -> None:
    from relay.settings.units import format_duration

    _error(
        f"no copy of {record} is kept in {keep.path}; copies stay for {format_duration(settings.record.keep_for)} "
        f"(record.keep_for), and only of suppressed messages. relay why {record} tells what is recorded"
    )


def _shown(path: bytes) -> str:
    return printable(path.decode("utf-8", "backslashreplace"))


def _error(text: str) -> None:
    click.echo(f"error: {text}", err=True)
