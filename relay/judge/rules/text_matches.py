"""Finds the rules whose conditions on links and images a message's texts may meet, with one search for all patterns."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

import re2

from relay.judge.rules.links import find_images, find_links, resolve_references
from relay.judge.rules.pattern import is_local
from relay.judge.rules.rule import MatchTarget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.judge.rules.rule import Condition, Rule

IN_TEXTS = frozenset((MatchTarget.LINK, MatchTarget.IMAGE))
"""The targets whose values are pieces of the texts."""

_MOST_PROGRAM = 20_000
"""Instructions of all patterns that are searched for at once. RE2 finds nothing if `_MEMORY` is too small."""
_MEMORY = 64 << 20
_CACHED_SELECTIONS = 256
_REMOVED_FROM_LINKS = b"\t\r\n"
# Numbers are found in bytes several times as fast as single bytes are (CPython 3.11).
_AMPERSAND, _TAB, _CARRIAGE_RETURN, _LINE_FEED = b"&\t\r\n"
# The usual form of links and images: a value in quotes without anything that browsers resolve or remove.
_PLAIN_VALUE = rb"=([\"'])([^\"'<>&\t\r\n]++)\1"
_PLAIN_VALUES = {
    MatchTarget.LINK: re.compile(rb"href%b" % _PLAIN_VALUE),
    MatchTarget.IMAGE: re.compile(rb"<img (?:[a-z-]++=(?:\"[^\"<>]*+\"|'[^'<>]*+') )*?src%b" % _PLAIN_VALUE),
}


class TextMatches:
    """What the texts of one message meet. `rules` are those whose conditions on links and images may hold, in order."""

    def __init__(self, texts: Sequence[bytes], rules: Sequence[Rule], text_rules: TextRules) -> None:
        self.rules = rules
        self._texts = texts
        self._text_rules = text_rules
        self._met: dict[int, bool] = {}

    def meets(self, condition: Condition) -> bool:
        """Returns whether a condition on links or images holds."""
        met = self._met.get(id(condition))
        if met is None:
            met = self._met[id(condition)] = self._meets(condition)
        return met

    def _meets(self, condition: Condition) -> bool:
        # In a notification of AVideo the list of all links and images takes several times as long as this.
        find = _PLAIN_VALUES[condition.target].findall
        lines = b"\n".join([value for text in self._texts for _, value in find(text)])
        return self._text_rules.meets_in_line(condition, lines) or condition.holds(self.values(condition.target))

    def values(self, target: MatchTarget) -> list[bytes]:
        """Returns all links or all images, without repetitions."""
        find = find_links if target is MatchTarget.LINK else find_images
        return list(dict.fromkeys(value for text in self._texts for value in find(text)))


class TextRules:
    """The rules, and their patterns for links and images, compiled for one search."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        # For each rule the numbers of its patterns, condition by condition; None for a pattern that is not in the set.
        self._rules: list[tuple[Rule, list[set[int | None]]]] = []
        self._numbers: dict[str, int | None] = {}
        self._set = _search_set(never_nl=False)
        self._set_in_line = _search_set(never_nl=True)
        """The same patterns with the same numbers. Their matches hold no line feed."""
        self._program = 0
        for rule in rules:
            conditions = [condition for condition in rule.conditions if condition.target in IN_TEXTS]
            numbers = [{self._number(pattern.text) for pattern in each.patterns} for each in conditions]
            self._rules.append((rule, numbers))
        self._set.Compile()
        self._set_in_line.Compile()
        self._is_empty = all(number is None for number in self._numbers.values())
        self._select = lru_cache(_CACHED_SELECTIONS)(self._rules_with)

    def _number(self, text: str) -> int | None:
        if text not in self._numbers:
            self._program += re2.compile(text.encode()).programsize
            local = is_local(text) and self._program <= _MOST_PROGRAM
            self._numbers[text] = self._set.Add(text.encode()) if local else None
            if local:
                self._set_in_line.Add(text.encode())
        return self._numbers[text]

    def meets_in_line(self, condition: Condition, lines: bytes) -> bool:
        """Returns whether a pattern certainly matches a piece of one of the lines."""
        found = (lines and not self._is_empty and self._set_in_line.Match(lines)) or ()
        return any(self._numbers[pattern.text] in found for pattern in condition.patterns)

    def matches(self, texts: Sequence[bytes]) -> TextMatches:
        """Returns what the decoded texts of a message meet."""
        found: Sequence[int] = () if self._is_empty else self._set.Match(_searched(texts)) or ()
        return TextMatches(texts, self._select(frozenset(found)), self)

    def _rules_with(self, found: frozenset[int]) -> list[Rule]:
        possible = {*found, None}
        return [rule for rule, conditions in self._rules if all(not possible.isdisjoint(each) for each in conditions)]


def _search_set(*, never_nl: bool) -> re2.Set:
    options = re2.Options()
    options.max_mem = _MEMORY
    options.never_nl = never_nl
    return re2.Set.SearchSet(options)


def _searched(texts: Sequence[bytes]) -> bytes:
    """Returns a text of which each link and each image is a piece."""
    pieces = []
    for text in texts:
        resolved = resolve_references(text) if _AMPERSAND in text else text
        pieces.append(resolved)
        if _LINE_FEED in resolved or _TAB in resolved or _CARRIAGE_RETURN in resolved:
            pieces.append(resolved.translate(None, _REMOVED_FROM_LINKS))
    return b"\n".join(pieces)
