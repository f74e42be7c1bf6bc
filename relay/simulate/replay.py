"""Replays messages in the order of their dates, and counts what the relay would have done for each recipient."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from relay.core.envelope import NULL_REVERSE_PATH, Recipient
from relay.core.ruling import Action, Repeats, Ruling
from relay.judge.fingerprint.sequence import in_epoch, sequence_name
from relay.simulate.delivery_fields import without_delivery_fields
from relay.simulate.mail_between import MailBetween
from relay.simulate.near_misses import NearMisses
from relay.simulate.seen_messages import SeenMessages

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from relay.core.claim import Fingerprint
    from relay.judge.fingerprint.normal_form import Field
    from relay.judge.judge import Judge, MessageAnalysis
    from relay.simulate.archive import Archive, ArchivedMessage
    from relay.simulate.seen_messages import EarlierCopy

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
GAPS = (
    *(0.0, 1.0, 3.0, 10.0, 30.0, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 3 * _HOUR, 12 * _HOUR, _DAY, 3 * _DAY, 7 * _DAY),
)
"""The bounds of the histogram's bars, in seconds."""
WINDOWS = (10.0, _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 30 * _MINUTE, _HOUR, 6 * _HOUR, _DAY)
"""Windows in seconds that are tried beside the one in force."""
_SENDER = frozenset(("From", "From (raw)", "reverse-path"))
"""The labels of the fields that name the sender."""
_NO_RECIPIENT = Recipient("")
_NO_MESSAGE_ID = hash("")


@dataclass(slots=True)
class RulingCounts:
    """Counts of recipients under one ruling."""

    recipients: int = 0
    repeats: int = 0


@dataclass(slots=True)
class CopyGroup:
    """Further copies of one message. Gaps in seconds."""

    number: int
    """The message that was the second copy."""
    messages: int = 0
    """Further copies."""
    copies: int = 0
    """Recipients of further copies."""
    repeats: int = 0
    """Recipients of further copies inside the window."""
    mail_between: int = 0
    """Those of them to whom another mail of the same sender was sent since the accepted copy."""
    shortest: float = float("inf")
    longest: float = 0.0


@dataclass
class Totals:
    """Counts of messages, and of recipients summed over the messages."""

    messages: int = 0
    recipients: int = 0
    suppressed: int = 0
    """Recipients."""
    observed: int = 0
    """Recipients of repeats that are only observed."""
    suppressed_wholly: int = 0
    """Messages suppressed for all their recipients."""
    suppressed_partly: int = 0
    """Messages suppressed for some of their recipients."""
    mail_between: int = 0
    """Recipients of suppressed repeats to whom another mail of the same sender was sent since the accepted copy."""
    same_message_id: int = 0
    """Repeats with the Message-ID of the copy before."""
    recipient_sources: Counter[str] = field(default_factory=Counter)
    reverse_path_sources: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)


class _ReplayedMessage(NamedTuple):
    number: int
    analysis: MessageAnalysis
    rulings: Mapping[Recipient, Ruling]
    copies: Mapping[Recipient, EarlierCopy | None]
    """The earlier copy for each recipient; None for exempt ones."""
    mail_between: Collection[Recipient]
    """The recipients of repeats to whom another mail of the same sender was sent since the accepted copy."""


class Replay:
    """Replays an archive. `window` is `dedup.window`, in seconds."""

    def __init__(self, judge: Judge, archive: Archive, window: float) -> None:
        self.window = window
        self.windows = tuple(sorted({*WINDOWS, window} - {0.0}))
        self.totals = Totals()
        self.by_ruling: dict[Ruling, RulingCounts] = {}
        self.by_gap = [0] * (len(GAPS) - 1)
        """Copies for each bar of the histogram."""
        self.by_window = [0] * len(self.windows)
        """Repeats for each of `windows`."""
        self.groups: dict[Fingerprint, CopyGroup] = {}
        self.near_misses = NearMisses(self._read_form)
        self._judge = judge
        self._archive = archive
        horizon = max(GAPS[-1], window, *(rule.window or 0.0 for rule in judge.rules))
        self._seen = SeenMessages(archive.dates, horizon)
        self._mail_between = MailBetween()
        self._message_ids = array("q", bytes(8 * len(archive)))
        self._sequences: dict[int, tuple[int, int]] = {}
        """By hash of a sequence: the hash of its latest fingerprint, and the message that began the epoch."""

    def play(self, number: int) -> None:
        """Replays one message. Call it in the order of dates."""
        archived = self._archive.read(number)
        if archived is None:
            return
        recipients, source = archived.delivery.recipients()
        reverse_path = archived.delivery.reverse_path()
        analysis = self._analyse(archived, number, len(recipients))
        self._message_ids[number] = hash(analysis.message_id)
        self.totals.messages += 1
        self.totals.recipients += len(recipients)
        self.totals.recipient_sources[source] += 1
        self.totals.reverse_path_sources["unknown" if reverse_path is None else "Return-Path"] += 1
        is_null = reverse_path == NULL_REVERSE_PATH
        rulings = {to: Ruling.exempt("null reverse-path") if is_null else analysis.ruling(to) for to in recipients}
        copies = {to: self._earlier_copy(number, analysis, to, ruling) for to, ruling in rulings.items()}
        message = _ReplayedMessage(number, analysis, rulings, copies, self._find_mail_between(analysis, copies))
        self._count(message)
        self._count_group(message)
        self._find_near_misses(message)

    def _analyse(self, archived: ArchivedMessage, number: int, recipients: int) -> MessageAnalysis:
        content = without_delivery_fields(archived.content)
        return self._judge(content, archived.delivery.reverse_path() or b"", recipients, self._archive.dates[number])

    def _earlier_copy(
        self, number: int, analysis: MessageAnalysis, to: Recipient, ruling: Ruling
    ) -> EarlierCopy | None:
        fingerprint = self._fingerprint_in_sequence(number, analysis, to, ruling)
        if ruling.action is Action.EXEMPT:
            return None
        own_window = analysis.rule(to).window
        tried = self.windows if own_window is None else (own_window,) * len(self.windows)
        return self._seen.see(fingerprint, number, (ruling.window, *tried))

    def _fingerprint_in_sequence(
        self, number: int, analysis: MessageAnalysis, to: Recipient, ruling: Ruling
    ) -> Fingerprint:
        """Returns the fingerprint that is claimed: under a consecutive rule that of one epoch of the sequence."""
        fingerprint = analysis.fingerprint(to)
        if not analysis.sequence_time:
            return fingerprint
        name = hash(sequence_name(analysis.sender, to))
        latest, epoch = self._sequences.get(name, (0, number))
        if latest != hash(fingerprint):
            epoch = number
        self._sequences[name] = hash(fingerprint), epoch
        return in_epoch(fingerprint, str(epoch)) if ruling.repeats is Repeats.CONSECUTIVE else fingerprint

    def _find_mail_between(
        self, analysis: MessageAnalysis, copies: Mapping[Recipient, EarlierCopy | None]
    ) -> list[Recipient]:
        found = []
        for to, copy in copies.items():
            form = analysis.normal_form(analysis.rule(to)).fields
            sender = (tuple(each.value for each in form if each.label in _SENDER), to)
            is_repeat = copy is not None and copy.repeats[0]
            is_after_another = is_repeat and self._mail_between.is_before(sender, analysis.fingerprint(to))
            if is_after_another:
                found.append(to)
            if is_after_another or not is_repeat:  # what `repeats = "consecutive"` would forward
                self._mail_between.accept(sender, analysis.fingerprint(to))
        return found

    def _count(self, message: _ReplayedMessage) -> None:
        suppressed = 0
        for to, ruling in message.rulings.items():
            counts = self.by_ruling.setdefault(ruling, RulingCounts())
            counts.recipients += 1
            copy = message.copies[to]
            if copy is None:
                continue
            self._count_copy(message.number, copy)
            if copy.repeats[0]:
                counts.repeats += 1
                if ruling.action is Action.DEDUPE:
                    suppressed += 1
                    self.totals.mail_between += to in message.mail_between
                else:
                    self.totals.observed += 1
        self.totals.suppressed += suppressed
        self.totals.suppressed_wholly += suppressed == len(message.rulings)
        self.totals.suppressed_partly += 0 < suppressed < len(message.rulings)
        first_rule = message.analysis.rule(next(iter(message.rulings)))
        if broken := message.analysis.normal_form(first_rule).broken:
            self.totals.broken[broken] += 1

    def _count_copy(self, number: int, copy: EarlierCopy) -> None:
        bar = bisect_right(GAPS, copy.gap) - 1
        if bar < len(self.by_gap):
            self.by_gap[bar] += 1
        in_force, *tried = copy.repeats
        for index, is_repeat in enumerate(tried):
            self.by_window[index] += is_repeat
        message_id, earlier_id = self._message_ids[number], self._message_ids[copy.number]
        self.totals.same_message_id += in_force and message_id == earlier_id != _NO_MESSAGE_ID

    def _count_group(self, message: _ReplayedMessage) -> None:
        copies = [copy for copy in message.copies.values() if copy]
        if not copies:
            return
        content = message.analysis.fingerprint(_NO_RECIPIENT)
        group = self.groups.setdefault(content, CopyGroup(message.number))
        group.messages += 1
        group.copies += len(copies)
        group.repeats += sum(copy.repeats[0] for copy in copies)
        group.mail_between += len(message.mail_between)
        group.shortest = min(group.shortest, *(copy.gap for copy in copies))
        group.longest = max(group.longest, *(copy.gap for copy in copies))

    def _find_near_misses(self, message: _ReplayedMessage) -> None:
        """Compares the message with earlier ones for the recipients that are not exempt."""
        recipients = [to for to, ruling in message.rulings.items() if ruling.action is not Action.EXEMPT]
        if recipients:
            form = message.analysis.normal_form(message.analysis.rule(recipients[0])).fields
            subject = tuple(each.value for each in form if each.label.startswith("Subject"))
            keys = [(hash((subject, to)), message.copies[to] is None) for to in recipients]
            self.near_misses.add(message.number, self._archive.dates[message.number], form, keys)

    def _read_form(self, number: int) -> Sequence[Field] | None:
        archived = self._archive.read(number)
        if archived is None:
            return None
        recipients, _ = archived.delivery.recipients()
        analysis = self._analyse(archived, number, len(recipients))
        return analysis.normal_form(analysis.rule(recipients[0])).fields
