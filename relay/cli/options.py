"""The flags that several commands share, and the settings that result from them."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relay.core.errors import SettingsError
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from relay.settings import Loaded

_CONFIG = click.option(
    "-c",
    "--config",
    "config_file",
    metavar="FILE",
    type=click.Path(path_type=Path, readable=False),
    help="Settings file (TOML).  [default: /etc/smtp-dedup-relay/relay.toml if it exists]",
)
_SET = click.option(
    "--set",
    "assignments",
    metavar="SECTION.KEY=VALUE",
    multiple=True,
    help="Any setting, such as limits.recipients=500. Can be repeated. Overrides file, environment and other flags.",
)
_STORE = click.option(
    "--store",
    metavar="URL",
    help="Where the relay stores claims and traces: sqlite:PATH, redis://HOST or memory:. For Sentinel and Cluster "
    "see docs/settings.md.  [store.url]",
)
_SHORTHANDS = [
    click.option(
        "--listen", metavar="ADDRESS", help="Where SMTP clients connect: HOST:PORT or unix:PATH.  [listen.address]"
    ),
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
    click.option(
        "--http",
        metavar="HOST:PORT",
        help='Where the web page, metrics and health checks are served; "" = off.  [http.address]',
    ),
    click.option(
        "--observe",
        flag_value="observe",
        help='Forward everything, and only count what would be suppressed.  [dedup.mode = "observe"]',
    ),
]


def print_warnings(loaded: Loaded) -> None:
    """Prints the warnings about settings to stderr."""
    for warning in loaded.warnings:
        click.echo(f"warning: {printable(warning)}", err=True)


def file_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds only `-c` and `--set`, and prints no warnings: for commands that only read rules."""
    return _add(command, [_CONFIG, _SET])


def reloadable_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds all flags for settings, and passes a function that reads the settings, again and again."""

    def find(config_file: Path | None, flags: Mapping[str, str]) -> Callable[[], Loaded]:
        return functools.partial(_load, config_file, flags)

    return _add(command, [_CONFIG, *_SHORTHANDS, _SET], find)


@dataclass(frozen=True, slots=True)
class Target:
    """The relay that a command is about."""

    socket: Path | None
    """The socket of the running relay; None if the user means settings that no running relay has."""
    read: Loaded | SettingsError

    @property
    def loaded(self) -> Loaded:
        """The settings as this command reads them. Raises `SettingsError`."""
        if isinstance(self.read, SettingsError):
            raise self.read
        return self.read


def target_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds `-c`, `--store` and `--set`, and passes a `Target`: for commands about the store of a relay."""

    def find(config_file: Path | None, flags: Mapping[str, str]) -> Target:
        from relay.settings.urls import MemoryUrl

        target = _find_target(config_file, flags)
        if isinstance(target.read, SettingsError) or not isinstance(target.read.settings.store.url, MemoryUrl):
            return target
        # Only a running relay has the store, even if a flag names it.
        return Target(target.read.running_relay, target.read)

    return _add(command, [_CONFIG, _STORE, _SET], find)


def settings_target_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds all flags for settings, and passes a `Target`: for commands about the settings of a relay."""
    return _add(command, [_CONFIG, *_SHORTHANDS, _SET], _find_target)


def _find_target(config_file: Path | None, flags: Mapping[str, str]) -> Target:
    """Returns the relay that a command is about.

    If nothing names other settings, wrong ones do not stop the command: what this shell lacks, such as a password, the
    running relay may have.
    """
    from relay.settings.places import FILE_VARIABLE, default_socket

    try:
        loaded = _load(config_file, flags)
    except SettingsError as error:
        if config_file or flags or FILE_VARIABLE in os.environ:
            raise
        return Target(default_socket(os.environ), error)
    return Target(None if loaded.is_of_flags else loaded.running_relay, loaded)


def _load(config_file: Path | None, flags: Mapping[str, str]) -> Loaded:
    from relay.settings import load

    return load(config_file, flags, os.environ)


def _add(
    command: Callable[..., None],
    flags: Sequence[Callable[..., Any]],
    find: Callable[[Path | None, Mapping[str, str]], object] = _load,
) -> Callable[..., None]:
    @functools.wraps(command)
    def with_settings(config_file: Path | None, assignments: Sequence[str], **options: Any) -> None:
        # Imported here because `--help` does not need them, and they take most of the start-up time.
        from relay.settings.sources import OPTIONS

        shorthands = {name: options.pop(name.removeprefix("--"), None) for name in OPTIONS}
        given = {name: value for name, value in shorthands.items() if value is not None}
        command(find(config_file, given | _assigned(assignments)), **options)

    decorated: Callable[..., None] = with_settings
    for flag in reversed(flags):
        decorated = flag(decorated)
    return decorated


def _assigned(assignments: Sequence[str]) -> dict[str, str]:
    values = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            # Only the first word is shown: the rest may be a secret.
            raise SettingsError(f'--set {assignment.split(" ")[0]}: "=" is missing; write --set SECTION.KEY=VALUE')
        values[key.strip()] = value.strip()
    return values
