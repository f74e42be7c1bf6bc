"""Rules and ignores that can be used as they are, and still are seldom meant."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from relay.judge.rules.rule import MatchTarget
from relay.settings.effective import InForce, rules
from relay.settings.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from relay.judge.rules.rule import Condition
    from relay.settings.model import Settings
    from relay.settings.tables import IgnoreTable, RuleTable

SHORT_WINDOW = 10
"""Seconds."""

_EVERYTHING = "."
# Written by the server that puts a message into a mailbox, which comes after the relay.
_WRITTEN_LATER = {"return-path": "reverse_path", "delivered-to": "recipient", "x-original-to": "recipient"}
# What holds letters without meaning these: escapes, classes of characters, names of groups.
_NO_LETTERS = re.compile(r"\\p\{\w+\}|\\.|\[[^\]]*\]|\(\?P?<\w+>")
_ANY_TEXTS = (b"Your code is 493 027.", b"Marta: see you on Sunday, 4 p.m.!")


def rule_warnings(settings: Settings, source: str = "") -> Iterator[str]:
    """Give one sentence for each doubt, beginning with the rule or ignore, and where it stands."""
    at = f" ({source})" if source else ""
    yield from _hidden(settings, at)
    for number, rule in enumerate(settings.rules, 1):
        yield from _rule(f'rule {number} "{rule.name}"{at}', rule)
        yield from _ignores(f'rule {number} "{rule.name}", ignore', rule.ignore, at)
    yield from _ignores("ignore", settings.ignore, at)


def _hidden(settings: Settings, at: str) -> Iterator[str]:
    """Look for rules that only get what an earlier one has taken already."""
    in_order = rules(settings)
    hidden: dict[int, list[InForce[RuleTable]]] = {}
    for place, each in enumerate(in_order):
        first = next(
            (number for number, other in enumerate(in_order[:place]) if _covers(other.table, each.table)), None
        )
        if first is not None:
            hidden.setdefault(first, []).append(each)
    for first, several in hidden.items():
        # Nothing in a preset hides another, so the first is the operator's, and its place is its number.
        name = f'rule {first + 1} "{in_order[first].table.name}"{at}'
        if own := [f'"{each.table.name}"' for each in several if not each.preset]:
            yield f"{name} takes {_all_of(own, '')}; write it below, or make it narrower"
        if theirs := [f'"{each.table.name}"' for each in several if each.preset]:
            presets = dict.fromkeys(f"preset {each.preset}" for each in several if each.preset)
            whose = f" of {' and '.join(presets)}"
            yield f"{name} takes {_all_of(theirs, whose)}; make it narrower"


def _all_of(names: Sequence[str], whose: str) -> str:
    if len(names) == 1:
        return f"all that rule {names[0]}{whose} is for, which so never acts"
    return f"all that rules {', '.join(names[:-1])} and {names[-1]}{whose} are for, which so never act"


def _covers(first: RuleTable, second: RuleTable) -> bool:
    """Say whether the first surely matches whatever the second matches."""
    if first.attachment is not None and first.attachment != second.attachment:
        return False
    return all(
        _takes_any(wide) or any(_wider(wide, other) for other in second.conditions()) for wide in first.conditions()
    )


def _takes_any(condition: Condition) -> bool:
    return condition.target is MatchTarget.RECIPIENT and any(each.text == _EVERYTHING for each in condition.patterns)


def _wider(wide: Condition, narrow: Condition) -> bool:
    return wide.key == narrow.key and set(wide.patterns) >= set(narrow.patterns)


def _rule(place: str, rule: RuleTable) -> Iterator[str]:
    if rule.window and rule.window < SHORT_WINDOW:
        yield f"{place}: window is {format_duration(rule.window)}: repeats often come later and will go through"
    for name in rule.header:
        if better := _WRITTEN_LATER.get(name.lower()):
            yield f"{place}: header.{name} is written after the relay by the last mail server; write {better}"
    for key, patterns in (("reverse_path", rule.reverse_path), ("recipient", rule.recipient)):
        for pattern in patterns:
            if doubt := _about_address(key, pattern.text, _NO_LETTERS.sub("", pattern.text)):
                yield f"{place}: {key} = '{pattern.text}': {doubt}"


def _about_address(key: str, pattern: str, letters: str) -> str | None:
    if re.search("[<>]", letters):
        return "addresses of the envelope have no angle brackets here; leave them out"
    if key == "recipient" and "(?i" not in pattern and re.search("[A-Z]", letters):
        return "recipients are in lower case here; write small letters"
    if key == "recipient" and re.search(r"@.*[^\x00-\x7F]", letters):
        return "international domains are in their xn-- form here; write that"
    return None


def _ignores(place: str, tables: Sequence[IgnoreTable], at: str) -> Iterator[str]:
    for number, table in enumerate(tables, 1):
        if table.text and all(table.text.fullmatch(text) for text in _ANY_TEXTS):
            yield (
                f'{place} {number} "{table.label}"{at}: takes whole texts, so that messages which differ in nothing '
                "else are suppressed as repeats; write the pattern of what changes"
            )
