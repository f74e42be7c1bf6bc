"""The settings of a process, with the source of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.settings.places import ADMIN_SOCKET, DEFAULT_FILE, SERVICE_SOCKET

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from relay.settings.model import Settings


@dataclass(frozen=True, slots=True)
class Loaded:
    """Valid settings with the source of each key, and warnings."""

    settings: Settings
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Where each value is from, by dotted key: `default`, `file PATH`, `environment NAME` or `flag NAME`."""
    warnings: tuple[str, ...] = ()
    written: Mapping[str, str] = field(default_factory=dict)
    """Durations and sizes as their source writes them, by dotted key."""
    given: Mapping[str, tuple[object, str]] = field(default_factory=dict, repr=False)
    """What the sources give before it is parsed, and the source; passwords too."""
    file: Path | None = None
    """The settings file that was read."""

    @property
    def is_of_flags(self) -> bool:
        """Whether a flag sets anything but `admin.socket`: then the user means no running relay."""
        return any(source.startswith("flag") for key, source in self.provenance.items() if key != ADMIN_SOCKET)

    @property
    def running_relay(self) -> Path | None:
        """The socket of the running relay, if there is one to ask.

        A file that is not the service's names another relay, and one without a socket unless it sets `admin.socket`.
        """
        named = self.settings.admin.socket
        if named or self.provenance[ADMIN_SOCKET] != "default" or self.file not in {None, DEFAULT_FILE}:
            return named
        return SERVICE_SOCKET
