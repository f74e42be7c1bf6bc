"""Finds what does not count in a URL. Everything else in it counts, including the names of parameters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from relay.judge.rules.ignore import Parameter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from relay.judge.rules.ignore import Query
    from relay.judge.rules.pattern import Pattern

_SMALLEST_BUDGET = 4 << 20
"""Octets. A small message is judged in the event loop; this budget takes some milliseconds."""
_BUDGET_PER_OCTET = 64
_STEP_COST = 1 << 10
_QUERIES_TRIED = 64
# Nothing is found in a URL whose scheme has no query of parameters (`data:`, `javascript:`) or is uncertain.
_WITH_QUERY = re.compile(rb"(?:(?:https?:)?//[^?]*|[^:?]*)\?", re.IGNORECASE)
# Servers differ about `;`. The meaning of a second `?` or of white space is uncertain.
_UNCLEAR = re.compile(rb"[;?\s]")
_END_OF_QUERY = re.compile(rb"[\"'\s<>#]")
_BARE = re.compile(rb"https?://[^\s\"'<>]+")
# A URL in a text ends before the punctuation of the sentence.
_PUNCTUATION = b".,;:!?)]}*_~|"


class IgnoredSpan(NamedTuple):
    """A piece of a value that does not count: its start and end offsets, and the name of the ignore."""

    start: int
    end: int
    name: str


class ScanBudget:
    """The octets that patterns may still look at in one message.

    Counts octets, not time, so that a message has the same fingerprint on every host and under every load.
    """

    def __init__(self, octets: int = 0) -> None:
        """`octets` is the total length of the message's texts."""
        self._left = max(_SMALLEST_BUDGET, octets * _BUDGET_PER_OCTET)

    def spend(self, octets: int = 0) -> bool:
        """Deducts one step and the octets that a pattern looks at. Returns whether the budget covered them."""
        self._left -= octets + _STEP_COST
        return self._left >= 0


class _ParameterFinder:
    """Finds the value of a parameter, if a query has the parameter once and the end of the value is certain."""

    def __init__(self, ignore: Parameter) -> None:
        self.ignore = ignore
        name = re.escape(ignore.parameter.encode())
        self.hint = ignore.parameter.encode() + b"="
        """Part of every query in which there is something to find."""
        self._in_html = re.compile(rb"(?:\A|&(?:amp;)?)%b(?![^=&])(?:=([^&]*))?" % name)
        self._in_text = re.compile(rb"(?:\A|&)%b(?![^=&])(?:=([^&]*))?" % name)

    def span(self, query: bytes, budget: ScanBudget, *, html: bool) -> tuple[int, int] | None:
        found = list((self._in_html if html else self._in_text).finditer(query))
        if len(found) != 1 or not found[0][1] or _UNCLEAR.search(found[0][1]):
            return None
        pattern = self.ignore.value
        if pattern and not (budget.spend(len(found[0][1])) and pattern.fullmatch(found[0][1])):
            return None
        return found[0].span(1)


class UrlIgnores:
    """The ignores for URLs in one kind of place."""

    def __init__(self, ignores: Sequence[Parameter | Query]) -> None:
        self._parameters = [_ParameterFinder(each) for each in ignores if isinstance(each, Parameter)]
        self._queries = [each for each in ignores if not isinstance(each, Parameter)]

    def __bool__(self) -> bool:
        return bool(self._parameters or self._queries)

    def last_place(self, source: bytes, last: int = -1) -> int:
        """Returns an offset after which no URL contains anything to ignore; at least `last`."""
        for finder in self._parameters:
            last = max(last, source.rfind(finder.hint, last + 1))
        for each in self._queries:
            last = max(last, _last_query(each.query, source, last + 1))
        return last

    def find(self, url: bytes, budget: ScanBudget, *, html: bool) -> list[IgnoredSpan]:
        """Returns what to ignore in a URL. With `html`, `&` may be written `&amp;`; no other reference is resolved."""
        if b"#" in url or not (budget.spend(len(url)) and _WITH_QUERY.match(url)):
            return []
        path, _, query = url.partition(b"?")
        at = len(path) + 1
        found = [
            IgnoredSpan(at, len(url), each.name)
            for each in self._queries
            if query and budget.spend(len(query)) and each.query.fullmatch(query) and _found(each.path, path, budget)
        ]
        for finder in self._parameters:
            if finder.hint in query and _found(finder.ignore.path, path, budget):
                span = finder.span(query, budget, html=html)
                if span:
                    found.append(IgnoredSpan(at + span[0], at + span[1], finder.ignore.name))
        return found


def find_urls(text: bytes) -> Iterator[tuple[int, int]]:
    """Yields start and end of the URLs in a text that can have parameters."""
    if b"?" in text:
        for match in _BARE.finditer(text):
            yield match.start(), match.start() + len(match[0].rstrip(_PUNCTUATION))


def _found(pattern: Pattern | None, path: bytes, budget: ScanBudget) -> bool:
    return pattern is None or (budget.spend(len(path)) and pattern.search(path))


def _last_query(pattern: Pattern, source: bytes, start: int) -> int:
    """Returns the offset of the last query that the pattern matches, or -1.

    After `_QUERIES_TRIED` queries without a match, returns the offset of the last one tried.
    """
    at = end = len(source)
    for _ in range(_QUERIES_TRIED):
        before, at = at, source.rfind(b"?", start, at)
        if at < 0:
            return -1
        found = _END_OF_QUERY.search(source, at + 1, before)
        end = found.start() if found else end
        query = source[at + 1 : end]
        bare = query.rstrip(_PUNCTUATION)
        if pattern.fullmatch(query) or (len(bare) < len(query) and pattern.fullmatch(bare)):
            return at
    return at
