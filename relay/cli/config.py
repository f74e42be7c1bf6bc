"""`relay config`: the effective settings, each with its source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relay.cli.options import settings_options

if TYPE_CHECKING:
    from relay.settings import Loaded


@click.command(
    short_help="Show the effective settings, and where each comes from.",
    epilog="""\b
Examples:
  relay config
  relay config -c /etc/smtp-dedup-relay/relay.toml --set dedup.window=1h
  RELAY_UPSTREAM__URL=smtps://user@mail.example.com relay config
Exit status: 0 the settings are valid, 78 they are wrong.""",
)
@settings_options
def config(loaded: Loaded) -> None:
    """Show the effective settings as TOML, each with its source. Passwords are masked.

    Rules and ignores follow at the end, in the order in which they are tried. Those of presets are comments.
    """
    from relay.settings.render import effective_toml

    click.echo(effective_toml(loaded), nl=False)
