"""Writes explanations and comparisons as text. Whatever a message contains, only printable characters are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import click

from relay.explain.differences import location_of
from relay.runtime.terminal import printable
from relay.settings.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from relay.explain.comparison import Comparison
    from relay.explain.differences import CountedDifference
    from relay.explain.edits import Edit
    from relay.explain.explanation import AppliedRule, Explanation, IgnoredPiece
    from relay.explain.message_parts import PartSummary
    from relay.explain.uncounted import UncountedDifference

_T = TypeVar("_T")
_LONG_VALUE = 400
_SHORT_VALUE = 120
_MOST_ITEMS = 20
_UNTIL = ", unless another mail of this sender came in between"
_FIRST, _SECOND = ("-", "red"), ("+", "green")


class TextReport:
    """`full` shortens nothing. `colour` marks changes by colour instead of by `[-` `-]` and `{+` `+}`."""

    def __init__(self, *, full: bool, colour: bool) -> None:
        self._full = full
        self._colour = colour

    def one_message(self, explanation: Explanation) -> Iterator[str]:
        """Yields the lines about one message."""
        yield from self._head(explanation)
        if explanation.parts:
            yield "  parts"
            for part in self._limit(explanation.parts):
                yield self._part(part)
        if explanation.ignored:
            yield "  ignored"
            for piece in self._limit(explanation.ignored):
                yield f"    {_plain(piece.name)}: {self._shorten(piece.piece, _SHORT_VALUE)}"
        yield "  normalised form"
        width = max((len(field.label) for field in explanation.form), default=0)
        for field in self._limit(explanation.form):
            yield f"    {_plain(field.label).ljust(width)}  {self._shorten(field.value, _LONG_VALUE)}".rstrip()

    def two_messages(self, comparison: Comparison, first: Explanation, second: Explanation) -> Iterator[str]:
        """Yields the lines that say whether two messages are equal, and why."""
        verdict, _, reason = _plain(comparison.sentence).partition(": ")
        yield click.style(verdict, fg="green" if comparison.equal else "red", bold=True) + f": {reason}"
        if comparison.suppressed and not comparison.but:
            window = format_duration(min(first.rule.window, second.rule.window))
            until = _UNTIL if "consecutive" in (first.rule.repeats, second.rule.repeats) else ""
            yield f"A second copy to the same recipient is suppressed for {window} after the first{until}."
        yield ""
        yield from self._head(first, "- ")
        yield from self._head(second, "+ ")
        if comparison.differences:
            yield from ("", "What differs and counts")
            for counted in self._limit(comparison.differences):
                yield from self._counted(counted)
        if comparison.uncounted:
            yield from ("", "What differs and does not count")
            for uncounted in self._limit(comparison.uncounted):
                yield from self._uncounted(uncounted)
        if first.ignored or second.ignored:
            yield from ("", "Ignored")
            yield from self._ignored(first.ignored, second.ignored)

    def _head(self, explanation: Explanation, sign: str = "") -> Iterator[str]:
        rule = explanation.rule
        yield click.style(f"{sign}{_plain(explanation.path)}", bold=True) + f"  {explanation.size:,} bytes"
        yield f"  fingerprint  {explanation.fingerprint}  for {_plain(explanation.recipient or 'no recipient')}"
        yield f"  rule         {_plain(rule.name)}: {_effect(rule)}"
        for matched in rule.matched:
            pattern, value = (self._shorten(text, _SHORT_VALUE) for text in (matched.pattern, matched.value))
            yield f"               {_plain(matched.condition)} = {pattern}" + (f", found in: {value}" if value else "")
        if explanation.sequence:
            yield f"  sequence     {explanation.sequence.name}  of mails from {_plain(explanation.sequence.sender)}"
        if explanation.reverse_path is not None:
            yield f"  reverse-path <{_plain(explanation.reverse_path)}>"
        if explanation.broken:
            yield f"  broken       {explanation.broken}: its raw bytes count"
        for note in explanation.notes:
            yield f"  note         {_plain(note)}"

    def _part(self, part: PartSummary) -> str:
        facts = [part.disposition, part.charset]
        if part.size is not None:
            facts += [part.encoding, f"{part.size:,} bytes"]
            if part.decoded_size is None:
                facts.append("cannot be decoded")
            elif part.decoded_size != part.size:
                facts.append(f"{part.decoded_size:,} decoded")
        name = f' "{self._shorten(part.name, _SHORT_VALUE)}"' if part.name else ""
        listed = ", ".join(self._shorten(fact, _SHORT_VALUE) for fact in facts if fact)
        return f"    {'  ' * part.depth}{part.number} {_plain(part.kind)}{name}{': ' if listed else ''}{listed}"

    def _ignored(self, first: Sequence[IgnoredPiece], second: Sequence[IgnoredPiece]) -> Iterator[str]:
        for name in dict.fromkeys(piece.name for piece in (*first, *second)):
            yield f"  {_plain(name)}"
            ours, theirs = ([piece.piece for piece in pieces if piece.name == name] for pieces in (first, second))
            if ours == theirs:
                yield f"    {len(ours)} in each, all equal"
                continue
            for (sign, colour), pieces in ((_FIRST, ours), (_SECOND, theirs)):
                for piece in self._limit(pieces):
                    yield click.style(f"    {sign} {self._shorten(piece, _SHORT_VALUE)}", fg=colour)

    def _counted(self, difference: CountedDifference) -> Iterator[str]:
        yield f"  {_plain(location_of(difference))}" + (f"  ({difference.hint})" if difference.hint else "")
        if not difference.edits:
            for (sign, colour), value in ((_FIRST, difference.first), (_SECOND, difference.second)):
                if value is not None:
                    yield click.style(f"    {sign} {self._shorten(value, _LONG_VALUE)}".rstrip(), fg=colour)
        for edit in difference.edits:
            yield from self._edit(edit)
        if difference.more:
            yield "    … and more; --full shows all"

    def _edit(self, edit: Edit) -> Iterator[str]:
        before, after = _plain(edit.before), _plain(edit.after)
        for (sign, colour), value in ((_FIRST, edit.first), (_SECOND, edit.second)):
            shown = self._shorten(value, _LONG_VALUE)
            if self._colour:
                shown = click.style(shown, fg=colour, bold=True, underline=True)
            elif shown:
                shown = f"[-{shown}-]" if sign == "-" else f"{{+{shown}+}}"
            yield click.style(f"    {sign} ", fg=colour) + f"{before}{shown}{after}"

    def _uncounted(self, difference: UncountedDifference) -> Iterator[str]:
        part = difference.part
        yield f"  {_plain(difference.what)}" + (f" of part {part}" if part not in {"", "-"} else "")
        if difference.first is None and difference.second is None:
            return
        for sign, value in (("-", difference.first), ("+", difference.second)):
            yield f"    {sign} {'(none)' if value is None else self._shorten(value, _SHORT_VALUE)}".rstrip()

    def _limit(self, items: Sequence[_T]) -> Sequence[_T]:
        return items if self._full else items[:_MOST_ITEMS]

    def _shorten(self, text: str, limit: int) -> str:
        if self._full or len(text) <= limit:
            return _plain(text)
        return f"{_plain(text[:limit])}… ({len(text):,} characters; --full shows all)"


def _plain(text: str) -> str:
    """Returns printable text. In a normalised form NUL stands for an ignored piece."""
    return printable(text.replace("\0", "[ignored]"))


def _effect(rule: AppliedRule) -> str:
    if rule.reason:
        return f"{rule.action}, because of: {rule.reason}"
    if rule.action == "exempt":
        return rule.action
    only = ", consecutive repeats only" if rule.repeats == "consecutive" else ""
    return f"{rule.action}, window {format_duration(rule.window)}{only}"
