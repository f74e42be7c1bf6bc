"""The judgement of one message: a ruling for each recipient, and the fingerprints to claim."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from relay.core.claim import ClaimTerms, Fingerprint
from relay.core.envelope import NULL_REVERSE_PATH
from relay.core.ruling import Action, Repeats, Ruling
from relay.core.sequence import Arrival
from relay.judge.fingerprint.sequence import in_epoch, sequence_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from relay.core.envelope import Recipient
    from relay.core.sequence import SequenceName, SequenceState
    from relay.judge.judge import MessageAnalysis


@dataclass(frozen=True, slots=True)
class Judgement:
    """The rulings and fingerprints for the recipients of one message. By default there are no recipients."""

    analysis: MessageAnalysis | None = None
    """The message under the rules, before its recipients are considered; None if the analysis failed."""
    rulings: Mapping[Recipient, Ruling] = field(default_factory=dict)
    fingerprints: Mapping[Recipient, Fingerprint] = field(default_factory=dict)
    """Of the recipients that are not exempt."""
    _terms: Mapping[Fingerprint, ClaimTerms] = field(default_factory=dict)
    _taking_part: Collection[Recipient] = ()
    """The recipients for which the message takes part in its sequence, whatever this process knows."""
    interrupted: Collection[Recipient] = ()
    """The recipients that had an equal mail, and another one of the same sender since."""

    @classmethod
    def exempt(cls, recipients: Iterable[Recipient], reason: str, analysis: MessageAnalysis | None = None) -> Judgement:
        """Returns a judgement that exempts all recipients, so that the message is forwarded without claims."""
        return cls(analysis, dict.fromkeys(recipients, Ruling.exempt(reason)))

    @property
    def message_id(self) -> str:
        """The Message-ID for records; empty if there is none."""
        return self.analysis.message_id if self.analysis else ""

    @property
    def hops(self) -> int:
        """The number of `Received` fields; 0 if the analysis failed."""
        return len(self.analysis.received) if self.analysis else 0

    def observed(self) -> set[Recipient]:
        """Returns the recipients whose repeats are counted but forwarded."""
        return {recipient for recipient, ruling in self.rulings.items() if ruling.action is Action.OBSERVE}

    def arrivals(self, knows_sender: Callable[[bytes], bool]) -> dict[Recipient, Arrival]:
        """Returns what may take part in sequences. `knows_sender`: whether this process has seen any of its sequences.

        Empty, after a look at one dict, for a message that no consecutive rule concerns.
        """
        analysis = self.analysis
        if analysis is None or not analysis.sequence_time:
            return {}
        recipients = self.rulings if knows_sender(analysis.sender) else self._taking_part
        return {
            to: Arrival(
                sequence_name(analysis.sender, to),
                analysis.sender,
                analysis.fingerprint(to) if to in self.fingerprints else analysis.default_fingerprint(to),
                analysis.sequence_time,
                to in self._taking_part,
            )
            for to in recipients
        }

    def in_sequence(
        self, arrivals: Mapping[Recipient, Arrival], states: Mapping[SequenceName, SequenceState]
    ) -> Judgement:
        """Returns the judgement after the message was placed in its sequences, whose states are given.

        Under a consecutive rule the message is claimed in the epoch of its sequence.
        """
        fingerprints, terms = {**self.fingerprints}, {**self._terms}
        interrupted = set()
        for to, arrival in arrivals.items():
            if self.rulings[to].repeats is Repeats.CONSECUTIVE:
                state = states[arrival.sequence]
                fingerprints[to] = in_epoch(fingerprints[to], state.epoch)
                terms[fingerprints[to]] = terms.pop(arrival.fingerprint)
                if state.interrupted:
                    interrupted.add(to)
        return replace(self, fingerprints=fingerprints, _terms=terms, interrupted=interrupted)

    def terms(self, recipients: Sequence[Recipient]) -> dict[Fingerprint, ClaimTerms]:
        """Returns what to claim for these recipients. Exempt recipients have no entry."""
        keys = [self.fingerprints[recipient] for recipient in recipients if recipient in self.fingerprints]
        return {key: self._terms[key] for key in keys}


def judge_recipients(
    analysis: MessageAnalysis,
    recipients: Collection[Recipient],
    reverse_path: bytes,
    *,
    loop_ids: Iterable[str],
    pseudonym: Callable[[Recipient], str],
) -> Judgement:
    """Applies the rules for each recipient and computes a fingerprint for each one that is not exempt.

    `loop_ids` are the ids that this store's relays put into their `Received` fields. `pseudonym` returns the name by
    which a claim's recipient can be found later.
    """
    exemption = _exemption(analysis, reverse_path, loop_ids)
    rulings = {recipient: exemption or analysis.ruling(recipient) for recipient in recipients}
    fingerprints: dict[Recipient, Fingerprint] = {}
    terms: dict[Fingerprint, ClaimTerms] = {}
    for recipient, ruling in rulings.items():
        if ruling.action is not Action.EXEMPT:
            key = fingerprints[recipient] = analysis.fingerprint(recipient)
            terms[key] = ClaimTerms(ruling.window, pseudonym(recipient))
    return Judgement(analysis, rulings, fingerprints, terms, analysis.taking_part(recipients))


def _exemption(analysis: MessageAnalysis, reverse_path: bytes, loop_ids: Iterable[str]) -> Ruling | None:
    """Returns the ruling that holds for all recipients whatever the operator's rules say, or None."""
    if reverse_path == NULL_REVERSE_PATH:
        return Ruling.exempt("null reverse-path")
    if any(loop_id.encode() in value for loop_id in loop_ids for value in analysis.received):
        return Ruling.exempt("loop mark")
    # Postfix accepts such a message and bounces it as a loop. A repeat of a bounced message must pass.
    if analysis.was_delivered:
        return Ruling.exempt("Delivered-To field")
    return None
