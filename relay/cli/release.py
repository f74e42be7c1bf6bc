"""`relay release`: forwards a kept copy of a suppressed message."""

from __future__ import annotations

import click

from relay.cli.asking import asked_relay
from relay.cli.exit_status import CommandError, after_work, run
from relay.cli.options import Target, target_options
from relay.cli.records import parse_record_id
from relay.runtime.terminal import printable


@click.command(
    short_help="Forward a suppressed copy after all.",
    epilog="""\b
Examples:
  relay release 3f9c0a1b2c4d
  relay release 3f9c0a1b2c4d --to alice@example.org
Exit status: 0 the upstream accepted it for all, 1 it did not or there is no copy,
78 the settings are wrong.""",
)
@target_options
@click.argument("record", metavar="ID", callback=parse_record_id)
@click.option("--to", "only", metavar="ADDRESS", multiple=True, help="Send it to this recipient only. Can be repeated.")
@click.option("--again", is_flag=True, help="Send it also to recipients to whom it was released before.")
def release(target: Target, record: str, only: tuple[str, ...], again: bool) -> None:
    """Forward a kept copy, byte for byte, through the upstream to the recipients for whom it was suppressed.

    Copies are kept if record.keep = "maildir:PATH" is set. The file notes to whom a copy was released: no recipient
    gets a second one without --again. Later copies are still suppressed as repeats of the first message;
    `relay forget ID` frees them. The ID is in the output of `relay suppressed`.
    """
    run(_release(target, record, only, again))


async def _release(target: Target, record: str, only: tuple[str, ...], again: bool) -> bool:
    from relay.admin.protocol import RELEASE_LIMIT
    from relay.admin.release import Released, ReleaseRequest
    from relay.admin.release import release as work

    request = ReleaseRequest(record, only, again)
    async with asked_relay(target) as relay:
        if relay is None:
            result = await work(target.loaded.settings, request)
        else:
            result = await relay.read("POST", "/release", RELEASE_LIMIT, Released.decode, json=request.encode())
    for note in result.notes:
        click.echo(f"note: {printable(note)}", err=True)
    with after_work(result.done if result.errors else f"{result.done}; do not repeat the command"):
        click.echo("\n".join(map(printable, result.answers)))
    if result.errors:
        raise CommandError(*result.errors)
    return True
