"""`relay config`: the settings in force, and where each came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relay.cli.options import settings_options

if TYPE_CHECKING:
    from relay.settings import Loaded


@click.command(short_help="Show the settings in force, and where each comes from.")
@settings_options
def config(loaded: Loaded) -> None:
    """Show the settings in force as TOML, each with its source. Passwords are masked.

    Rules and ignores stand below, in the order of matching; those of presets as comments.

    \b
    Examples:
      relay config
      relay config -c /etc/smtp-dedup-relay/relay.toml --set dedup.window=1h
      RELAY_UPSTREAM__URL=smtps://user@mail.example.com relay config
    """  # noqa: D301 - click reads the escape as "keep these lines"
    from relay.settings.render import effective_toml

    click.echo(effective_toml(loaded), nl=False)
