"""Warnings about valid rules and ignores that are probably not intended."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from relay.judge.rules.rule import MatchTarget
from relay.settings.effective import Effective, rules
from relay.settings.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from relay.judge.rules.rule import Condition
    from relay.settings.model import Settings
    from relay.settings.tables import IgnoreTable, RuleTable

SHORT_WINDOW = 10
"""Seconds."""

_EVERYTHING = "."
# The server that delivers to the mailbox adds these fields, after the relay.
_ADDED_LATER = {"return-path": "reverse_path", "delivered-to": "recipient", "x-original-to": "recipient"}
# Parts of a pattern whose letters are not literal: escapes, character classes, group names.
_NOT_LITERAL = re.compile(r"\\p\{\w+\}|\\.|\[[^\]]*\]|\(\?P?<\w+>")
_SAMPLE_TEXTS = (b"Your code is 493 027.", b"Marta: see you on Sunday, 4 p.m.!")


def rule_warnings(settings: Settings, source: str = "") -> Iterator[str]:
    """Yields one sentence for each warning. It begins with the rule or ignore and its source."""
    at = f" ({source})" if source else ""
    yield from _hidden(settings, at)
    for number, rule in enumerate(settings.rules, 1):
        yield from _rule(f'rule {number} "{rule.name}"{at}', rule)
        yield from _ignores(f'rule {number} "{rule.name}", ignore', rule.ignore, at)
    yield from _ignores("ignore", settings.ignore, at)


def _hidden(settings: Settings, at: str) -> Iterator[str]:
    """Yields warnings about rules that an earlier rule hides completely."""
    in_order = rules(settings)
    hidden: dict[int, list[Effective[RuleTable]]] = {}
    for place, each in enumerate(in_order):
        first = next(
            (number for number, other in enumerate(in_order[:place]) if _covers(other.table, each.table)), None
        )
        if first is not None:
            hidden.setdefault(first, []).append(each)
    for first, several in hidden.items():
        # No preset rule hides another, so the first rule is the operator's, and its position is its number.
        name = f'rule {first + 1} "{in_order[first].table.name}"{at}'
        if own := [f'"{each.table.name}"' for each in several if not each.preset]:
            yield f"{name} hides {_all_of(own, '')}; move it below, or make it narrower"
        if theirs := [f'"{each.table.name}"' for each in several if each.preset]:
            presets = dict.fromkeys(f"preset {each.preset}" for each in several if each.preset)
            whose = f" of {' and '.join(presets)}"
            yield f"{name} hides {_all_of(theirs, whose)}; make it narrower"


def _all_of(names: Sequence[str], whose: str) -> str:
    if len(names) == 1:
        return f"rule {names[0]}{whose}, which never matches"
    return f"rules {', '.join(names[:-1])} and {names[-1]}{whose}, which never match"


def _covers(first: RuleTable, second: RuleTable) -> bool:
    """Returns whether the first rule certainly matches every message that the second matches."""
    if first.attachment is not None and first.attachment != second.attachment:
        return False
    if first.max_recipients is not None and first.max_recipients != second.max_recipients:
        return False
    return all(
        _matches_all(wide) or any(_wider(wide, other) for other in second.conditions()) for wide in first.conditions()
    )


def _matches_all(condition: Condition) -> bool:
    return condition.target is MatchTarget.RECIPIENT and any(each.text == _EVERYTHING for each in condition.patterns)


def _wider(wide: Condition, narrow: Condition) -> bool:
    return wide.key == narrow.key and set(wide.patterns) >= set(narrow.patterns)


def _rule(place: str, rule: RuleTable) -> Iterator[str]:
    if rule.window and rule.window < SHORT_WINDOW:
        yield f"{place}: window is {format_duration(rule.window)}: repeats often come later and will be forwarded"
    for name in rule.header:
        if better := _ADDED_LATER.get(name.lower()):
            yield f"{place}: header.{name} is added after the relay by the final mail server; use {better}"
    for key, patterns in (("reverse_path", rule.reverse_path), ("recipient", rule.recipient)):
        for pattern in patterns:
            if warning := _address_warning(key, pattern.text, _NOT_LITERAL.sub("", pattern.text)):
                yield f"{place}: {key} = '{pattern.text}': {warning}"


def _address_warning(key: str, pattern: str, letters: str) -> str | None:
    if re.search("[<>]", letters):
        return "envelope addresses are matched without angle brackets; leave them out"
    if key == "recipient" and "(?i" not in pattern and re.search("[A-Z]", letters):
        return "recipients are matched in lower case; use lower-case letters"
    if key == "recipient" and re.search(r"@.*[^\x00-\x7F]", letters):
        return "international domains are matched in their xn-- form; use that form"
    return None


def _ignores(place: str, tables: Sequence[IgnoreTable], at: str) -> Iterator[str]:
    for number, table in enumerate(tables, 1):
        if table.text and all(table.text.fullmatch(text) for text in _SAMPLE_TEXTS):
            yield (
                f'{place} {number} "{table.label}"{at}: matches whole texts, so messages that differ only in '
                "text are suppressed as repeats; match only the part that changes"
            )
