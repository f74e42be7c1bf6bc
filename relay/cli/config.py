"""`relay config`: the effective settings, each with its source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from relay.cli.asking import asked_relay
from relay.cli.exit_status import run
from relay.cli.options import Target, print_warnings, settings_target_options
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.command(
    short_help="Show the effective settings, and where each comes from.",
    epilog="""\b
Examples:
  relay config
  relay config -c /etc/smtp-dedup-relay/relay.toml --set dedup.window=1h
  RELAY_UPSTREAM__URL=smtps://user@mail.example.com relay config --set admin.socket=
Exit status: 0 the settings are valid, 78 they are wrong.""",
)
@settings_target_options
def config(target: Target) -> None:
    """Show the settings of the running relay as TOML, each with its source. Passwords are masked.

    If none runs, or with flags for settings, these are the settings that relay serve would have here. Rules and ignores
    follow at the end, in the order in which they are tried. Those of presets are comments.
    """
    run(_show(target))


async def _show(target: Target) -> bool:
    from relay.admin.protocol import FILES_LIMIT
    from relay.settings.render import effective_toml

    async with asked_relay(target) as relay:
        if relay is None:
            print_warnings(target.loaded)
            click.echo(effective_toml(target.loaded), nl=False)
            return True
        toml, remarks = await relay.read("GET", "/config", FILES_LIMIT, _decode)
    for remark in remarks:
        click.echo(f"note: {printable(remark)}", err=True)
    click.echo(f"# In force in the running relay, {relay.description}.")
    for line in toml.splitlines():
        click.echo(printable(line))
    return True


def _decode(found: Mapping[str, Any]) -> tuple[str, list[str]]:
    return str(found["toml"]), list(map(str, found["remarks"]))
