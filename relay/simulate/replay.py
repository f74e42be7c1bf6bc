"""Messages played in the order of their dates: what the relay would have done for each recipient."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.core.envelope import NULL_REVERSE_PATH, Recipient
from relay.core.ruling import Action, Ruling
from relay.simulate.near_misses import NearMisses
from relay.simulate.seen import SeenMessages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.core.claim import Fingerprint
    from relay.judge.fingerprint.normal_form import Field
    from relay.judge.judge import Judge, MessageAnalysis
    from relay.simulate.archive import Archive
    from relay.simulate.seen import EarlierCopy

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
GAPS = (
    *(0.0, 1.0, 3.0, 10.0, 30.0, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 3 * _HOUR, 12 * _HOUR, _DAY, 3 * _DAY, 7 * _DAY),
)
"""Where the bars of the histogram begin, in seconds; the last one is where they end."""
WINDOWS = (10.0, _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 30 * _MINUTE, _HOUR, 6 * _HOUR, _DAY)
"""Windows that are tried beside the one in force."""
_CONTENT_ALONE = Recipient("")
_NO_MESSAGE_ID = hash("")


@dataclass(slots=True)
class Tally:
    """What came of recipients under one ruling."""

    recipients: int = 0
    repeats: int = 0


@dataclass(slots=True)
class Group:
    """Copies of one message. Gaps in seconds."""

    number: int
    """The first copy that was not the first."""
    messages: int = 0
    """How many more copies came."""
    copies: int = 0
    """For how many recipients, added up."""
    repeats: int = 0
    """For how many of these inside the window."""
    shortest: float = float("inf")
    longest: float = 0.0


@dataclass
class Totals:
    """Counts of messages, and of recipients added up over the messages."""

    messages: int = 0
    recipients: int = 0
    suppressed: int = 0
    """Recipients."""
    observed: int = 0
    """Recipients: what would have been suppressed, but is only to be observed."""
    suppressed_wholly: int = 0
    """Messages."""
    suppressed_partly: int = 0
    """Messages."""
    same_message_id: int = 0
    """Repeats that carry the Message-ID of the copy before."""
    addressed_by: Counter[str] = field(default_factory=Counter)
    sent_by: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)


class Replay:
    """Plays an archive. `window` is the service's own, in seconds."""

    def __init__(self, judge: Judge, archive: Archive, window: float) -> None:
        self.window = window
        self.windows = tuple(sorted({*WINDOWS, window} - {0.0}))
        self.totals = Totals()
        self.tallies: dict[Ruling, Tally] = {}
        self.gaps = [0] * (len(GAPS) - 1)
        self.by_window = [0] * len(self.windows)
        """Recipients inside the window, had the service had this one."""
        self.groups: dict[Fingerprint, Group] = {}
        self.near = NearMisses(self._form_again)
        self._judge = judge
        self._archive = archive
        longest = max(GAPS[-1], window, *(rule.window or 0.0 for rule in judge.rules))
        self._memory = SeenMessages(archive.dates, longest)
        self._message_ids = array("q", bytes(8 * len(archive)))

    def play(self, number: int) -> None:
        """Play one message; those after it are not older."""
        letter = self._archive.read(number)
        if letter is None:
            return
        recipients, source = letter.heading.addressed()
        reverse_path = letter.heading.reverse_path()
        judged = self._judge(letter.content, reverse_path or b"")
        self._message_ids[number] = hash(judged.message_id)
        self.totals.messages += 1
        self.totals.recipients += len(recipients)
        self.totals.addressed_by[source] += 1
        self.totals.sent_by["unknown" if reverse_path is None else "Return-Path"] += 1
        null = reverse_path == NULL_REVERSE_PATH
        rulings = {to: Ruling.exempt("null reverse-path") if null else judged.ruling(to) for to in recipients}
        copies = {to: self._copy(number, judged, to, rulings[to]) for to in recipients}
        self._count(number, judged, rulings, copies)
        self._compare(number, judged, rulings, copies)

    def _copy(self, number: int, judged: MessageAnalysis, to: Recipient, ruling: Ruling) -> EarlierCopy | None:
        if ruling.action is Action.EXEMPT:
            return None
        own = judged.rule(to).window
        tried = self.windows if own is None else (own,) * len(self.windows)
        return self._memory.copy(judged.fingerprint(to), number, (ruling.window, *tried))

    def _count(
        self,
        number: int,
        judged: MessageAnalysis,
        rulings: Mapping[Recipient, Ruling],
        copies: Mapping[Recipient, EarlierCopy | None],
    ) -> None:
        suppressed = 0
        for to, ruling in rulings.items():
            copy = copies[to]
            tally = self.tallies.setdefault(ruling, Tally())
            tally.recipients += 1
            if copy is None:
                continue
            self._count_copy(number, copy)
            tally.repeats += copy.repeats[0]
            if copy.repeats[0] and ruling.action is Action.DEDUPE:
                suppressed += 1
            elif copy.repeats[0]:
                self.totals.observed += 1
        self.totals.suppressed += suppressed
        self.totals.suppressed_wholly += suppressed == len(rulings)
        self.totals.suppressed_partly += 0 < suppressed < len(rulings)
        found = [copy for copy in copies.values() if copy]
        if found:
            self._group(number, judged, found)
        if broken := judged.normal_form(judged.rule(next(iter(rulings)))).broken:
            self.totals.broken[broken] += 1

    def _count_copy(self, number: int, copy: EarlierCopy) -> None:
        bar = bisect_right(GAPS, copy.gap) - 1
        if bar < len(self.gaps):
            self.gaps[bar] += 1
        in_force, *tried = copy.repeats
        for place, is_repeat in enumerate(tried):
            self.by_window[place] += is_repeat
        name, earlier = self._message_ids[number], self._message_ids[copy.earlier]
        self.totals.same_message_id += in_force and name == earlier != _NO_MESSAGE_ID

    def _group(self, number: int, judged: MessageAnalysis, copies: Sequence[EarlierCopy]) -> None:
        group = self.groups.setdefault(judged.fingerprint(_CONTENT_ALONE), Group(number))
        group.messages += 1
        group.copies += len(copies)
        group.repeats += sum(copy.repeats[0] for copy in copies)
        group.shortest = min(group.shortest, *(copy.gap for copy in copies))
        group.longest = max(group.longest, *(copy.gap for copy in copies))

    def _compare(
        self,
        number: int,
        judged: MessageAnalysis,
        rulings: Mapping[Recipient, Ruling],
        copies: Mapping[Recipient, EarlierCopy | None],
    ) -> None:
        """Look for near misses among those to whom a rule applies that may suppress."""
        looked = [to for to, ruling in rulings.items() if ruling.action is not Action.EXEMPT]
        if looked:
            form = judged.normal_form(judged.rule(looked[0])).fields
            subject = tuple(counted.value for counted in form if counted.label.startswith("Subject"))
            keys = [(hash((subject, to)), copies[to] is None) for to in looked]
            self.near.look(number, self._archive.dates[number], form, keys)

    def _form_again(self, number: int) -> Sequence[Field] | None:
        letter = self._archive.read(number)
        if letter is None:
            return None
        judged = self._judge(letter.content, letter.heading.reverse_path() or b"")
        to = letter.heading.addressed().recipients[0]
        return judged.normal_form(judged.rule(to)).fields
