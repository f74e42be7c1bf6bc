"""The sections about metrics, health and the log."""

# Without `from __future__ import annotations`, because pydantic evaluates the annotations when a class is created.
from typing import Literal

from relay.settings.sections.base import Section, setting
from relay.settings.value_types import AddressOrNone, Switch


class HttpSection(Section):
    """Metrics and health."""

    address: AddressOrNone = setting("127.0.0.1:9625", 'Address for /metrics, /livez and /readyz. "" = off.')


class LogSection(Section):
    """The log on stderr: one line per message."""

    format: Literal["auto", "json", "human"] = setting("auto", '"auto" is "human" on a terminal and "json" elsewhere.')
    level: Literal["debug", "info", "warning", "error"] = setting("info", "Lowest level that is written.")
    addresses: Switch = setting(False, "Whether log lines contain mail addresses. If not, they contain ids only.")
