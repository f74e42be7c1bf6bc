"""Explains one message, as data: the text output and `--json` have the same content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.core.ruling import Action
from relay.explain.message_parts import PartSummary, readable, summarise_parts
from relay.judge.fingerprint.header import why_counted
from relay.judge.fingerprint.sequence import sequence_name
from relay.judge.mime.message import Multipart
from relay.judge.rules.rule import MatchTarget

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.explain.message_file import ExplainedMessage
    from relay.judge.judge import Judge
    from relay.judge.rules.rule import Condition, Rule

_MBOX = b"From "
_TRUNCATED = ("no blank line after the header section", "a multipart without its closing boundary")
"""Reasons why a truncated file is broken."""


@dataclass(frozen=True, slots=True)
class MatchedCondition:
    """A condition that holds, its pattern, and the value that matched; a condition on attachments has no value."""

    condition: str
    pattern: str
    value: str


@dataclass(frozen=True, slots=True)
class AppliedRule:
    """The rule that applies. `window` in seconds; `reason` is why the message is exempt although the rule is not.

    `repeats` is empty for an exempt message.
    """

    name: str
    action: str
    window: float
    repeats: str
    reason: str
    matched: tuple[MatchedCondition, ...]


@dataclass(frozen=True, slots=True)
class Sequence:
    """The sequence in which the message takes part, for consecutive rules, and the sender by which it is formed."""

    name: str
    sender: str


@dataclass(frozen=True, slots=True)
class IgnoredPiece:
    """A piece that was ignored, and the name of the `[[ignore]]` that matched it."""

    name: str
    piece: str


@dataclass(frozen=True, slots=True)
class FormField:
    """A field of the normalised form. A NUL stands for an ignored piece."""

    label: str
    value: str


@dataclass(frozen=True, slots=True)
class Explanation:
    r"""One message. Bytes that are not UTF-8 are written as `\xNN`; unknown addresses are None."""

    path: str
    size: int
    fingerprint: str
    recipient: str | None
    reverse_path: str | None
    rule: AppliedRule
    sequence: Sequence | None
    broken: str
    notes: tuple[str, ...]
    parts: tuple[PartSummary, ...]
    ignored: tuple[IgnoredPiece, ...]
    form: tuple[FormField, ...]


def explain_message(message: ExplainedMessage, judge: Judge) -> Explanation:
    """Returns everything that is known about one message."""
    form = message.normal_form
    return Explanation(
        str(message.path),
        len(message.content),
        message.fingerprint,
        message.recipient,
        None if message.reverse_path is None else readable(message.reverse_path),
        _applied_rule(message),
        _sequence(message),
        form.broken,
        tuple(_notes(message, judge)),
        tuple(summarise_parts(message.parsed)),
        tuple(IgnoredPiece(name, readable(piece)) for name, piece in form.ignored),
        tuple(FormField(label, readable(value)) for label, value in form.fields),
    )


def _applied_rule(message: ExplainedMessage) -> AppliedRule:
    rule, ruling = message.rule, message.ruling
    reason = ruling.rule if ruling.rule != rule.name else ""
    matched = tuple(_matched_conditions(rule, message))
    repeats = "" if ruling.action is Action.EXEMPT else str(ruling.repeats)
    return AppliedRule(rule.name, str(ruling.action), ruling.window, repeats, reason, matched)


def _sequence(message: ExplainedMessage) -> Sequence | None:
    analysis, to = message.analysis, message.folded_recipient
    if not analysis.taking_part([to]):
        return None
    return Sequence(sequence_name(analysis.sender, to), readable(analysis.sender))


def _matched_conditions(rule: Rule, message: ExplainedMessage) -> Iterator[MatchedCondition]:
    recipient = (message.folded_recipient.encode("utf-8", "surrogateescape"),)
    for condition in rule.conditions:
        texts = recipient if condition.on_recipient else tuple(message.analysis.view.values(condition))
        yield from _first_match(condition, texts)
    if rule.attachment is not None:
        yield MatchedCondition("attachment", str(rule.attachment).lower(), "")
    if rule.max_recipients is not None:
        yield MatchedCondition("max_recipients", str(rule.max_recipients), "")


def _first_match(condition: Condition, texts: tuple[bytes, ...]) -> Iterator[MatchedCondition]:
    name = f"header.{condition.header}" if condition.target is MatchTarget.HEADER else str(condition.target)
    for text in texts:
        for pattern in condition.patterns:
            if pattern.search(text):
                yield MatchedCondition(name, pattern.text, readable(text))
                return


def _notes(message: ExplainedMessage, judge: Judge) -> Iterator[str]:
    if message.has_lf_line_ends:
        yield "its lines end with LF; read as CRLF, as on the wire"
    if message.content.startswith(_MBOX):
        yield 'its first line begins with "From ", as in an mbox: remove the line, or use `relay simulate`'
    root = message.parsed.root
    if message.normal_form.broken in _TRUNCATED or (isinstance(root, Multipart) and not root.is_closed):
        yield "a truncated file looks like this"
    if message.analysis.was_delivered:
        yield (
            "it has a Delivered-To field: the relay forwards such mail without a claim. If final delivery added the "
            "field, remove it"
        )
    for name, reason in why_counted(message.parsed.fields):
        yield f"{name} counts as written, because {reason}"
    if message.recipient is None:
        for rule in message.analysis.matching_rules[:-1]:
            patterns = _recipient_patterns(rule)
            yield f'the rule "{rule.name}" ({rule.action}) wins for recipients that match {patterns}: give --recipient'
    if message.reverse_path is None and (
        names := [
            rule.name
            for rule in judge.rules
            if any(each.target is MatchTarget.REVERSE_PATH for each in rule.conditions)
        ]
    ):
        yield f"some rules look at the reverse-path ({', '.join(names)}), and the file names none: give --reverse-path"


def _recipient_patterns(rule: Rule) -> str:
    conditions = [condition for condition in rule.conditions if condition.target is MatchTarget.RECIPIENT]
    return " and ".join(" or ".join(pattern.text for pattern in condition.patterns) for condition in conditions)
