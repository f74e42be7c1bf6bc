"""Rules as data: conditions on a message and its recipient, and what to do about repeats of messages that meet them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from relay.core.ruling import DEFAULT, Action, Repeats, Ruling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.core.envelope import Recipient
    from relay.judge.rules.ignore import Ignore
    from relay.judge.rules.pattern import Pattern


class MatchTarget(enum.StrEnum):
    """The part of a message or envelope that a condition looks at."""

    SUBJECT = "subject"
    FROM = "from"
    HEADER = "header"
    REVERSE_PATH = "reverse_path"
    LINK = "link"
    IMAGE = "image"
    CODE = "code"
    TOKEN_LINK = "token_link"  # noqa: S105 - the name of a key
    RECIPIENT = "recipient"


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds if one of the patterns is found in one of the target's values."""

    target: MatchTarget
    patterns: tuple[Pattern, ...]
    header: str = ""
    """The name of the field in lower case, if the target is `HEADER`."""
    key: str = field(init=False, repr=False, compare=False)
    """Target and header. Conditions of one key look at the same values. A string: the hash of an enum is slow."""
    on_recipient: bool = field(init=False, repr=False, compare=False)
    """Whether the target is the recipient."""

    @property
    def weight(self) -> int:
        """The instructions of all patterns."""
        return sum(pattern.weight for pattern in self.patterns)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.target.value} {self.header}")
        object.__setattr__(self, "on_recipient", self.target is MatchTarget.RECIPIENT)

    def holds(self, values: Sequence[bytes]) -> bool:
        """Returns whether a pattern is found in one of the values."""
        return bool(values) and any(pattern.search(value) for value in values for pattern in self.patterns)


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """Matches if all of its conditions hold. The first rule that matches wins."""

    name: str
    action: Action
    conditions: tuple[Condition, ...] = ()
    attachment: bool | None = None
    """Whether the message must have an attachment; None if that does not matter."""
    window: float | None = None
    """Seconds; None for the service's window."""
    ignore: tuple[Ignore, ...] = ()
    """What does not count under this rule, in addition to what does not count in any message."""
    repeats: Repeats = Repeats.WINDOW
    max_recipients: int | None = None
    """The most recipients that the envelope may have; None if that does not matter."""

    @property
    def depends_on_recipient(self) -> bool:
        """Whether the rule has a condition on the recipient."""
        return any(condition.on_recipient for condition in self.conditions)

    @property
    def message_weight(self) -> int:
        """The instructions of all patterns that look at the message."""
        return sum(condition.weight for condition in self.conditions if not condition.on_recipient)

    @property
    def recipient_weight(self) -> int:
        """The instructions of all patterns that look at the recipient."""
        return sum(condition.weight for condition in self.conditions if condition.on_recipient)

    @property
    def recipient_patterns(self) -> int:
        """The number of patterns that look at the recipient."""
        return sum(len(condition.patterns) for condition in self.conditions if condition.on_recipient)

    def matches_recipient(self, recipient: Recipient) -> bool:
        """Returns whether all conditions on the recipient hold."""
        octets = recipient.encode("utf-8", "surrogateescape")
        return all(condition.holds((octets,)) for condition in self.conditions if condition.on_recipient)


_ENVELOPE_AND_SENDER = frozenset({MatchTarget.FROM, MatchTarget.REVERSE_PATH, MatchTarget.RECIPIENT})


def scope_of(rule: Rule) -> Rule | None:
    """Returns a rule with only the conditions on sender and recipient of a consecutive rule; None if it has none.

    A message that meets these conditions takes part in its sequence, although the rule does not match its content.
    """
    conditions = tuple(each for each in rule.conditions if each.target in _ENVELOPE_AND_SENDER)
    if rule.repeats is not Repeats.CONSECUTIVE or not conditions:
        return None
    return replace(rule, conditions=conditions, attachment=None, max_recipients=None)


NO_RULE = Rule(DEFAULT, Action.DEDUPE)
"""Wins if no other rule matches."""


def ruling_for(rule: Rule, window: float, *, observe: bool) -> Ruling:
    """Returns the decision if this rule wins. `window` is the service's, in seconds; `observe` prevents suppression."""
    seconds = window if rule.window is None else rule.window
    if rule.action is Action.EXEMPT:
        return Ruling.exempt(rule.name)
    if seconds <= 0:
        return Ruling.exempt("window is 0" if rule is NO_RULE else f"{rule.name}: window is 0")
    return Ruling(rule.name, Action.OBSERVE if observe else rule.action, seconds, rule.repeats)
