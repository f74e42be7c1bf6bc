"""What does not count, made ready for use: an operator's ignores, compiled once for all messages.

Here is what is found in one value (a URL, a text node, a comment …); `core.html_noise` knows where in HTML such values
stand. In doubt nothing is found, and then it counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from relay.judge.rules.ignore import Attribute, Comment, Parameter, Query, Text, UrlKind
from relay.judge.rules.pattern_text import is_local
from relay.judge.rules.url_ignores import IgnoredSpan, UrlIgnores, find_urls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from relay.judge.rules.ignore import Ignore
    from relay.judge.rules.pattern import Pattern
    from relay.judge.rules.url_ignores import ScanBudget


class Ignored(NamedTuple):
    """A piece that did not count: which ignore says so, and the piece."""

    name: str
    piece: bytes


class Ignores:
    """A set of ignores."""

    def __init__(self, ignore: Sequence[Ignore] = ()) -> None:
        self.ignore = tuple(ignore)
        urls = [each for each in self.ignore if isinstance(each, Parameter | Query)]
        self.images = UrlIgnores([each for each in urls if each.url is not UrlKind.LINK])
        """In the `src` of an `img`."""
        self.links = UrlIgnores([each for each in urls if each.url is not UrlKind.IMAGE])
        """In the `href` of an `a` or `area`."""
        self.bare = UrlIgnores([each for each in urls if each.url is UrlKind.ANY])
        """In a text."""
        self._texts = [each for each in self.ignore if isinstance(each, Text)]
        self._comments = [each for each in self.ignore if isinstance(each, Comment)]
        self._attributes: dict[bytes, list[Attribute]] = {}
        for each in self.ignore:
            if isinstance(each, Attribute):
                self._attributes.setdefault(each.attribute.lower().encode(), []).append(each)
        self.attributes = tuple(self._attributes)
        """The names of attributes that hold something else than URLs to look at, in lower case."""
        self.looks_at_text = bool(self._texts or self.bare)
        self.looks_at_comments = bool(self._comments)

    def last_place(self, html: bytes) -> int:
        """Give an offset in HTML behind which no tag or text begins in which there is anything, or -1. Cheap."""
        last = self.links.last_place(html, self.images.last_place(html))
        if self._comments:
            last = max(last, html.rfind(b"<!--"))
        if self.attributes:
            lower = html.lower()
            last = max(last, *(lower.rfind(name) for name in self.attributes))
        if any(_may_match(each.text, html) for each in self._texts):
            last = len(html)
        return last

    def in_text(self, text: bytes, work: ScanBudget, *, html: bool) -> Iterator[IgnoredSpan]:
        """Look at a plain text, or at a text node of HTML as it stands in the source."""
        for each in self._texts:
            yield from _matches(each.name, each.text, text, work)
        if self.bare:
            for start, end in find_urls(text):
                for found in self.bare.find(text[start:end], work, html=html):
                    yield IgnoredSpan(start + found.start, start + found.end, found.name)

    def in_attribute(self, name: bytes, value: bytes, work: ScanBudget) -> Iterator[IgnoredSpan]:
        """Look at the value of an attribute whose name is one of `attributes`."""
        for each in self._attributes.get(name, ()):
            yield from _matches(each.name, each.value, value, work)

    def in_comment(self, inside: bytes, work: ScanBudget) -> Iterator[IgnoredSpan]:
        """Look at what stands between `<!--` and `-->`."""
        for each in self._comments:
            if inside and work.spend(len(inside)) and each.comment.search(inside):
                yield IgnoredSpan(0, len(inside), each.name)
                return


def _may_match(pattern: Pattern, html: bytes) -> bool:
    return not is_local(pattern.text) or pattern.search(html)


def _matches(name: str, pattern: Pattern, text: bytes, work: ScanBudget) -> Iterator[IgnoredSpan]:
    """Each match may cost a look at all that follows, so that many of them in a long text are too much work."""
    if not work.spend(len(text)):
        return
    for start, end in pattern.spans(text):
        yield IgnoredSpan(start, end, name)
        if not work.spend(len(text) - end):
            return
