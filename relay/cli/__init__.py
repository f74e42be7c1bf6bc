"""The command `relay`. Each subcommand is a file of its name, imported when it is run.

Commands may import every package of the relay; no package imports them.
"""

from __future__ import annotations

import difflib
import importlib
import io
import os
import sys
from typing import Any

import click

from relay import __version__
from relay.cli.exit_status import replace_closed_streams, shared_exit_statuses

_COMMANDS = (
    *(
        "serve",
        "check",
        "config",
        "status",
        "explain",
        "simulate",
        "log",
        "why",
        "suppressed",
        "release",
        "forget",
        "user",
        "sendmail",
        "demo",
    ),
)


class _Commands(click.Group):
    """Subcommands by name. `relay --version` and a wrong name are answered without importing any of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names in the order in which a new user needs them."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command and returns it."""
        if cmd_name not in _COMMANDS:
            near = difflib.get_close_matches(cmd_name, _COMMANDS, 1)
            if near:
                ctx.fail(f"No such command '{cmd_name}'. Did you mean '{near[0]}'?")
            return None
        command: click.Command = getattr(importlib.import_module(f"relay.cli.{cmd_name}"), cmd_name)
        return command

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parses the arguments. `--help` and `--version` print their result here."""
        replace_closed_streams()
        with shared_exit_statuses():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command."""
        with shared_exit_statuses():
            return super().invoke(ctx)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="""\b
Try it: relay demo. Next, without an MTA: make run. Beside one: relay check, then relay serve.
Every command ends with status 74 if its result cannot be written, and with 130 on Ctrl-C.""",
)
@click.version_option(__version__, prog_name="smtp-dedup-relay")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Forward every message once per recipient, as an SMTP proxy, and suppress its repeats."""
    if os.environ.get("NO_COLOR"):  # https://no-color.org
        ctx.color = False
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that does not use UTF-8 cannot show the arrow and the ellipsis.
        sys.stdout.reconfigure(errors="backslashreplace")
