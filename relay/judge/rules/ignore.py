"""What an operator excludes from the fingerprint, as data. Each class applies to one kind of value in a message.

A class has the fields of its `[[ignore]]` table, under the same names.

Each `name` identifies the ignore in the output of `relay explain`. A pattern may match any piece of the value, unless
its description says that it must match the whole value.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import TypeAlias

from relay.judge.rules.pattern import Pattern


class UrlKind(enum.StrEnum):
    """The places of a URL to which an ignore applies."""

    IMAGE = "image"
    """`src` of an `img`."""
    LINK = "link"
    """`href` of an `a` or `area`."""
    ANY = "any"
    """Both, and `http:` and `https:` URLs in a text."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter of a URL. Its value does not count; its name and the rest of the URL do.

    The value counts in doubtful cases: if the parameter occurs twice, if the URL has a fragment, or if the value
    contains `;` or `?`.
    """

    name: str
    parameter: str
    url: UrlKind = UrlKind.ANY
    value: Pattern | None = None
    """Must match the whole value. None stands for any value."""
    path: Pattern | None = None
    """Must match in the part of the URL before the `?`."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query that is not a list of parameters, such as the bare number in `x.jpg?1624465305`."""

    name: str
    query: Pattern
    """Must match everything after the `?`."""
    url: UrlKind = UrlKind.ANY
    path: Pattern | None = None
    """Must match in the part of the URL before the `?`."""


@dataclass(frozen=True, slots=True)
class Text:
    """A pattern for text nodes of HTML, in which white space is folded, and for the texts of all other `text/` types.

    A text node is the source between two tags; character references are not resolved.
    """

    name: str
    text: Pattern


@dataclass(frozen=True, slots=True)
class Attribute:
    """A pattern for the value of an attribute of an HTML tag."""

    name: str
    attribute: str
    """In lower case."""
    value: Pattern


@dataclass(frozen=True, slots=True)
class Comment:
    """An HTML comment. If the pattern matches in it, the whole comment does not count."""

    name: str
    comment: Pattern


@dataclass(frozen=True, slots=True)
class Header:
    """A field of the message's header section. Neither its value nor its presence counts."""

    name: str
    header: str
    """In lower case."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """A property of iCalendar (RFC 5545), such as `DTSTAMP`. Its value does not count; its parameters do."""

    name: str
    calendar: str


@dataclass(frozen=True, slots=True)
class Pdf:
    """The dates of a PDF's Info dictionary and the `ID` of its trailer."""

    name: str
    pdf: str = "metadata"


@dataclass(frozen=True, slots=True)
class PartParameter:
    """A parameter of a part's Content-Type or Content-Disposition. Its value does not count; its presence does."""

    name: str
    part_parameter: str
    """In lower case."""
    value: Pattern | None = None
    """Must match the whole decoded value. None stands for any value."""


@dataclass(frozen=True, slots=True)
class ContentIds:
    """References by Content-ID in the conditional comments of HTML: the part that they name counts in their place."""

    name: str
    content_id: str = "comment"


Ignore: TypeAlias = (
    Parameter | Query | Text | Attribute | Comment | Header | Calendar | Pdf | PartParameter | ContentIds
)


def ignore_weight(ignore: Ignore) -> int:
    """Returns the instructions of all patterns of an ignore; see `Pattern.weight`."""
    values = [getattr(ignore, field.name) for field in dataclasses.fields(ignore)]
    return sum(value.weight for value in values if isinstance(value, Pattern))
