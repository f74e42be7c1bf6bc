"""What `relay check` says of files and folders: can they be written, or made? Looking leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from relay.cli.finding import Caution, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.settings import Settings
    from relay.settings.urls import MaildirUrl

_SECRET = "record.secret_file"  # noqa: S105 - the name of the key
_FOLDER = "name a folder that this user may write"
_FILE = "name a file in a folder that this user may write"


@contextlib.contextmanager
def stand_in(path: Path) -> Iterator[Path]:
    """Give the path where it exists, else one beside where it would be made. Raises `OSError`."""
    if path.exists():
        yield path
        return
    folder = next((above for above in path.absolute().parents if above.exists()), Path("/"))
    with tempfile.TemporaryDirectory(prefix=".relay-check-", dir=folder) as trial:
        yield Path(trial, path.name)


def maildir(url: MaildirUrl) -> Finding:
    """Look at the Maildir of upstream.url."""
    from relay.runtime.files import try_maildir

    try:
        with _maildir_at(url.path) as path:
            try_maildir(path)
    except OSError as error:
        return Finding("upstream.url", f"{url}: {_not_written(url.path, error)}", _FOLDER)
    return Finding("upstream.url", f"{url} can be written")


def kept_copies(settings: Settings) -> Iterator[Finding]:
    """Look at the Maildir of record.keep, where copies are kept."""
    from relay.records.kept_copies import KeptCopies

    url = settings.record.keep
    if url is None:
        return
    try:
        with _maildir_at(url.path) as path:
            KeptCopies(path).check()
    except OSError as error:
        yield Finding("record.keep", f"{url}: {_not_written(url.path, error)}", f"{_FOLDER}, with room on its disk")
    else:
        yield Finding("record.keep", f"{url} can be written")


def secret(settings: Settings) -> Iterator[Finding]:
    """Look at the secret that addresses in records are hashed with, where they are."""
    from relay.settings.sources import default_secret_file

    if settings.record.addresses:
        return
    named = settings.record.secret_file
    path = named or default_secret_file(settings, os.environ)
    # Without the default one the relay works: its records cannot be searched for addresses then.
    kind = Finding if named else Caution
    if path is None:
        yield kind(_SECRET, "there is no state folder for it, so records cannot be searched for addresses", _FILE)
        return
    there = path.exists()
    if reason := _why_no_secret(path):
        yield kind(_SECRET, f"{path}: {reason[0]}", reason[1])
    else:
        yield Finding(_SECRET, f"{path} can be read" if there else f"{path} is not there yet and can be made")


def _why_no_secret(path: Path) -> tuple[str, str] | None:
    """Give what is wrong with it, and the mend."""
    from relay.core.errors import SettingsError
    from relay.records.secret import ensure_secret

    trial = path
    try:
        with stand_in(path) as trial:
            ensure_secret(trial, None)
    except OSError as error:
        return f"cannot be made: {error.strerror or error}", _FILE
    except SettingsError as error:
        reason, _, mend = str(error).removeprefix(f"{_SECRET} {trial}: ").partition("; ")
        return reason, mend
    return None


@contextlib.contextmanager
def _maildir_at(path: Path) -> Iterator[Path]:
    """Give the folder where it is a Maildir, else another one in it, or beside where it would be made."""
    # The last of its folders to be made.
    with stand_in(path / "cur") as last:
        yield last.parent


def _not_written(path: Path, error: OSError) -> str:
    return f"cannot be {'written' if path.exists() else 'made'}: {error.strerror or error}"
