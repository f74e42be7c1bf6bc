"""The sections about metrics, health, commands and the log."""

# Without `from __future__ import annotations`, because pydantic evaluates the annotations when a class is created.
from typing import Literal

from relay.settings.sections.base import Section, setting
from relay.settings.value_types import AddressOrNone, SocketOrNone, Switch


class HttpSection(Section):
    """Metrics and health."""

    address: AddressOrNone = setting("127.0.0.1:9625", 'Address for /metrics, /livez and /readyz. "" = off.')


class AdminSection(Section):
    """Where commands on this host ask the running relay: `status`, `check`, `config`, `why`, `forget` and others."""

    socket: SocketOrNone = setting(
        "",
        "Unix socket of the running relay, with mode 660 and the group of the service: its members, its user and root "
        "may use it. Default: admin.sock in $RUNTIME_DIRECTORY, which systemd sets; without this variable the relay "
        "has none, and commands look for /run/smtp-dedup-relay/admin.sock. docs/security.md says what its users may "
        "do.",
    )


class LogSection(Section):
    """The log on stderr: one line per message."""

    format: Literal["auto", "json", "human"] = setting("auto", '"auto" is "human" on a terminal and "json" elsewhere.')
    level: Literal["debug", "info", "warning", "error"] = setting("info", "Lowest level that is written.")
    addresses: Switch = setting(False, "Whether log lines contain mail addresses. If not, they contain ids only.")
