"""The environment that tests give to the relay: no settings and no state of the host reach a test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from relay.settings.places import FILE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Settings, and what systemd sets for the service that runs the tests.
_OF_THE_HOST = ("RELAY_", "LISTEN_", "XDG_", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "RUNTIME_DIRECTORY")


def isolated(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Returns `environ` for a relay that keeps its state in `folder` and reads an empty settings file."""
    kept = {name: value for name, value in environ.items() if not name.startswith(_OF_THE_HOST)}
    return kept | {FILE_VARIABLE: os.devnull, "STATE_DIRECTORY": str(folder), "HOME": str(folder)}
