"""What an operator says does not count, as data. Each applies to one named place, never to the source as it stands.

`name` is what `relay explain` calls it. Patterns are searched for, except where it says that they match the whole.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from relay.judge.rules.pattern import Pattern


class UrlKind(enum.StrEnum):
    """Where in HTML a URL stands."""

    IMAGE = "image"
    """`src` of an `img`."""
    LINK = "link"
    """`href` of an `a` or `area`."""
    ANY = "any"
    """Either of these, and an `http:` or `https:` URL that stands in a text."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter of a URL: its value does not count, its name and the rest of the URL do.

    In doubt it counts: where the parameter stands twice, the URL has a fragment, or the value holds `;` or `?`.
    """

    name: str
    parameter: str
    url: UrlKind = UrlKind.ANY
    value: Pattern | None = None
    """Only values that match this wholly; without it all."""
    path: Pattern | None = None
    """Only in URLs whose part before the `?` holds this."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query that is no list of parameters, such as the bare number in `x.jpg?1624465305`."""

    name: str
    query: Pattern
    """The whole of what stands behind the `?` matches this."""
    url: UrlKind = UrlKind.ANY
    path: Pattern | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """What matches in a text node of HTML, or in a plain text; white space is folded to single spaces.

    A node is what stands between two tags, as it is written: character references are not resolved.
    """

    name: str
    text: Pattern


@dataclass(frozen=True, slots=True)
class Attribute:
    """What matches in the value of an attribute of an HTML tag."""

    name: str
    attribute: str
    """In lower case."""
    value: Pattern


@dataclass(frozen=True, slots=True)
class Comment:
    """An HTML comment whose inside holds the pattern: all of its inside."""

    name: str
    comment: Pattern


Ignore: TypeAlias = Parameter | Query | Text | Attribute | Comment
