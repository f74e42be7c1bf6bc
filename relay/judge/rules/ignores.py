"""An operator's ignores, compiled once for all messages.

They find what does not count in one value, such as a URL, a text node or a comment. `relay.judge.html.strip` finds
those values in HTML. In doubt nothing is found, so the value counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from relay.judge.mime.headers import usual_spelling
from relay.judge.rules.calendar_ignores import CalendarIgnores
from relay.judge.rules.ignore import (
    Attribute,
    Calendar,
    Comment,
    ContentIds,
    Header,
    Parameter,
    PartParameter,
    Pdf,
    Query,
    Text,
    UrlKind,
)
from relay.judge.rules.pattern import is_local
from relay.judge.rules.pdf_metadata import find_metadata
from relay.judge.rules.url_ignores import IgnoredSpan, UrlIgnores, find_urls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from relay.judge.rules.ignore import Ignore
    from relay.judge.rules.pattern import Pattern
    from relay.judge.rules.url_ignores import ScanBudget


class Ignored(NamedTuple):
    """A piece of a message that did not count, and the name of the ignore that excluded it."""

    name: str
    piece: bytes


class Ignores:
    """A set of ignores."""

    def __init__(self, ignore: Sequence[Ignore] = ()) -> None:
        urls = [each for each in ignore if isinstance(each, Parameter | Query)]
        self.images = UrlIgnores([each for each in urls if each.url is not UrlKind.LINK])
        """For the `src` of an `img`."""
        self.links = UrlIgnores([each for each in urls if each.url is not UrlKind.IMAGE])
        """For the `href` of an `a` or `area`."""
        self.bare = UrlIgnores([each for each in urls if each.url is UrlKind.ANY])
        """For URLs in a text."""
        self._texts = [each for each in ignore if isinstance(each, Text)]
        self._comments = [each for each in ignore if isinstance(each, Comment)]
        self.attributes: dict[bytes, list[Attribute]] = {}
        """For values of attributes, by the attribute's name in lower case."""
        for each in ignore:
            if isinstance(each, Attribute):
                self.attributes.setdefault(each.attribute.lower().encode(), []).append(each)
        self.headers = {usual_spelling(each.header): each.name for each in ignore if isinstance(each, Header)}
        """The names of the ignores for fields of the header section, by the field's usual spelling."""
        self._calendar = CalendarIgnores([each for each in ignore if isinstance(each, Calendar)])
        self._pdf = next((each for each in ignore if isinstance(each, Pdf)), None)
        self.content_ids = next((each.name for each in ignore if isinstance(each, ContentIds)), "")
        """The name of the ignore for Content-IDs in conditional comments, or empty."""
        self.part_parameters = [each for each in ignore if isinstance(each, PartParameter)]
        self.looks_at_text = bool(self._texts or self.bare)
        self.looks_at_comments = bool(self._comments)

    def last_place(self, html: bytes) -> int:
        """Returns the offset of the last tag or text that can contain something to ignore, or -1.

        The offset may be too large, never too small. Much cheaper than a walk over the tags.
        """
        last = self.links.last_place(html, self.images.last_place(html))
        if self._comments:
            last = max(last, html.rfind(b"<!--"))
        if self.attributes:
            lower = html.lower()
            last = max(last, *(lower.rfind(name) for name in self.attributes))
        if any(_may_match(each.text, html) for each in self._texts):
            last = len(html)
        return last

    def in_text(self, text: bytes, budget: ScanBudget, *, html: bool) -> Iterator[IgnoredSpan]:
        """Yields what to ignore in a plain text, or with `html` in the source of a text node."""
        for each in self._texts:
            yield from _matches(each.name, each.text, text, budget)
        if self.bare:
            for start, end in find_urls(text):
                for found in self.bare.find(text[start:end], budget, html=html):
                    yield IgnoredSpan(start + found.start, start + found.end, found.name)

    def in_octets(self, kind: str, octets: bytes, budget: ScanBudget) -> Iterator[IgnoredSpan]:
        """Yields what to ignore in the decoded octets or the text of a leaf of this media type."""
        if kind == "text/calendar":
            yield from self._calendar.find(octets, budget)
        elif kind == "application/pdf" and self._pdf and budget.spend(len(octets)):
            for start, end in find_metadata(octets):
                yield IgnoredSpan(start, end, self._pdf.name)

    def of_part_parameter(self, name: str, value: bytes, budget: ScanBudget) -> str:
        """Returns the name of the ignore for a parameter of a part with this decoded value, or an empty string."""
        for each in self.part_parameters:
            if each.part_parameter == name and (
                each.value is None or (budget.spend(len(value)) and each.value.fullmatch(value))
            ):
                return each.name
        return ""

    def in_attribute(self, name: bytes, value: bytes, budget: ScanBudget) -> Iterator[IgnoredSpan]:
        """Yields what to ignore in the value of an attribute that `attributes` names."""
        for each in self.attributes.get(name, ()):
            yield from _matches(each.name, each.value, value, budget)

    def in_comment(self, inside: bytes, budget: ScanBudget) -> Iterator[IgnoredSpan]:
        """Yields what to ignore between `<!--` and `-->`."""
        for each in self._comments:
            if inside and budget.spend(len(inside)) and each.comment.search(inside):
                yield IgnoredSpan(0, len(inside), each.name)
                return


def _may_match(pattern: Pattern, html: bytes) -> bool:
    return not is_local(pattern.text) or pattern.search(html)


def _matches(name: str, pattern: Pattern, text: bytes, budget: ScanBudget) -> Iterator[IgnoredSpan]:
    """Yields the matches until the budget is spent: each one may cost a scan of the rest of the text."""
    if not budget.spend(len(text)):
        return
    for start, end in pattern.spans(text):
        yield IgnoredSpan(start, end, name)
        if not budget.spend(len(text) - end):
            return
