"""The command `relay`: one file a subcommand, imported when it is asked for."""

from __future__ import annotations

import difflib
import errno
import importlib
import io
import os
import sys
from typing import Any

import click

from relay import __version__

_COMMANDS = ("serve", "check", "config", "explain", "simulate", "suppressed", "why", "release", "forget", "demo")
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
EX_IOERR, INTERRUPTED = 74, 130
"""Exit codes of any command: its result cannot be written (sysexits.h); Ctrl-C."""


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

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. Nothing that ends it from outside looks like one of its own answers."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\ninterrupted", err=True)
            ctx.exit(INTERRUPTED)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            click.echo(f"error: the result cannot be written: {error.strerror}; make room and try again", err=True)
            ctx.exit(EX_IOERR)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Try it: relay demo. Then: relay check, relay serve.",
)
@click.version_option(__version__, prog_name="smtp-dedup-relay")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Forward every message once per recipient, as an SMTP proxy, and suppress its repeats."""
    if os.environ.get("NO_COLOR"):  # https://no-color.org
        ctx.color = False
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that is not UTF-8 has no arrow and no ellipsis.
        sys.stdout.reconfigure(errors="backslashreplace")
