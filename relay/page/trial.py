"""Tries pasted messages against the rules in force, as `relay explain` does. Nothing is stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relay.core.ruling import Action
from relay.explain.comparison import compare_messages
from relay.explain.explanation import explain_message
from relay.explain.message_file import analyse_content
from relay.settings.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.explain.comparison import Comparison
    from relay.explain.explanation import AppliedRule, Explanation
    from relay.explain.message_file import ExplainedMessage
    from relay.judge.judge import Judge

LARGEST = 1024 * 1024
"""Bytes of a message."""
MOST_EDITS = 20
MOST_FIELDS = 60
"""Fields of a normalised form, and differences, that are shown."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """The addresses that were written beside the messages; empty if they are unknown."""

    recipient: str = ""
    sender: str = ""
    """`<>` for the null reverse-path."""

    @property
    def reverse_path(self) -> bytes | None:
        """The sender without angle brackets; None if it is unknown."""
        return self.sender.removeprefix("<").removesuffix(">").encode("utf-8", "replace") if self.sender else None


@dataclass(frozen=True, slots=True)
class Trial:
    """What would happen to one or two messages."""

    explanations: Sequence[Explanation]
    verdicts: Sequence[str]
    """For each message what would happen to it and to its copies."""
    comparison: Comparison | None


def try_messages(judge: Judge, contents: Sequence[bytes], envelope: Envelope) -> Trial:
    """Judges one or two messages. Takes long for some, so that it runs in a thread."""
    messages = analyse(judge, contents, envelope)
    explanations = [explain_message(message, judge) for message in messages]
    return Trial(
        explanations=explanations,
        verdicts=[verdict(each.rule) for each in explanations],
        comparison=compare_messages(*messages, limit=MOST_EDITS) if len(messages) > 1 else None,
    )


def analyse(judge: Judge, contents: Sequence[bytes], envelope: Envelope) -> list[ExplainedMessage]:
    """Returns the messages with their analysis."""
    return [
        analyse_content(
            Path(f"{name} message"),
            content,
            judge,
            recipient=envelope.recipient or None,
            reverse_path=envelope.reverse_path,
        )
        for name, content in zip(("first", "second"), contents, strict=False)
    ]


def verdict(rule: AppliedRule) -> str:
    """Returns in a sentence what a rule does to a message and its copies."""
    if rule.action == Action.EXEMPT:
        reason = rule.reason or f"rule {rule.name}"
        return f"Every copy is forwarded, because the message is exempt ({reason})."
    which = f"within {format_duration(rule.window)}"
    if rule.repeats == "consecutive":
        which += " and before another mail of this sender"
    if rule.action == Action.OBSERVE:
        return f"Every copy is forwarded; one to the same recipient {which} is counted as what would be suppressed."
    return f"The first copy is forwarded; a further one to the same recipient {which} is suppressed."
