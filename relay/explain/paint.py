"""How `relay explain` writes its data for people: a message can put nothing on the terminal but text."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import click

from relay.explain.differences import place
from relay.runtime.terminal import printable
from relay.settings.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from relay.explain.comparison import Comparison
    from relay.explain.differences import Difference
    from relay.explain.edits import Edit
    from relay.explain.explanation import Explanation, Ruled
    from relay.explain.tree import Row
    from relay.explain.uncounted import Uncounted

_T = TypeVar("_T")
_LONG = 400
_SHORT = 120
_MANY = 20


class Painter:
    """`full` shortens nothing; `colour` marks what changed by colours, else signs do."""

    def __init__(self, *, full: bool, colour: bool) -> None:
        self._full = full
        self._colour = colour

    def one(self, found: Explanation) -> Iterator[str]:
        """Write all about one message."""
        yield from self._head(found)
        if found.parts:
            yield "  parts"
            yield from self._rows(found.parts)
        yield from self._ignored(found)
        yield "  normalised form"
        width = max((len(field.label) for field in found.form), default=0)
        for label, value in self._some([(field.label, field.value) for field in found.form]):
            yield f"    {_plain(label).ljust(width)}  {self._cut(value, _LONG)}".rstrip()

    def two(self, found: Comparison, first: Explanation, second: Explanation) -> Iterator[str]:
        """Write whether two messages are equal, and why."""
        colour = "green" if found.equal else "red"
        verdict, _, why = _plain(found.sentence).partition(": ")
        yield click.style(verdict, fg=colour, bold=True) + f": {why}"
        if found.suppressed and not found.but:
            window = format_duration(min(first.rule.window, second.rule.window))
            yield f"A second copy to the same recipient is suppressed for {window} after the first."
        yield ""
        for sign, each in (("-", first), ("+", second)):
            yield from self._head(each, f"{sign} ")
        if found.differences:
            yield ""
            yield "What differs and counts"
            for difference in self._some(found.differences):
                yield from self._difference(difference)
        if found.uncounted:
            yield ""
            yield "What differs and does not count"
            for uncounted in self._some(found.uncounted):
                yield from self._uncounted(uncounted)
        yield from self._both_ignored(first, second)

    def _head(self, found: Explanation, sign: str = "") -> Iterator[str]:
        yield click.style(f"{sign}{_plain(found.path)}", bold=True) + f"  {found.size:,} bytes"
        yield f"  fingerprint  {found.fingerprint}  for {_plain(found.recipient or 'no recipient')}"
        yield f"  rule         {_plain(found.rule.name)}: {_meaning(found.rule)}"
        for matched in found.rule.matched:
            found_in = f", found in: {self._cut(matched.value, _SHORT)}" if matched.value else ""
            yield f"               {_plain(matched.condition)} = {self._cut(matched.pattern, _SHORT)}{found_in}"
        if found.reverse_path is not None:
            yield f"  reverse-path <{_plain(found.reverse_path)}>"
        if found.broken:
            yield f"  broken       {found.broken}: its raw bytes count"
        for note in found.notes:
            yield f"  note         {_plain(note)}"

    def _rows(self, rows: Sequence[Row]) -> Iterator[str]:
        for row in self._some(rows):
            facts = [row.disposition, row.charset, row.encoding if row.size is not None else ""]
            if row.size is not None:
                facts.append(f"{row.size:,} bytes")
                if row.decoded_size is None:
                    facts.append("cannot be decoded")
                elif row.decoded_size != row.size:
                    facts.append(f"{row.decoded_size:,} decoded")
            name = f' "{self._cut(row.name, _SHORT)}"' if row.name else ""
            said = ", ".join(self._cut(fact, _SHORT) for fact in facts if fact)
            yield f"    {'  ' * row.depth}{row.number} {_plain(row.kind)}{name}{': ' if said else ''}{said}"

    def _ignored(self, found: Explanation) -> Iterator[str]:
        if found.ignored:
            yield "  ignored"
            for piece in self._some(found.ignored):
                yield f"    {_plain(piece.name)}: {self._cut(piece.piece, _SHORT)}"

    def _both_ignored(self, first: Explanation, second: Explanation) -> Iterator[str]:
        pieces: dict[str, tuple[list[str], list[str]]] = {}
        for side, found in enumerate((first, second)):
            for piece in found.ignored:
                pieces.setdefault(piece.name, ([], []))[side].append(piece.piece)
        if pieces:
            yield ""
            yield "Ignored"
        for name, (ours, theirs) in pieces.items():
            yield f"  {_plain(name)}"
            if ours == theirs:
                yield f"    {len(ours)} in each, all equal"
                continue
            for sign, side_pieces, colour in (("-", ours, "red"), ("+", theirs, "green")):
                for text in self._some(side_pieces):
                    yield click.style(f"    {sign} {self._cut(text, _SHORT)}", fg=colour)

    def _difference(self, found: Difference) -> Iterator[str]:
        yield f"  {_plain(place(found))}" + (f"  ({found.hint})" if found.hint else "")
        if not found.edits:
            for sign, value, colour in (("-", found.first, "red"), ("+", found.second, "green")):
                if value is not None:
                    yield click.style(f"    {sign} {self._cut(value, _LONG)}".rstrip(), fg=colour)
            return
        for edit in found.edits:
            yield from self._edit(edit)
        if found.more:
            yield "    … and more; --full shows all"

    def _edit(self, edit: Edit) -> Iterator[str]:
        before, after = _plain(edit.before), _plain(edit.after)
        for sign, piece, colour in (("-", edit.first, "red"), ("+", edit.second, "green")):
            said = self._cut(piece, _LONG)
            if self._colour:
                said = click.style(said, fg=colour, bold=True, underline=True)
            elif said:
                said = f"[-{said}-]" if sign == "-" else f"{{+{said}+}}"
            yield click.style(f"    {sign} ", fg=colour) + f"{before}{said}{after}"

    def _uncounted(self, found: Uncounted) -> Iterator[str]:
        yield f"  {_plain(found.what)}" + (f" of part {found.part}" if found.part not in {"", "-"} else "")
        if found.first is None and found.second is None:
            return
        for sign, value in (("-", found.first), ("+", found.second)):
            yield f"    {sign} {'(none)' if value is None else self._cut(value, _SHORT)}".rstrip()

    def _some(self, items: Sequence[_T]) -> Sequence[_T]:
        return items if self._full else items[:_MANY]

    def _cut(self, text: str, limit: int) -> str:
        if self._full or len(text) <= limit:
            return _plain(text)
        return f"{_plain(text[:limit])}… ({len(text):,} characters; --full shows all)"


def _plain(text: str) -> str:
    """In a normalised form NUL is what was left out."""
    return printable(text.replace("\0", "[ignored]"))


def _meaning(rule: Ruled) -> str:
    if rule.reason:
        return f"{rule.action}, because of: {rule.reason}"
    return rule.action if rule.action == "exempt" else f"{rule.action}, window {format_duration(rule.window)}"
