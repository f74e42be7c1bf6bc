"""The exit statuses that any command may have, beside the ones of its own that its `--help` lists."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

EX_IOERR, EX_CONFIG = 74, 78
"""From sysexits.h: a result cannot be written; wrong settings, which systemd shows as CONFIG."""
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
"""What a failed write to stdout or stderr reports, and its remedy."""


@contextlib.contextmanager
def shared_exit_statuses() -> Iterator[None]:
    """Ends the command with 130 on Ctrl-C, and with 74 where a result cannot be written.

    No command has these as a status of its own: status 1 of `relay explain` would say that two messages differ.
    """
    try:
        yield
    except KeyboardInterrupt:
        click.echo("\ninterrupted", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        if remedy:
            with contextlib.suppress(OSError):
                click.echo(f"error: the result cannot be written: {error.strerror}; {remedy}", err=True)
        _discard_unwritten()
        raise click.exceptions.Exit(EX_IOERR) from None


def replace_closed_stdout() -> None:
    """Gives a command that was started with a closed stdout (`>&-`) one on which each write fails with EBADF.

    Otherwise `sys.stdout` is None, and click drops a result silently.
    """
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")


def _discard_unwritten() -> None:
    """Sends what cannot be written to the null device. Python would else fail on it at exit, with status 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:
                stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
