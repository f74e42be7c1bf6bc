"""What `relay explain` says of one message, as data: what is printed and what `--json` gives are the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.explain.tree import Row, rows
from relay.judge.rules.rule import MatchTarget

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.explain.message_file import ExplainedMessage
    from relay.judge.judge import Judge
    from relay.judge.rules.rule import Condition, Rule

_MBOX = b"From "
_ATTACHMENT = "attachment"
_CUT_OFF = ("no blank line after the header section", "a multipart without its closing boundary")
"""Reasons that a file has which was not written to its end."""


@dataclass(frozen=True, slots=True)
class Matched:
    """A condition that holds: what it looks at, the pattern, and the value in which it was found, if it needs one."""

    condition: str
    pattern: str
    value: str


@dataclass(frozen=True, slots=True)
class Ruled:
    """The rule that wins and what it comes to. `window` in seconds; `reason` says why an exempt one is."""

    name: str
    action: str
    window: float
    reason: str
    matched: tuple[Matched, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """What was ignored, and the ignore that says so."""

    name: str
    piece: str


@dataclass(frozen=True, slots=True)
class Counted:
    """A field of the normalised form. A NUL stands for what was left out."""

    label: str
    value: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """One message. Octets that are no UTF-8 are written as hexadecimal escapes; an address nobody gave is None."""

    path: str
    size: int
    fingerprint: str
    recipient: str | None
    reverse_path: str | None
    rule: Ruled
    broken: str
    notes: tuple[str, ...]
    parts: tuple[Row, ...]
    ignored: tuple[Piece, ...]
    form: tuple[Counted, ...]


def explanation(exhibit: ExplainedMessage, judge: Judge) -> Explanation:
    """Say all that is known of one message."""
    form = exhibit.form
    return Explanation(
        str(exhibit.path),
        len(exhibit.content),
        exhibit.judged.fingerprint(exhibit.folded),
        exhibit.recipient,
        None if exhibit.reverse_path is None else readable(exhibit.reverse_path),
        _ruled(exhibit),
        form.broken,
        tuple(_notes(exhibit, judge)),
        tuple(rows(exhibit.message)),
        tuple(Piece(name, readable(piece)) for name, piece in form.ignored),
        tuple(Counted(label, readable(value)) for label, value in form.fields),
    )


def readable(octets: bytes) -> str:
    """Give text, whatever the octets are."""
    return octets.decode("utf-8", "backslashreplace")


def _ruled(exhibit: ExplainedMessage) -> Ruled:
    rule, ruling = exhibit.rule, exhibit.ruling
    reason = ruling.rule if ruling.rule != rule.name else ""
    return Ruled(rule.name, str(ruling.action), ruling.window, reason, tuple(_matches(rule, exhibit)))


def _matches(rule: Rule, exhibit: ExplainedMessage) -> Iterator[Matched]:
    for condition in rule.conditions:
        seen = (exhibit.folded.encode("utf-8", "surrogateescape"),)
        yield from _first_match(
            condition, seen if condition.on_recipient else tuple(exhibit.judged.view.values(condition))
        )
    if rule.attachment is not None:
        yield Matched(_ATTACHMENT, str(rule.attachment).lower(), "")


def _first_match(condition: Condition, seen: tuple[bytes, ...]) -> Iterator[Matched]:
    name = f"header.{condition.header}" if condition.target is MatchTarget.HEADER else str(condition.target)
    for value in seen:
        for pattern in condition.patterns:
            if pattern.search(value):
                yield Matched(name, pattern.text, readable(value))
                return


def _notes(exhibit: ExplainedMessage, judge: Judge) -> Iterator[str]:
    if exhibit.local_line_ends:
        yield "its lines end with LF; read as CRLF, as on the wire"
    if exhibit.content.startswith(_MBOX):
        yield 'its first line begins with "From ", as in an mbox: take it away, or use `relay simulate`'
    if exhibit.form.broken in _CUT_OFF:
        yield "a file that was cut off looks like this"
    if exhibit.recipient is None:
        for rule in exhibit.judged.matching_rules[:-1]:
            who = _patterns(rule)
            yield f'the rule "{rule.name}" ({rule.action}) wins for recipients that match {who}: give --recipient'
    asking = [
        rule.name for rule in judge.rules if any(each.target is MatchTarget.REVERSE_PATH for each in rule.conditions)
    ]
    if asking and exhibit.reverse_path is None:
        yield f"some rules look at the reverse-path ({', '.join(asking)}), and the file names none: give --reverse-path"


def _patterns(rule: Rule) -> str:
    asked = [condition.patterns for condition in rule.conditions if condition.target is MatchTarget.RECIPIENT]
    return " and ".join(" or ".join(pattern.text for pattern in patterns) for patterns in asked)
