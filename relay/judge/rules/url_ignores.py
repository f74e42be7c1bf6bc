"""What does not count in a URL. The rest of it counts, the name of a parameter included."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from relay.judge.rules.ignore import Parameter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from relay.judge.rules.ignore import Query
    from relay.judge.rules.pattern import Pattern

_LEAST_WORK = 4 << 20
_WORK_BY_OCTET = 64
_WORK_OF_A_STEP = 1 << 10
_CANDIDATES = 64
# With a scheme that has no query of parameters (`data:`, `javascript:`), or one that is not certain, nothing is found.
_WITH_QUERY = re.compile(rb"(?:(?:https?:)?//[^?]*|[^:?]*)\?", re.IGNORECASE)
# Servers differ about `;`, and what a second `?` or white space means is anybody's guess.
_UNCLEAR = re.compile(rb"[;?\s]")
_END_OF_QUERY = re.compile(rb"[\"'\s<>#]")
_BARE = re.compile(rb"https?://[^\s\"'<>]+")
# A URL in a text ends before the punctuation of the sentence.
_PUNCTUATION = b".,;:!?)]}*_~|"


class IgnoredSpan(NamedTuple):
    """A piece of a value: the offsets of its begin and end, and the ignore that says that it does not count."""

    start: int
    end: int
    name: str


class ScanBudget:
    """What may still be spent on the texts of one message, in octets that patterns look at: a message is the same at
    every time and place, so nobody's clock decides what counts. A small one, which is judged between the steps of
    others, has some milliseconds.
    """

    def __init__(self, octets: int = 0) -> None:
        """Give what may be spent on texts of so many octets."""
        self._left = max(_LEAST_WORK, octets * _WORK_BY_OCTET)

    def spend(self, octets: int = 0) -> bool:
        """Take one step off, or a look of a pattern at so many octets; say whether that was still there."""
        self._left -= octets + _WORK_OF_A_STEP
        return self._left >= 0


class _Named:
    """The value of a parameter, where a query has it once and it is clear where it ends."""

    def __init__(self, ignore: Parameter) -> None:
        self.ignore = ignore
        name = re.escape(ignore.parameter.encode())
        self.hint = ignore.parameter.encode() + b"="
        self._in_html = re.compile(rb"(?:\A|&(?:amp;)?)%b(?![^=&])(?:=([^&]*))?" % name)
        self._in_text = re.compile(rb"(?:\A|&)%b(?![^=&])(?:=([^&]*))?" % name)

    def span(self, query: bytes, work: ScanBudget, *, html: bool) -> tuple[int, int] | None:
        found = list((self._in_html if html else self._in_text).finditer(query))
        if len(found) != 1 or not found[0][1] or _UNCLEAR.search(found[0][1]):
            return None
        pattern = self.ignore.value
        if pattern and not (work.spend(len(found[0][1])) and pattern.fullmatch(found[0][1])):
            return None
        return found[0].span(1)


class UrlIgnores:
    """The ignores for URLs of one kind."""

    def __init__(self, ignores: Sequence[Parameter | Query]) -> None:
        self._named = [_Named(each) for each in ignores if isinstance(each, Parameter)]
        self._queries = [each for each in ignores if not isinstance(each, Parameter)]

    def __bool__(self) -> bool:
        return bool(self._named or self._queries)

    def last_place(self, source: bytes, last: int = -1) -> int:
        """Give an offset behind which no URL has anything to find; at least `last`."""
        for named in self._named:
            last = max(last, source.rfind(named.hint, last + 1))
        for each in self._queries:
            last = max(last, _last_query(each.query, source, last + 1))
        return last

    def find(self, url: bytes, work: ScanBudget, *, html: bool) -> list[IgnoredSpan]:
        """Look at a URL; in HTML `&` may be written as `&amp;`. No other character reference is resolved."""
        if b"#" in url or not (work.spend(len(url)) and _WITH_QUERY.match(url)):
            return []
        path, _, query = url.partition(b"?")
        at = len(path) + 1
        found = [
            IgnoredSpan(at, len(url), each.name)
            for each in self._queries
            if query and work.spend(len(query)) and each.query.fullmatch(query) and _holds(each.path, path, work)
        ]
        for named in self._named:
            if named.hint in query and _holds(named.ignore.path, path, work):
                span = named.span(query, work, html=html)
                if span:
                    found.append(IgnoredSpan(at + span[0], at + span[1], named.ignore.name))
        return found


def find_urls(text: bytes) -> Iterator[tuple[int, int]]:
    """Give begin and end of the URLs in a text that could have parameters."""
    if b"?" in text:
        for match in _BARE.finditer(text):
            yield match.start(), match.start() + len(match[0].rstrip(_PUNCTUATION))


def _holds(pattern: Pattern | None, path: bytes, work: ScanBudget) -> bool:
    return pattern is None or (work.spend(len(path)) and pattern.search(path))


def _last_query(pattern: Pattern, source: bytes, start: int) -> int:
    """Give where the last query begins that the pattern matches; after many that it does not match, the next."""
    at = end = len(source)
    for _ in range(_CANDIDATES):
        before, at = at, source.rfind(b"?", start, at)
        if at < 0:
            return -1
        found = _END_OF_QUERY.search(source, at + 1, before)
        end = found.start() if found else end
        query = source[at + 1 : end]
        if pattern.fullmatch(query) or pattern.fullmatch(query.rstrip(_PUNCTUATION)):
            return at
    return at
