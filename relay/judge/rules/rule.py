"""Rules: for which messages what is done about repeats. Data, and how they are matched; the first that matches wins."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from relay.core.ruling import DEFAULT, Action, Ruling
from relay.judge.mime.headers import decode_value, field_values, unfold
from relay.judge.mime.message import has_attachment
from relay.judge.rules.links import links
from relay.judge.rules.pattern_text import any_of, is_local

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from relay.core.envelope import Recipient
    from relay.judge.mime.message import Message
    from relay.judge.rules.ignore import Ignore
    from relay.judge.rules.pattern import Pattern

_GROUP = 64
"""Values that are looked at in one pass."""


class MatchTarget(enum.StrEnum):
    """What of a message a condition looks at."""

    SUBJECT = "subject"
    FROM = "from"
    HEADER = "header"
    REVERSE_PATH = "reverse_path"
    LINK = "link"
    RECIPIENT = "recipient"


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds when one of the patterns is found in one of the values. `header` names the field, in lower case."""

    what: MatchTarget
    patterns: tuple[Pattern, ...]
    header: str = ""
    thing: str = field(init=False, repr=False, compare=False)
    """Names what it looks at: conditions with the same look at the same. Plain, for an enum is slow to find."""
    of_recipient: bool = field(init=False, repr=False, compare=False)
    """Whether the recipient decides."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "thing", f"{self.what.value} {self.header}")
        object.__setattr__(self, "of_recipient", self.what is MatchTarget.RECIPIENT)

    def holds(self, texts: Sequence[bytes]) -> bool:
        """Say whether a pattern is found in a text."""
        return bool(texts) and any(pattern.search(text) for text in texts for pattern in self.patterns)


_LINKS = Condition(MatchTarget.LINK, ()).thing


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """All conditions have to hold. `window` in seconds; None is the service's own."""

    name: str
    action: Action
    conditions: tuple[Condition, ...] = ()
    attachment: bool | None = None
    window: float | None = None
    ignore: tuple[Ignore, ...] = ()
    """What does not count either, beside what does not in any message."""

    def may_match(self, sight: MessageView) -> bool:
        """Say whether it matches, as far as the recipient does not decide."""
        if self.attachment is not None and self.attachment != sight.attachment:
            return False
        for condition in self.conditions:  # Not `all()`: this runs for every rule and message.
            if not (condition.of_recipient or condition.holds(sight.relevant(condition))):
                return False
        return True

    @property
    def asks_recipient(self) -> bool:
        """Whether the recipient decides too."""
        return any(condition.of_recipient for condition in self.conditions)

    def takes(self, recipient: Recipient) -> bool:
        """Say whether the recipient agrees."""
        octets = recipient.encode("utf-8", "surrogateescape")
        return all(condition.holds((octets,)) for condition in self.conditions if condition.of_recipient)


NO_RULE = Rule(DEFAULT, Action.DEDUPE)


def ruling(rule: Rule, window: float, *, observe: bool) -> Ruling:
    """Give what a rule comes to in a service with this window, which may only observe."""
    length = window if rule.window is None else rule.window
    if rule.action is Action.EXEMPT:
        return Ruling.exempt(rule.name)
    if length <= 0:
        return Ruling.exempt("window is 0" if rule is NO_RULE else f"{rule.name}: window is 0")
    return Ruling(rule.name, Action.OBSERVE if observe else rule.action, length)


class PatternPrefilter:
    """Sifts out what no rule looks for: all patterns on one thing in one, in one pass over all its values.

    What comes through still has to be matched pattern by pattern.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        patterns: dict[str, dict[str, None]] = {}
        for rule in rules:
            for condition in rule.conditions:
                texts = patterns.setdefault(condition.thing, {})
                texts.update(dict.fromkeys(pattern.text for pattern in condition.patterns))
        self._patterns = {thing: any_of(texts) for thing, texts in patterns.items()}
        links = patterns.get(_LINKS, {})
        self._finds_links_in_text = all(map(is_local, links))

    def sift(self, thing: str, values: Sequence[bytes]) -> Sequence[bytes]:
        """Give the values in which a rule may find what it looks for."""
        pattern = self._patterns.get(thing)
        if pattern is None:
            return values
        groups = (values[at : at + _GROUP] for at in range(0, len(values), _GROUP))
        return [
            value for group in groups if pattern.search(b"\n".join(group)) for value in group if pattern.search(value)
        ]

    def sift_texts(self, texts: Sequence[bytes]) -> Sequence[bytes]:
        """Give the texts in which there may be links that a rule looks for."""
        pattern = self._patterns.get(_LINKS)
        if pattern is None or not self._finds_links_in_text:
            return texts
        # A link is a piece of its text, but where character references are resolved.
        doubtful = [text for text in texts if b"&" in text]
        plain = [text for text in texts if b"&" not in text]
        return doubtful + plain if plain and pattern.search(b"\n".join(plain)) else doubtful


class MessageView:
    """What conditions see of a message."""

    def __init__(
        self,
        message: Message,
        texts: Sequence[bytes],
        reverse_path: bytes,
        screen: PatternPrefilter | None = None,
        decoded: Mapping[str, Sequence[bytes]] = MappingProxyType({}),
    ) -> None:
        """Take what is to be seen. With a screen `relevant` is quick; `decoded` are header fields by name, if known."""
        self._message = message
        self._texts = texts
        self._reverse_path = reverse_path
        self._screen = screen
        self._decoded = decoded
        self._sifted: dict[str, Sequence[bytes]] = {}

    def relevant(self, condition: Condition) -> Sequence[bytes]:
        """Give the values that a condition looks at, but for those in which no rule finds anything."""
        if self._screen is None:
            return self.texts(condition)
        found = self._sifted.get(condition.thing)
        if found is None:
            if condition.what is MatchTarget.LINK:
                self._texts = self._screen.sift_texts(self._texts)
            found = self._sifted[condition.thing] = self._screen.sift(condition.thing, self.texts(condition))
        return found

    def texts(self, condition: Condition) -> Sequence[bytes]:
        """Give the values that a condition looks at."""
        match condition.what:
            case MatchTarget.LINK:
                return self._links
            case MatchTarget.REVERSE_PATH:
                return (self._reverse_path,)
            case MatchTarget.HEADER:
                return self._header(condition.header, structured=False)
            case MatchTarget.FROM:
                return self._header("from", structured=True)
            case _:
                return self._header("subject", structured=False)

    @cached_property
    def attachment(self) -> bool:
        """Whether a part is an attachment, or has a file name."""
        return self._message.root is not None and has_attachment(self._message.root)

    @cached_property
    def _links(self) -> Sequence[bytes]:
        return list(dict.fromkeys(link for text in self._texts for link in links(text)))

    def _header(self, name: str, *, structured: bool) -> Sequence[bytes]:
        """As a reader sees them; raw where that is not certain."""
        if name in self._decoded:
            return self._decoded[name]
        found = field_values(self._message.fields, name)
        decoded = [decode_value(raw, structured=structured) for raw in found]
        return [unfold(raw).strip() if text is None else text for raw, text in zip(found, decoded, strict=True)]


def candidates(rules: Sequence[Rule], sight: MessageView) -> tuple[Rule, ...]:
    """Give the rules that can win, in order; the last takes every recipient."""
    found = []
    for rule in rules:
        if rule.may_match(sight):
            found.append(rule)
            if not rule.asks_recipient:
                return tuple(found)
    return (*found, NO_RULE)
