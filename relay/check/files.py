"""The tests of `relay check` for files and folders: can they be written or created? They leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from relay.check.finding import Caution, Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from relay.settings import Settings
    from relay.settings.urls import MaildirUrl

_SECRET = "record.secret_file"  # noqa: S105 - the name of the key
_FOLDER_REMEDY = "name a folder that this user may write"
_FILE_REMEDY = "name a file in a folder that this user may write"


@contextlib.contextmanager
def trial_path(path: Path) -> Iterator[Path]:
    """Yields the path if it exists, else one in a temporary folder beside the place where it would be created.

    Raises `OSError` if nothing can be created there.
    """
    if path.exists():
        yield path
        return
    folder = next((above for above in path.absolute().parents if above.exists()), Path("/"))
    with tempfile.TemporaryDirectory(prefix=".relay-check-", dir=folder) as trial:
        yield Path(trial, path.name)


def check_maildir(url: MaildirUrl) -> Finding:
    """Tests the Maildir of `upstream.url`."""
    from relay.runtime.files import try_maildir

    return _check_maildir("upstream.url", url, try_maildir, _FOLDER_REMEDY)


def check_kept_copies(settings: Settings) -> Iterator[Finding]:
    """Tests the Maildir of `record.keep`, if suppressed copies are kept."""
    from relay.records.kept_copies import KeptCopies

    if url := settings.record.keep:
        remedy = f"{_FOLDER_REMEDY}, with room on its disk"
        yield _check_maildir("record.keep", url, lambda path: KeptCopies(path).check(), remedy)


def _check_maildir(key: str, url: MaildirUrl, test: Callable[[Path], None], remedy: str) -> Finding:
    """Tests a Maildir, or if it is not there yet a trial one in it or beside the place for it."""
    try:
        # `cur` is the last folder of a Maildir to be created.
        with trial_path(url.path / "cur") as last:
            test(last.parent)
    except OSError as error:
        fault = f"cannot be {'written' if _is_seen(url.path) else 'made'}: {error.strerror or error}"
        return Finding(key, f"{url}: {fault}", remedy)
    return Finding(key, f"{url} can be written")


def _is_seen(path: Path) -> bool:
    """Returns whether the path is there, as far as this user can see: `exists` raises where it may not look."""
    try:
        return path.exists()
    except OSError:
        return False


def check_users(settings: Settings) -> Iterator[Finding]:
    """Tests the files against which logins of clients, and to the web page, are verified."""
    if settings.auth.users_file and settings.auth.mode == "file":
        yield _check_users("auth.users_file", settings.auth.users_file, "client")
    if settings.http.users_file:
        yield _check_users("http.users_file", settings.http.users_file, "visitor")


def _check_users(key: str, path: Path, who: str) -> Finding:
    from relay.logins.users_file import read_users

    try:
        users = read_users(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        remedy = f"write it with relay user add NAME --file {path}, readable for the relay's user"
        return Finding(key, f"{path}: {reason}", remedy)
    if users:
        return Finding(key, f"{path} has {len(users)} {'user' if len(users) == 1 else 'users'}")
    return Caution(key, f"{path} has no users, so no {who} can log in", f"relay user add NAME --file {path} adds one")


def check_secret(settings: Settings) -> Iterator[Finding]:
    """Tests the secret of the digests and hashed addresses in traces."""
    from relay.settings.places import default_secret_file

    named = settings.record.secret_file
    path = named or default_secret_file(settings, os.environ)
    # The relay works without its default secret file, but then traces cannot be searched by address.
    kind = Finding if named else Caution
    if path is None:
        yield kind(_SECRET, "there is no state folder for it, so traces cannot be searched by address", _FILE_REMEDY)
        return
    if fault := _secret_fault(path):
        yield kind(_SECRET, f"{path}: {fault[0]}", fault[1])
    else:
        yield Finding(_SECRET, f"{path} can be read" if path.exists() else f"{path} is not there yet and can be made")


def _secret_fault(path: Path) -> tuple[str, str] | None:
    """Returns what is wrong with the secret file and the remedy; None if it can be used."""
    from relay.core.errors import SettingsError
    from relay.records.secret import ensure_secret

    trial = path
    try:
        with trial_path(path) as trial:
            ensure_secret(trial, None)
    except OSError as error:
        return f"cannot be made: {error.strerror or error}", _FILE_REMEDY
    except SettingsError as error:
        reason, _, remedy = str(error).removeprefix(f"{_SECRET} {trial}: ").partition("; ")
        return reason, remedy
    return None
