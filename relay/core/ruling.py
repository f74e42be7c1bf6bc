"""The decision of the rules for one recipient of a message."""

from __future__ import annotations

import enum
from dataclasses import dataclass

DEFAULT = "default"
"""The rule name in a ruling for which no rule matched."""


class Action(enum.StrEnum):
    """What happens to repeats of a message."""

    DEDUPE = "dedupe"
    """They are suppressed."""
    OBSERVE = "observe"
    """They are forwarded and counted as `would_suppress`."""
    EXEMPT = "exempt"
    """They are forwarded without a claim."""


class Repeats(enum.StrEnum):
    """Which copies are repeats."""

    WINDOW = "window"
    """Each one within the window."""
    CONSECUTIVE = "consecutive"
    """Only those before another mail of the same sender came for the same recipient."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """The decision for one recipient of a message."""

    rule: str
    """The name of the rule that won, or the reason for an exemption."""
    action: Action
    window: float
    """Seconds."""
    repeats: Repeats = Repeats.WINDOW

    @classmethod
    def exempt(cls, reason: str) -> Ruling:
        """Returns a ruling that forwards all copies."""
        return cls(reason, Action.EXEMPT, 0.0)
