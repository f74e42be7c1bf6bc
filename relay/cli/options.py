"""The flags that commands share, and the settings that come of them."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relay.cli.exit_status import EX_CONFIG
from relay.core.errors import SettingsError
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.settings import Loaded

_CONFIG = click.option(
    "-c",
    "--config",
    "config_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Settings file (TOML).  [default: /etc/smtp-dedup-relay/relay.toml where it exists]",
)
_SET = click.option(
    "--set",
    "assignments",
    metavar="SECTION.KEY=VALUE",
    multiple=True,
    help="Any setting, such as limits.recipients=500. May be given several times; beats all others.",
)
_STORE = click.option(
    "--store",
    metavar="URL",
    help="Where the relay remembers: sqlite:PATH, redis://HOST or memory:; for Sentinel and Cluster see "
    "docs/settings.md.  [store.url]",
)
_SHORTHANDS = [
    click.option("--listen", metavar="HOST:PORT", help="Where SMTP clients connect.  [listen.address]"),
    click.option(
        "--upstream",
        metavar="URL",
        help="Where mail goes: smtp://HOST, smtp+starttls://HOST, smtps://HOST or maildir:PATH.  [upstream.url]",
    ),
    _STORE,
    click.option(
        "--window",
        metavar="DURATION",
        help="How long a message suppresses its repeats, such as 10m; 0 = off.  [dedup.window]",
    ),
    click.option("--http", metavar="HOST:PORT", help='Where metrics and health are; "" = nowhere.  [http.address]'),
    click.option(
        "--observe",
        flag_value="observe",
        help='Forward everything, only count what would be suppressed.  [dedup.mode = "observe"]',
    ),
]


def settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags, and as its first argument the settings that they, environment and file make.

    Doubts about them are warnings on stderr. Wrong settings end the command with 78, and stderr says how to mend them.
    """

    @functools.wraps(command)
    def warned(loaded: Loaded, **options: Any) -> None:
        for warning in loaded.warnings:
            click.echo(f"warning: {printable(warning)}", err=True)
        command(loaded, **options)

    return _give(warned, [_CONFIG, *_SHORTHANDS, _SET])


def file_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `-c` and `--set` alone, and the settings as `settings_options` does, without doubts about them.

    For commands that serve nothing themselves.
    """
    return _give(command, [_CONFIG, _SET])


def store_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command also `--store`. For those that ask what a relay remembers."""
    return _give(command, [_CONFIG, _STORE, _SET])


def _give(command: Callable[..., None], given: Sequence[Callable[..., Any]]) -> Callable[..., None]:
    @functools.wraps(command)
    def with_settings(config_file: Path | None, assignments: Sequence[str], **options: Any) -> None:
        # Not at the top: help needs none of it, and it takes most of the time of a start.
        from relay.settings import load
        from relay.settings.sources import OPTIONS

        shorthands = {name: options.pop(name.removeprefix("--"), None) for name in OPTIONS}
        flags = {name: value for name, value in shorthands.items() if value is not None}
        try:
            loaded = load(config_file, flags | _assigned(assignments), os.environ)
        except SettingsError as error:
            for line in str(error).splitlines():
                click.echo(f"error: {printable(line)}", err=True)
            raise click.exceptions.Exit(EX_CONFIG) from None
        command(loaded, **options)

    decorated: Callable[..., None] = with_settings
    for option in reversed(given):
        decorated = option(decorated)
    return decorated


def _assigned(assignments: Sequence[str]) -> dict[str, str]:
    flags = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            # Only the first word: the rest may be a secret.
            raise SettingsError(f'--set {assignment.split(" ")[0]}: "=" is missing; write --set SECTION.KEY=VALUE')
        flags[key.strip()] = value.strip()
    return flags
