"""What the rules decide for one recipient of a message."""

from __future__ import annotations

import enum
from dataclasses import dataclass

DEFAULT = "default"
"""The name of what holds where no rule matches."""


class Action(enum.StrEnum):
    """What is done about repeats of a message."""

    DEDUPE = "dedupe"
    """They are suppressed."""
    OBSERVE = "observe"
    """They are forwarded, and it is said what would have been suppressed."""
    EXEMPT = "exempt"
    """They are forwarded; nothing is claimed and nothing is remembered."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What holds for a recipient of a message: which rule says so, and the window in seconds."""

    rule: str
    action: Action
    window: float

    @classmethod
    def exempt(cls, reason: str) -> Ruling:
        """Let no rule decide: never suppress, for this reason."""
        return cls(reason, Action.EXEMPT, 0.0)
