"""The command `relay`: one file a subcommand, imported when it is asked for."""

from __future__ import annotations

import difflib
import importlib

import click

from relay import __version__

_COMMANDS = ("serve", "check", "config", "explain", "simulate", "suppressed", "why", "release", "forget", "demo")


class _Commands(click.Group):
    """Subcommands by name; `relay --help` stays quick because it imports nothing heavy."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names in the order in which one meets them."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in _COMMANDS:
            near = difflib.get_close_matches(cmd_name, _COMMANDS, 1)
            if near:
                ctx.fail(f"No such command '{cmd_name}'. Did you mean '{near[0]}'?")
            return None
        command: click.Command = getattr(importlib.import_module(f"relay.cli.{cmd_name}"), cmd_name)
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Try it: relay demo. Then: relay check, relay serve.",
)
@click.version_option(__version__, prog_name="smtp-dedup-relay")
def main() -> None:
    """Forward every message once per recipient, as an SMTP proxy, and suppress its repeats."""
