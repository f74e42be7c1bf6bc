"""What `relay explain` says of two messages, as data: whether they are equal, and every difference."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.core.ruling import Action
from relay.explain.differences import Difference, differences, place
from relay.explain.field_pairs import differing
from relay.explain.uncounted import Uncounted, uncounted
from relay.settings.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.explain.edits import Edit
    from relay.explain.message_file import ExplainedMessage

_LEAD = 20
_SHOWN_IN_SENTENCE = 60


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two messages. `suppressed` says whether the second is a repeat that is kept back; `but` why not, or how far."""

    equal: bool
    sentence: str
    suppressed: bool
    but: str
    differences: tuple[Difference, ...]
    uncounted: tuple[Uncounted, ...]


def comparison(first: ExplainedMessage, second: ExplainedMessage, *, most: int) -> Comparison:
    """Compare two messages to the same recipient; at most `most` edits of each text."""
    pairs = differing(first.form, second.form)
    equal = first.judged.fingerprint(first.folded) == second.judged.fingerprint(second.folded)
    found = tuple(differences(pairs, first.message, second.message, most=most))
    counted = {(field.part, field.label.lower()) for pair in pairs for field in pair if field}
    rest = tuple(uncounted(first.message, second.message, counted))
    suppressed, but = _outcome(first, second) if equal else (False, "")
    said = _equal(first, second, rest) if equal else _different(found)
    return Comparison(equal, said + (f"; {but}" if but else ""), suppressed, but, found, rest)


# The sentence


def _equal(first: ExplainedMessage, second: ExplainedMessage, rest: Sequence[Uncounted]) -> str:
    if first.content == second.content:
        return "equal: byte for byte the same"
    names = list(dict.fromkeys(found.what for found in rest))
    said = f"equal: they differ only in {_listed(names)}" if names else "equal: nothing that counts differs"
    ignored = [name for name, pieces in _ignored(first).items() if pieces != _ignored(second).get(name, [])]
    ignored += [name for name in _ignored(second) if name not in _ignored(first)]
    return said + (f"; ignored: {_listed(ignored)}" if ignored else "")


def _ignored(exhibit: ExplainedMessage) -> dict[str, list[bytes]]:
    pieces: dict[str, list[bytes]] = {}
    for name, piece in exhibit.form.ignored:
        pieces.setdefault(name, []).append(piece)
    return pieces


def _different(found_all: Sequence[Difference]) -> str:
    if not found_all:  # the recipient's rules leave other things out, or ours has a fault
        return "different: their fingerprints differ"
    found = found_all[0]
    if found.only:
        value = (found.first if found.only == "first" else found.second) or "empty"
        said = f"only the {found.only} has {place(found)}: {_short(value)}"
    elif found.edits:
        said = f"{place(found)} differs ({found.hint or _changed(found.edits[0])})"
    else:
        said = f"{place(found)} differs ({_short(found.first or '')} → {_short(found.second or '')})"
    further = sum(max(1, len(each.edits)) for each in found_all) - 1
    more = any(each.more for each in found_all)
    count = f"; {'at least ' if more else ''}{further} more {'difference' if further == 1 else 'differences'}"
    return f"different: {said}" + (count if further else "")


def _changed(edit: Edit) -> str:
    """With a little of what stands before, as far as it belongs to the same word."""
    word = re.split(r"\s", edit.before)[-1]
    lead = word if len(word) <= _LEAD else f"…{word[-_LEAD:]}"
    return f"{_short(lead + edit.first)} → {_short(lead + edit.second)}"


def _short(text: str) -> str:
    if not text:
        return "nothing"
    return text if len(text) <= _SHOWN_IN_SENTENCE else f"{text[:_SHOWN_IN_SENTENCE]}…"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _outcome(first: ExplainedMessage, second: ExplainedMessage) -> tuple[bool, str]:
    """Say whether the second of two equal messages is kept back, and why not, or how far."""
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
