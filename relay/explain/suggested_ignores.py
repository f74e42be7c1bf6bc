"""Suggests ignores under which two messages are equal, from what differs between them. Each set is tried."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from relay.explain.comparison import compare_messages
from relay.settings.tables import IgnoreTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from relay.explain.comparison import Comparison
    from relay.explain.differences import CountedDifference
    from relay.explain.edits import Edit
    from relay.explain.message_file import ExplainedMessage

_MOST_IGNORES = 8
_MOST_ROUNDS = 4
"""Each one finds differences that the ones before hid."""
_EDITS = 20
_LONGEST_CONTEXT = 24
"""Characters before or after a piece that a pattern names."""
_LEAST_CONTEXT = 4
"""Letters. With fewer, a pattern would match in too many places."""
_NEVER = frozenset(("subject", "from", "sender", "reply-to", "to", "cc", "reverse-path", "reverse-path domain"))
"""What people and mail servers act on: no ignore is suggested for these."""
_FIELD = re.compile(r"[A-Za-z0-9-]+")
_PARAMETER = re.compile(r"[?&]([^\s=&;?#\"'<>]{1,60})=([^\s&\"'<>#]*)\Z")
_VALUE_END = re.compile(r"[^\s&\"'<>#]*")
_PROPERTY = re.compile(r"(?:^|\n)([A-Z][A-Z-]{1,40})[;:][^\n]*\Z")
_ATTRIBUTE = "the attribute "
_PART_PARAMETER = "parameter "
_DIGITS_BEFORE, _DIGITS_AFTER = re.compile(r"(?:\d+[:./-])*\d*\Z"), re.compile(r"\d*(?:[:./-]\d+)*")
_WORD_BEFORE, _WORD_AFTER = re.compile(r"[\w-]*\Z"), re.compile(r"[\w-]*")
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Ignores, and the two messages compared under them. Without any, nothing that can be ignored differs."""

    ignores: tuple[IgnoreTable, ...]
    comparison: Comparison


def suggest_ignores(
    analyse: Callable[[Sequence[IgnoreTable]], Sequence[ExplainedMessage]],
) -> Suggestion:
    """Returns the fewest ignores that were found to make two messages equal, or to make them differ less.

    `analyse` returns both messages, analysed with further ignores.
    """
    found: list[IgnoreTable] = []

    def compare(ignores: Sequence[IgnoreTable]) -> Comparison:
        first, second = analyse(ignores)
        return compare_messages(first, second, limit=_EDITS)

    comparison = compare(found)
    for _ in range(_MOST_ROUNDS):
        new = [each for each in dict.fromkeys(_candidates(comparison)) if each not in found]
        if comparison.equal or not new or len(found) + len(new) > _MOST_IGNORES:
            break
        found += new
        comparison = compare(found)
    if comparison.equal:
        for each in tuple(found):
            fewer = [other for other in found if other is not each]
            if compare(fewer).equal:
                found = fewer
    return Suggestion(tuple(found), compare(found))


def _candidates(comparison: Comparison) -> Iterator[IgnoreTable]:
    for difference in comparison.differences:
        for keys in _keys(difference):
            try:
                yield IgnoreTable.model_validate(keys)
            except ValidationError:  # for example a pattern with an invisible character
                continue


def _keys(difference: CountedDifference) -> Iterator[dict[str, Any]]:
    what = difference.what
    if not difference.part:
        if _FIELD.fullmatch(what) and what.lower() not in _NEVER:
            yield {"header": what}
    elif what.startswith(_PART_PARAMETER):
        yield {"part_parameter": what.removeprefix(_PART_PARAMETER).partition(" ")[0]}
    elif difference.kind == "application/pdf":
        yield {"pdf": "metadata"}
    else:
        for edit in difference.edits:
            if found := _keys_of_edit(difference, edit):
                yield found


def _keys_of_edit(difference: CountedDifference, edit: Edit) -> dict[str, Any] | None:
    if parameter := _PARAMETER.search(edit.before):
        rest = _VALUE_END.match(edit.after)
        values = [parameter[2] + piece + (rest[0] if rest else "") for piece in (edit.first, edit.second)]
        return {"parameter": parameter[1], "value": f"{_class_of(values)}*"}
    if difference.kind == "text/calendar" and (name := _PROPERTY.search(edit.before)):
        return {"calendar": name[1]}
    if difference.what.startswith(_ATTRIBUTE):
        name_of_attribute = difference.what.removeprefix(_ATTRIBUTE)
        return {"attribute": name_of_attribute, "value": f"{_class_of(_pieces(edit)[0])}+"}
    if difference.what in {"a comment", "a tag", "a style sheet", "a script", "a link"}:
        return None
    return _text_key(edit)


def _text_key(edit: Edit) -> dict[str, Any] | None:
    pieces, before, after = _pieces(edit)
    lead, tail = _lead(before), ""
    if sum(map(str.isalpha, lead)) < _LEAST_CONTEXT:
        tail = _tail(after)
    if sum(map(str.isalpha, lead + tail)) < _LEAST_CONTEXT:
        return None
    often = "+" if all(pieces) else "*"
    return {"text": f"{_escaped(lead)}(?P<ignored>{_class_of(pieces)}{often}){_escaped(tail)}"}


def _pieces(edit: Edit) -> tuple[tuple[str, str], str, str]:
    """Returns both pieces, grown to whole words or times, and what stands before and after them."""
    is_number = (edit.first + edit.second).isdigit()
    before, after = (_DIGITS_BEFORE, _DIGITS_AFTER) if is_number else (_WORD_BEFORE, _WORD_AFTER)
    start, end = len(edit.before) - len(_found(before, edit.before)), len(_found(after, edit.after))
    first, second = (edit.before[start:] + piece + edit.after[:end] for piece in (edit.first, edit.second))
    return (first, second), edit.before[:start], edit.after[end:]


def _found(pattern: re.Pattern[str], text: str) -> str:
    """Returns the first match, or nothing."""
    match = pattern.search(text)
    return match[0] if match else ""


def _lead(before: str) -> str:
    """Returns the last words before a piece, in the same text and line."""
    text = re.split(r"[<>\n\0]", before)[-1][-_LONGEST_CONTEXT:]
    return text if len(text) < _LONGEST_CONTEXT else text.partition(" ")[2]


def _tail(after: str) -> str:
    text = re.split(r"[<>\n\0]", after)[0][:_LONGEST_CONTEXT]
    return text if len(text) < _LONGEST_CONTEXT else text.rpartition(" ")[0]


def _class_of(pieces: Sequence[str]) -> str:
    """Returns the characters of some pieces as a class: digits and letters as ranges, others as they are."""
    letters = set("".join(pieces))
    ranges = [("0-9", str.isdecimal), ("a-z", str.islower), ("A-Z", str.isupper)]
    ascii_letters = {each for each in letters if each.isascii() and each.isalnum()}
    found = "".join(text for text, holds in ranges if any(map(holds, ascii_letters)))
    others = sorted(letters - ascii_letters - {"-"})
    found += "".join(f"\\{each}" if each in "\\]^" else each for each in others) + ("-" if "-" in letters else "")
    return f"[{found or '0-9'}]"


def _escaped(text: str) -> str:
    """Returns a pattern for a text. White space matches any: texts and HTML fold it differently."""
    return re.sub(r"\s+", r"\\s+", _SPECIAL.sub(r"\\\g<0>", text))
