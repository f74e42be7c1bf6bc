"""`relay user`: adds, removes and lists the users of a users file."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relay.cli.exit_status import CommandError
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.logins.users_file import User

_LONGEST_PASSWORD = 4096
"""Bytes."""


@click.group(
    short_help="Manage the users who may log in.",
    epilog="""\b
Examples:
  relay user add avideo --file /var/lib/smtp-dedup-relay/users
  echo 'the password' | relay user add avideo --from @example.org
  relay user list
  relay user add ada --page
Exit status: 0 done, 1 there is no such user or the file cannot be used,
78 the settings are wrong.""",
)
def user() -> None:
    """Manage the users who may log in with auth.mode = "file", and with --page those who may open the web page.

    A running relay uses a changed file at once.

    The file holds argon2 hashes, not passwords. A new one has mode 600 and, if root writes it, the owner of its folder.
    """


def _file_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that name a users file, and passes its path as `file`."""

    @functools.wraps(command)
    def with_file(path: Path | None, config_file: Path | None, *, page: bool, **options: Any) -> None:
        command(file=path or _named_file(config_file, "http.users_file" if page else "auth.users_file"), **options)

    config = click.option(
        "-c",
        "--config",
        "config_file",
        metavar="FILE",
        type=click.Path(path_type=Path, readable=False),
        help="Settings file that names the users file.  [default: /etc/smtp-dedup-relay/relay.toml if it exists]",
    )
    users = click.option(
        "--file", "path", metavar="FILE", type=click.Path(path_type=Path), help="The users file.  [auth.users_file]"
    )
    page = click.option("--page", is_flag=True, help="The users of the web page: the file in http.users_file.")
    decorated: Callable[..., None] = with_file
    for option in (page, users, config):
        decorated = option(decorated)
    return decorated


@user.command(epilog="\b\nExample:\n  relay user add avideo --file /var/lib/smtp-dedup-relay/users --from @example.org")
@click.argument("name")
@click.option(
    "--from",
    "senders",
    metavar="ADDRESS|@DOMAIN",
    multiple=True,
    help="A sender address that the user may use, or a domain. Can be repeated.  [default: those before, else all]",
)
@_file_options
def add(name: str, senders: tuple[str, ...], file: Path) -> None:
    """Add a user, or change the password of one.

    Asks for the password on a terminal, else reads it from the first line of stdin. No flag takes it, because every
    user of the host can see flags.
    """
    from relay.logins.passwords import hash_password
    from relay.logins.users_file import User, check_name, check_sender

    try:
        check_name(name)
        for sender in senders:
            check_sender(sender)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    hashed = hash_password(_password())
    existed = False

    def change(users: dict[str, User]) -> None:
        nonlocal existed
        before = users.get(name)
        existed = before is not None
        users[name] = User(name, hashed, senders or (before.senders if before else ()))

    _change(file, change)
    click.echo(f"{'changed' if existed else 'added'} {printable(name)} in {file}")


@user.command(epilog="\b\nExample:\n  relay user remove avideo --file /var/lib/smtp-dedup-relay/users")
@click.argument("name")
@_file_options
def remove(name: str, file: Path) -> None:
    """Remove a user. SMTP sessions that have logged in already go on; those of the web page end."""

    def change(users: dict[str, User]) -> None:
        if users.pop(name, None) is None:
            raise CommandError(f"{file} has no user {name}; relay user list shows all")

    _change(file, change)
    click.echo(f"removed {printable(name)} from {file}")


@user.command("list", epilog="\b\nExample:\n  relay user list --file /var/lib/smtp-dedup-relay/users")
@click.argument("name", required=False)
@_file_options
def list_users(name: str | None, file: Path) -> None:
    """List the users and the sender addresses of each."""
    from relay.logins.users_file import read_users

    try:
        users = read_users(file)
    except (OSError, ValueError) as error:
        raise _unusable(file, error) from error
    if name is not None and name not in users:
        raise CommandError(f"{file} has no user {name}")
    for each in users.values():
        if name in (None, each.name):
            click.echo(f"{printable(each.name)}  {', '.join(each.senders) or 'any sender'}")


def _named_file(config_file: Path | None, key: str) -> Path:
    """Returns the users file that a setting names."""
    import os

    from relay.settings import load

    settings = load(config_file, {}, os.environ).settings
    named = settings.http.users_file if key.startswith("http") else settings.auth.users_file
    if named is None:
        raise click.UsageError(f"No users file: give --file FILE, or set {key}.")
    return named


def _password() -> bytes:
    """Returns the password, in UTF-8. Asks twice on a terminal. Raises `CommandError` if there is none."""
    if sys.stdin is not None and sys.stdin.isatty():
        text: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        password = text.encode("utf-8", "surrogateescape")
    else:
        line = sys.stdin.buffer.readline(_LONGEST_PASSWORD + 2) if sys.stdin is not None else b""
        password = line.removesuffix(b"\n").removesuffix(b"\r")
    if not password or len(password) > _LONGEST_PASSWORD or b"\0" in password:
        raise CommandError(f"the first line of stdin is no password: write 1 to {_LONGEST_PASSWORD} bytes")
    return password


def _change(file: Path, change: Callable[[dict[str, User]], None]) -> None:
    from relay.logins.users_file import change_users

    try:
        change_users(file, change)
    except (OSError, ValueError) as error:
        raise _unusable(file, error) from error


def _unusable(file: Path, error: OSError | ValueError) -> CommandError:
    if isinstance(error, OSError):
        return CommandError(f"{file}: {error.strerror}; run this as a user who may read and write it")
    return CommandError(f"{file}: {error}")
