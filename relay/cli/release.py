"""`relay release`: forwards a kept copy of a suppressed message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relay.cli.exit_status import CommandError, after_work, run
from relay.cli.options import store_options
from relay.cli.records import parse_record_id
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

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
@click.argument("record", metavar="ID", callback=parse_record_id)
@click.option("--to", "only", metavar="ADDRESS", multiple=True, help="Send it to this recipient only. Can be repeated.")
@click.option("--again", is_flag=True, help="Send it also to recipients to whom it was released before.")
def release(loaded: Loaded, record: str, only: tuple[str, ...], again: bool) -> None:
    """Forward a kept copy, byte for byte, through the upstream to the recipients for whom it was suppressed.

    Copies are kept if record.keep = "maildir:PATH" is set. The file notes to whom a copy was released: no recipient
    gets a second one without --again. Later copies are still suppressed as repeats of the first message;
    `relay forget ID` frees them. The ID is in the output of `relay suppressed`.
    """
    run(_release(loaded.settings, record, only, again))


async def _release(settings: Settings, record: str, only: Sequence[str], again: bool) -> bool:
    from relay.records.kept_copies import KeptCopies

    if settings.record.keep is None:
        raise CommandError(
            'record.keep is off, so no copy is kept; with record.keep = "maildir:PATH" the copies are kept that are '
            "suppressed from then on"
        )
    keep = KeptCopies(settings.record.keep.path)
    try:
        with keep.lock():
            answers = await _resend(settings, keep, record, only, again)
    except FileNotFoundError:
        raise _not_kept(settings, keep, record) from None
    except BlockingIOError:
        raise CommandError(f"another relay release works in {keep.path}; try again when it has ended") from None
    except OSError as error:
        raise CommandError(
            f"record.keep {error.filename or keep.path}: {error.strerror}; run this as a user who may write there"
        ) from error
    _report(answers, record, " --to ADDRESS" if only else "")
    return True


async def _resend(
    settings: Settings, keep: KeptCopies, record: str, only: Sequence[str], again: bool
) -> Mapping[bytes, Answer]:
    from relay.cli.resend import resend
    from relay.settings.sources import upstream_password

    found = keep.find(record)
    if found is None:
        raise FileNotFoundError
    file, (copy, released) = found, _read(found, record)
    paths = _chosen(copy, released, record, only, again)

    def mark(sent: Sequence[bytes]) -> None:
        nonlocal file
        file = keep.mark_released(file, record, copy, released | set(sent))

    return await resend(settings, upstream_password(settings), copy, paths, mark)


def _read(file: KeptFile, record: str) -> tuple[SuppressedCopy, frozenset[bytes]]:
    """Returns the copy, and the forward-paths to which it was released. Raises `CommandError` if it is damaged."""
    from relay.records.copy_format import DamagedError, decode, released

    octets = file.path.read_bytes()
    try:
        copy = decode(octets, record)
        return copy, frozenset(copy.paths) if file.released else released(octets)
    except DamagedError as error:
        raise CommandError(f"{file.path}: {error}; it is not sent") from error


def _chosen(
    copy: SuppressedCopy, released: Collection[bytes], record: str, only: Sequence[str], again: bool
) -> tuple[bytes, ...]:
    """Returns the forward-paths to send to: those asked for, without those that an earlier release has served."""
    from relay.core.envelope import fold
    from relay.records.pseudonyms import address

    wanted = {address(written): written for written in only}
    unknown = wanted.keys() - {fold(path) for path in copy.paths}
    if unknown:
        raise CommandError(*(f"{record} was not suppressed for {wanted[recipient]}" for recipient in sorted(unknown)))
    asked = [path for path in copy.paths if not wanted or fold(path) in wanted]
    chosen = tuple(path for path in asked if again or path not in released)
    if not chosen:
        raise CommandError(f"{record} was released before; relay release {record} --again sends it once more")
    for path in asked:
        if path not in chosen:
            click.echo(f"note: {_shown(path)} got it by an earlier release; not sent again", err=True)
    return chosen


def _report(answers: Mapping[bytes, Answer], record: str, to: str) -> None:
    """Shows the upstream's answers. Raises `CommandError` unless it accepted the copy for all recipients."""
    from relay.core.reply import Reply

    accepted = unclear = 0
    lines = []
    for path, answer in answers.items():
        if isinstance(answer, Reply):
            text = f"{answer.code} {answer.text}"
            accepted += answer.positive
        else:
            text = f"no reply after the dot: {answer.reason}"
            unclear += 1
        lines.append(f"{_shown(path)}  {printable(text)}")
    messages = []
    if refused := len(answers) - accepted - unclear:
        messages.append(f"not accepted for {refused} of {len(answers)}; to try again: relay release {record}{to}")
    if unclear:
        messages.append(
            f"for {unclear} of {len(answers)} it is unknown whether the upstream accepted it; "
            f"relay release {record} --again{to} sends it once more, perhaps a second copy"
        )
    done = "; ".join([f"the upstream accepted the copy for {accepted} of {len(answers)}", *messages])
    with after_work(done if messages else f"{done}; do not repeat the command"):
        click.echo("\n".join(lines))
    if messages:
        raise CommandError(*messages)


def _not_kept(settings: Settings, keep: KeptCopies, record: str) -> CommandError:
    from relay.settings.units import format_duration

    return CommandError(
        f"no copy of {record} is kept in {keep.path}; copies stay for {format_duration(settings.record.keep_for)} "
        f"(record.keep_for), and only of suppressed messages. relay why {record} shows what is recorded"
    )


def _shown(path: bytes) -> str:
    return printable(path.decode("utf-8", "backslashreplace"))
