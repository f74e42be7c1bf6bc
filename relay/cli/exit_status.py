"""How commands end: the exit statuses that all of them share, and the errors that are reported to the user."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING

import click

from relay.core.errors import AdminError, RelayError, SettingsError
from relay.runtime.descriptors import hold_standard_descriptors
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator

EX_UNAVAILABLE, EX_IOERR, EX_CONFIG = 69, 74, 78
"""From sysexits.h: no relay answers `relay status`; a result cannot be written; wrong settings, which systemd shows as
CONFIG."""
INTERRUPTED = 130
"""Ctrl-C: 128 and the number of SIGINT, as from a shell."""

_MAKE_ROOM = "make room and try again"
_REMEDIES = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EFBIG: "raise the limit on file sizes (ulimit -f) and try again",
    errno.EIO: "redirect stdout to another place",
    errno.EBADF: "redirect stdout to a file or a pipe",
    errno.EPIPE: "",  # `relay config | head`: the reader has seen enough, so there is nothing to report.
}
"""The errors of a failed write to stdout or stderr, with the remedy of each."""


class CommandError(RelayError):
    """A command cannot do its work. Each argument is a message for the user that says why, and the remedy."""

    exit_status = 1


class UnavailableError(CommandError):
    """No relay answers a command that can do nothing without one."""

    exit_status = EX_UNAVAILABLE


def run(work: Coroutine[object, object, bool]) -> None:
    """Runs a command to its end, then exits with status 0 if it returned True, else 1."""
    import asyncio

    sys.exit(0 if asyncio.run(work) else 1)


@contextlib.contextmanager
def shared_exit_statuses() -> Iterator[None]:
    """Ends a command with 130 on Ctrl-C, 78 on wrong settings, 74 on an unwritable result, and as its error says.

    Without it click ends with status 1, which `relay explain` uses for messages that differ.
    """
    try:
        try:
            yield
        except KeyboardInterrupt:
            click.echo("\ninterrupted", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None
        except (CommandError, AdminError) as error:
            _report(error.args)
            raise click.exceptions.Exit(getattr(error, "exit_status", 1)) from None
        except SettingsError as error:
            _report(str(error).splitlines())
            raise click.exceptions.Exit(EX_CONFIG) from None
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        remedy = "; ".join(getattr(error, "__notes__", ())) or remedy
        if remedy:
            with contextlib.suppress(OSError):
                click.echo(f"error: the result cannot be written: {error.strerror}; {remedy}", err=True)
        _discard_unwritten()
        raise click.exceptions.Exit(EX_IOERR) from None


@contextlib.contextmanager
def after_work(done: str) -> Iterator[None]:
    """Adds to the error of a failed write what the command has `done`, in place of the remedy to try again."""
    try:
        yield
    except OSError as error:
        error.add_note(done)
        raise


def replace_closed_streams() -> None:
    """Gives a command standard streams if it was started with closed ones (`<&- >&- 2>&-`).

    Otherwise `sys.stdout` is None, and click drops a result silently. See `hold_standard_descriptors`.
    """
    hold_standard_descriptors()
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w")


def _report(messages: Iterable[str]) -> None:
    for message in messages:
        click.echo(f"error: {printable(message)}", err=True)


def _discard_unwritten() -> None:
    """Sends what cannot be written to the null device. Otherwise Python tries again at exit and ends with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:
                stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
