"""Compares two messages for `relay explain`, as data: whether they are equal, in one sentence why, every difference."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.core.ruling import Action
from relay.explain.differences import CountedDifference, find_differences, location_of
from relay.explain.field_pairs import pair_different_fields
from relay.explain.uncounted import UncountedDifference, find_uncounted
from relay.settings.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.explain.edits import Edit
    from relay.explain.message_file import ExplainedMessage

_LONGEST_LEAD = 20
_LONGEST_VALUE = 60


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two messages compared.

    `suppressed` is whether the relay would suppress the second; `but` gives the reason why not, or a shorter window.
    """

    equal: bool
    sentence: str
    suppressed: bool
    but: str
    differences: tuple[CountedDifference, ...]
    uncounted: tuple[UncountedDifference, ...]


def compare_messages(first: ExplainedMessage, second: ExplainedMessage, *, limit: int) -> Comparison:
    """Compares two messages to the same recipient, with at most `limit` edits of each text."""
    pairs = pair_different_fields(first.normal_form, second.normal_form)
    equal = first.fingerprint == second.fingerprint
    differences = tuple(find_differences(pairs, first.parsed, second.parsed, limit=limit))
    counted = {(field.part, field.label.lower()) for pair in pairs for field in pair if field}
    uncounted = tuple(find_uncounted(first.parsed, second.parsed, counted))
    suppressed, but = _is_suppressed(first, second) if equal else (False, "")
    sentence = _equal_sentence(first, second, uncounted) if equal else _different_sentence(differences)
    return Comparison(equal, sentence + (f"; {but}" if but else ""), suppressed, but, differences, uncounted)


def _equal_sentence(first: ExplainedMessage, second: ExplainedMessage, uncounted: Sequence[UncountedDifference]) -> str:
    if first.content == second.content:
        return "equal: byte for byte the same"
    names = list(dict.fromkeys(difference.what for difference in uncounted))
    sentence = f"equal: they differ only in {_enumerate(names)}" if names else "equal: nothing that counts differs"
    ours, theirs = _ignored_by_name(first), _ignored_by_name(second)
    ignored = [name for name in dict.fromkeys([*ours, *theirs]) if ours.get(name) != theirs.get(name)]
    return sentence + (f"; ignored: {_enumerate(ignored)}" if ignored else "")


def _ignored_by_name(message: ExplainedMessage) -> dict[str, list[bytes]]:
    pieces: dict[str, list[bytes]] = {}
    for name, piece in message.normal_form.ignored:
        pieces.setdefault(name, []).append(piece)
    return pieces


def _different_sentence(differences: Sequence[CountedDifference]) -> str:
    if not differences:  # the rules of the two messages ignore different things, or this comparison has a fault
        return "different: their fingerprints differ"
    difference = differences[0]
    if difference.only:
        value = (difference.first if difference.only == "first" else difference.second) or "empty"
        sentence = f"only the {difference.only} has {location_of(difference)}: {_shorten(value)}"
    else:
        how = f"{_shorten(difference.first or '')} → {_shorten(difference.second or '')}"
        if difference.edits:
            how = difference.hint or _describe_edit(difference.edits[0])
        sentence = f"{location_of(difference)} differs ({how})"
    further = sum(max(1, len(each.edits)) for each in differences) - 1
    at_least = "at least " if any(each.more for each in differences) else ""
    count = f"; {at_least}{further} more {'difference' if further == 1 else 'differences'}"
    return f"different: {sentence}" + (count if further else "")


def _describe_edit(edit: Edit) -> str:
    """Returns both values, led by the beginning of the word that they end."""
    word = re.split(r"\s", edit.before)[-1]
    lead = word if len(word) <= _LONGEST_LEAD else f"…{word[-_LONGEST_LEAD:]}"
    return f"{_shorten(lead + edit.first)} → {_shorten(lead + edit.second)}"


def _shorten(text: str) -> str:
    if not text:
        return "nothing"
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _enumerate(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _is_suppressed(first: ExplainedMessage, second: ExplainedMessage) -> tuple[bool, str]:
    """Returns whether the second of two equal messages is suppressed, and why not or for how long."""
    ours, theirs = first.ruling, second.ruling
    for which, ruling in (("the first", ours), ("the second", theirs)):
        if ruling.action is Action.EXEMPT:
            both = "it" if first.content == second.content else which
            return False, f"yet never suppressed, because {both} is exempt ({ruling.rule})"
    if theirs.action is Action.OBSERVE:
        return False, f"yet forwarded, because it is only observed ({theirs.rule})"
    if ours.rule != theirs.rule and ours.window != theirs.window:
        shorter = format_duration(min(ours.window, theirs.window))
        return True, (
            f"their rules have windows of {format_duration(ours.window)} and {format_duration(theirs.window)}, "
            f"so the second is suppressed for {shorter} only"
        )
    return True, ""
