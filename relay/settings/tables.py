"""The tables `[[rules]]` and `[[ignore]]`, and their conversion to rules and ignores of the judge.

Presets use the same tables.
"""

# Without `from __future__ import annotations`, because pydantic evaluates the annotations when a class is created.
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, model_validator

from relay.core.ruling import DEFAULT, Action, Repeats
from relay.judge.rules import ignore as ignores
from relay.judge.rules.ignore import Ignore, UrlKind
from relay.judge.rules.pattern import Pattern
from relay.judge.rules.rule import Condition, MatchTarget, Rule
from relay.settings import patterns
from relay.settings.value_types import Seconds, ValueType


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


_AnyTable = TypeVar("_AnyTable", bound=_Table)


def _key(default: object, description: str, alias: str | None = None) -> Any:
    """Declares a key. With `...` as default the key is required."""
    return Field(default=default, description=description, alias=alias)


def _text(pattern: Pattern | None) -> str | None:
    return pattern.text if pattern else None


def _texts(several: tuple[Pattern, ...]) -> str | list[str]:
    return several[0].text if len(several) == 1 else [pattern.text for pattern in several]


def _true_or_false(value: object) -> bool:
    """Returns a TOML boolean. Text is refused, as in every other TOML table."""
    if not isinstance(value, bool):
        raise ValueError("not true or false; write one of these, without quotes")  # noqa: TRY004 - pydantic wants it
    return value


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("not a number; write 1 or more, without quotes")
    return value


def _own_name(name: str) -> str:
    if name.lower() == DEFAULT:
        raise ValueError(f'"{DEFAULT}" is the name of the rule that applies if no other matches; write another name')
    return name


def _each_field_once(headers: Mapping[str, object]) -> Mapping[str, object]:
    lower = [name.lower() for name in headers]
    twice = next((name for name in lower if lower.count(name) > 1), None)
    if twice:
        raise ValueError(f"{twice} is listed twice; write one list of patterns")
    return headers


def _not_nothing(seconds: float) -> float:
    if not seconds:
        raise ValueError('a window of 0 suppresses nothing; write action = "exempt" instead')
    return seconds


def name_twice(names: Sequence[str]) -> str | None:
    """Returns a message about two tables with the same name, or None. Empty names do not count."""
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if not twice:
        return None
    numbers = " and ".join(str(number) for number, name in enumerate(names, 1) if name == twice)
    return f'{numbers} are both called "{twice}"; give each a unique name'


def _each_name_once(tables: tuple[_AnyTable, ...]) -> tuple[_AnyTable, ...]:
    if twice := name_twice([getattr(table, "name", "") for table in tables]):
        raise ValueError(twice)
    return tables


Name: TypeAlias = Annotated[str, ValueType("text"), PlainValidator(patterns.parse_name)]
RuleName: TypeAlias = Annotated[Name, AfterValidator(_own_name)]
IgnoredField: TypeAlias = Annotated[str, ValueType("name"), PlainValidator(patterns.parse_ignored_field)]
Parameter: TypeAlias = Annotated[str, ValueType("name"), PlainValidator(patterns.parse_parameter)]
Attribute: TypeAlias = Annotated[str, ValueType("name"), PlainValidator(patterns.parse_attribute)]
Property: TypeAlias = Annotated[str, ValueType("name"), PlainValidator(patterns.parse_property)]
PartParameter: TypeAlias = Annotated[str, ValueType("name"), PlainValidator(patterns.parse_part_parameter)]
OnePattern: TypeAlias = Annotated[
    Pattern | None,
    ValueType("pattern"),
    PlainValidator(patterns.parse_pattern),
    PlainSerializer(_text, return_type=str | None),
]
Patterns: TypeAlias = Annotated[
    tuple[Pattern, ...],
    ValueType("pattern, or list of them"),
    PlainValidator(patterns.parse_patterns),
    PlainSerializer(_texts, return_type=str | list[str]),
]
Headers: TypeAlias = Annotated[
    dict[Annotated[str, PlainValidator(patterns.parse_field_name)], Patterns],
    ValueType("patterns by name"),
    AfterValidator(_each_field_once),
]
Attached: TypeAlias = Annotated[bool | None, ValueType("true or false"), PlainValidator(_true_or_false)]
MostRecipients: TypeAlias = Annotated[int | None, ValueType("number"), PlainValidator(_count)]
Window: TypeAlias = Annotated[Annotated[Seconds, AfterValidator(_not_nothing)] | None, ValueType("duration")]

# The class of each kind of ignore. Its fields are the keys that have an effect beside it.
_KINDS: dict[str, type[Ignore]] = {
    "parameter": ignores.Parameter,
    "query": ignores.Query,
    "text": ignores.Text,
    "attribute": ignores.Attribute,
    "comment": ignores.Comment,
    "header": ignores.Header,
    "calendar": ignores.Calendar,
    "pdf": ignores.Pdf,
    "part_parameter": ignores.PartParameter,
    "content_id": ignores.ContentIds,
}
_OPTIONS = ("url", "path", "value")


def _keys_of(kind: str) -> set[str]:
    return {field.name for field in dataclasses.fields(_KINDS[kind])} - {"name"}


class IgnoreTable(_Table):
    """Defines what does not count, by exactly one key other than name, url, value and path."""

    name: Name = _key("", "Its name in `relay explain`; derived from the other keys if missing.")
    parameter: Parameter = _key("", "Name of a query parameter whose value does not count.")
    query: OnePattern = _key(
        None, "Pattern of a whole query that is not a list of parameters, such as the number in x.jpg?1624465305."
    )
    text: OnePattern = _key(None, "Pattern of what does not count in HTML, plain text and all other text types.")
    attribute: Attribute = _key("", "Name of an HTML attribute in which what matches `value` does not count.")
    comment: OnePattern = _key(None, "Pattern of HTML comments whose whole content does not count.")
    header: IgnoredField = _key("", "Name of a header field of which neither value nor presence counts.")
    calendar: Property = _key("", "Name of a property of iCalendar whose value does not count, such as DTSTAMP.")
    pdf: Literal["metadata"] = _key(
        "",
        '"metadata": the dates in the Info dictionary of a PDF and the ID in its trailer do not count. Files of '
        "another form, or over 1 MiB, count completely.",
    )
    part_parameter: PartParameter = _key(
        "", "Name of a parameter of a part's Content-Type or Content-Disposition whose value does not count."
    )
    content_id: Literal["comment"] = _key(
        "", '"comment": in conditional comments of HTML, cid: counts as the part it names, as it does in an img.'
    )
    url: Literal["image", "link", "any"] = _key(
        "any",
        "For parameter and query: in the `src` of an `img`, in the `href` of an `a` or `area`, or in both and in the "
        "http and https URLs of texts.",
    )
    value: OnePattern = _key(
        None,
        "For parameter and part_parameter: the value must match completely. For attribute: the part that does not "
        "count.",
    )
    path: OnePattern = _key(None, "For parameter and query: only in URLs in which this matches before the `?`.")

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        found = self._found()
        if len(found) != 1:
            said = " and ".join(found) if found else "nothing"
            *others, last = _KINDS
            raise ValueError(f"has {said}; write exactly one of {', '.join(others)} and {last}")
        if self.attribute and not self.value:
            raise ValueError("attribute needs a value; write the pattern of what does not count, or '.+' for all of it")
        for key in _OPTIONS:
            if key in self.model_fields_set and key not in _keys_of(found[0]):
                raise ValueError(f"{key} has no effect with {found[0]}; leave it out")
        return self

    def _found(self) -> list[str]:
        return [key for key in _KINDS if getattr(self, key)]

    @property
    def label(self) -> str:
        """The name, or one derived from the other keys."""
        key = self._found()[0]
        what = getattr(self, key)
        return self.name or f"{key} {what.text if isinstance(what, Pattern) else what}"

    def ignore(self) -> Ignore:
        """Returns the ignore for the judge."""
        kind = self._found()[0]
        keys = {key: getattr(self, key) for key in _keys_of(kind)}
        if "url" in keys:
            keys["url"] = UrlKind(self.url)
        return _KINDS[kind](name=self.label, **keys)


class RuleTable(_Table):
    """Defines what happens to repeats of some messages. All conditions must match; the first matching rule wins."""

    name: RuleName = _key(..., "Its name in log, metrics and traces. It replaces a preset's rule of the same name.")
    subject: Patterns = _key((), "Matches the decoded Subject.")
    from_: Patterns = _key((), "Matches the decoded From with its display name.", alias="from")
    reverse_path: Patterns = _key((), "Matches the envelope's reverse-path.")
    recipient: Patterns = _key((), "Matches a recipient of the envelope in lower case; applies to that recipient only.")
    header: Headers = _key({}, "`header.NAME`: matches another decoded header field.")
    link: Patterns = _key((), "Matches a link in HTML or in text.")
    image: Patterns = _key((), "Matches the `src` of an `img` in HTML.")
    code: Patterns = _key((), "Matches a one-time code that stands by itself in a short message; '.' matches any.")
    token_link: Patterns = _key(
        (), "Matches a link with a token in a short message, as for signing in; '.' matches any."
    )
    attachment: Attached = _key(None, "Whether the message has an attachment.")
    max_recipients: MostRecipients = _key(None, "Matches if the envelope has at most so many recipients.")
    action: Literal["exempt", "dedupe", "observe"] = _key(
        ...,
        "`exempt` forwards every copy without a claim; `dedupe` suppresses repeats; `observe` forwards them and "
        "reports what would have been suppressed.",
    )
    window: Window = _key(None, "For dedupe and observe: replaces dedup.window.")
    repeats: Literal["window", "consecutive"] = _key(
        "window",
        "For dedupe and observe: `window` makes every copy within the window a repeat; `consecutive` only those before "
        "another mail of the same sender came for the same recipient.",
    )
    ignore: Annotated[tuple[IgnoreTable, ...], ValueType("list of tables")] = _key(
        (), "For dedupe and observe: further ignores, written as in `[[ignore]]`."
    )

    @model_validator(mode="after")
    def _acts_on_something(self) -> Self:
        if not self.conditions() and self.attachment is None and self.max_recipients is None:
            raise ValueError(
                "has no condition, so it would match every message; if that is intended, write recipient = '.'"
            )
        if self.action == "exempt":
            for key in ("window", "repeats", "ignore"):
                if key in self.model_fields_set:
                    raise ValueError(f'{key} has no effect with action = "exempt"; leave it out')
        return self

    def conditions(self) -> tuple[Condition, ...]:
        """Returns the conditions, the cheap ones first."""
        return tuple(self._conditions())

    def _conditions(self) -> Iterator[Condition]:
        plain = {
            MatchTarget.SUBJECT: self.subject,
            MatchTarget.FROM: self.from_,
            MatchTarget.REVERSE_PATH: self.reverse_path,
            MatchTarget.RECIPIENT: self.recipient,
        }
        yield from (Condition(what, several) for what, several in plain.items() if several)
        yield from (Condition(MatchTarget.HEADER, several, name.lower()) for name, several in self.header.items())
        searched = {
            MatchTarget.IMAGE: self.image,
            MatchTarget.LINK: self.link,
            MatchTarget.CODE: self.code,
            MatchTarget.TOKEN_LINK: self.token_link,
        }
        yield from (Condition(what, several) for what, several in searched.items() if several)

    def rule(self) -> Rule:
        """Returns the rule for the judge."""
        return Rule(
            self.name,
            Action(self.action),
            self.conditions(),
            self.attachment,
            self.window,
            tuple(table.ignore() for table in self.ignore),
            Repeats(self.repeats),
            self.max_recipients,
        )


Rules: TypeAlias = Annotated[tuple[RuleTable, ...], AfterValidator(_each_name_once)]
Ignores: TypeAlias = Annotated[tuple[IgnoreTable, ...], AfterValidator(_each_name_once)]
