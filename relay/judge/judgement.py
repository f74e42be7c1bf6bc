"""The judgement of one message: a ruling for each recipient, and the fingerprints to claim."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.core.claim import ClaimTerms, Fingerprint
from relay.core.envelope import NULL_REVERSE_PATH
from relay.core.ruling import Action, Ruling

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from relay.core.envelope import Recipient
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
    return Judgement(analysis, rulings, fingerprints, terms)


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
