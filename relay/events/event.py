"""One kind of log line."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

RECORD_FIELD = {"record": "the id of the message's transaction, for `relay why`"}
PEER_FIELD = {"peer": "the client's address"}
ERROR_FIELD = {"error": "the cause"}
"""The field `error` has the words of another program. The formatters make one short line of it."""
TRACEBACK_FIELD = {"traceback": "where it happened, for a report"}


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """A log line: a constant text, and fields for all that differs from line to line.

    `tests/unit/events` checks that each call of `log` has all `fields`, and no others but the `optional` ones.
    """

    text: str
    level: int
    logger: logging.Logger
    advice: str
    """What an admin does about it."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """The meaning of each field."""
    optional: Mapping[str, str] = field(default_factory=dict)
    """Fields of some lines."""

    @property
    def is_logged(self) -> bool:
        """Whether the level of the log includes the event."""
        return self.logger.isEnabledFor(self.level)

    def log(self, fault: BaseException | None = None, /, **fields: object) -> None:
        """Logs a line. The traceback of a fault follows the fields."""
        # Not `Logger.log`, which looks for the caller's name, file and line: 3 us of the 13 us of a message's line.
        if self.logger.isEnabledFor(self.level):
            caught = (type(fault), fault, fault.__traceback__) if fault else None
            line = logging.LogRecord(self.logger.name, self.level, "", 0, self.text, None, caught)
            line.__dict__["fields"] = fields
            self.logger.handle(line)
