"""The judge: applies an operator's rules and ignores to one message at a time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from relay.core.ruling import Repeats
from relay.judge.fingerprint.decoded import decode_message
from relay.judge.fingerprint.digest import begin_digest, fingerprint
from relay.judge.fingerprint.header import key_fields
from relay.judge.fingerprint.normal_form import NormalForm, normalise
from relay.judge.fingerprint.sequence import sender_of
from relay.judge.mime.headers import unfold
from relay.judge.mime.parser import parse
from relay.judge.rules.ignore import ignore_weight
from relay.judge.rules.ignores import Ignores
from relay.judge.rules.matching import MessageView, PatternPrefilter, matches_message, matching_rules
from relay.judge.rules.rule import NO_RULE, Rule, ruling_for, scope_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from relay.core.claim import Fingerprint
    from relay.core.envelope import Recipient
    from relay.core.ruling import Ruling
    from relay.judge.mime.message import Message
    from relay.judge.rules.ignore import Ignore

_MESSAGE_ID_LIMIT = 250
_SUBJECT_LIMIT = 200
"""Characters."""
# Estimates of what holds up the event loop for up to 0.1 s. Measured on content made to take long (Python 3.11, one
# core): 1.6 µs a byte, 16 µs a part, 6 ns for each byte and instruction of a pattern, 6 µs for each call of a pattern.
_LARGE = 32 * 1024
"""Bytes of content."""
_SMALL = 16 * 1024
"""Bytes of content whose parts are not counted: 1,800 of them take 0.03 s."""
_MANY_PARTS = 500
_MOST_STEPS = 24_000_000
"""Bytes times instructions of the patterns that look at them."""
_STEPS_OF_CONTENT = 300
"""What the analysis itself costs for a byte, in the same unit."""
_STEPS_OF_CALL = 1_000
"""What the call of a pattern costs, in the same unit."""
_DELIVERY = 60.0
"""Seconds for which a sequence outlives the window: the window begins only when the upstream accepts the message."""
_NOT_PRINTABLE = re.compile(rb"[^ -~]")


class Judge:
    """An operator's rules and ignores, compiled once. Calling it with content returns a `MessageAnalysis`.

    `ignore` applies to every message; a rule can add its own. `window` is the default window in seconds. With
    `observe` repeats are counted but not suppressed. `key_headers` are names of fields, in lower case: a message with
    one of them is claimed by its value in place of its content.
    """

    def __init__(
        self,
        rules: Sequence[Rule] = (),
        ignore: Sequence[Ignore] = (),
        *,
        window: float,
        observe: bool = False,
        key_headers: Collection[str] = (),
    ) -> None:
        self.rules = tuple(rules)
        self.key_headers = frozenset(key_headers)
        self.prefilter = PatternPrefilter(self.rules)
        shared = Ignores(ignore)
        self.ignores = {rule: Ignores((*ignore, *rule.ignore)) if rule.ignore else shared for rule in (*rules, NO_RULE)}
        """What does not count under each rule."""
        self.rulings = {rule: ruling_for(rule, window, observe=observe) for rule in self.ignores}
        """The decision if a rule wins."""
        self.consecutive = {rule for rule, ruling in self.rulings.items() if ruling.repeats is Repeats.CONSECUTIVE}
        windows = [self.rulings[rule].window for rule in self.consecutive]
        self.sequence_time = max(windows) + _DELIVERY if windows else 0.0
        """Seconds for which a sequence is remembered; 0 if no rule is consecutive."""
        self.scopes = [scope for rule in rules if (scope := scope_of(rule))]
        """What makes messages take part in a sequence, beside the consecutive rules."""
        weight = _STEPS_OF_CONTENT + sum(rule.message_weight for rule in (*rules, *self.scopes))
        weight += sum(map(ignore_weight, {*ignore, *(each for rule in rules for each in rule.ignore)}))
        self._large = min(_LARGE, _MOST_STEPS // weight)

    def __call__(
        self, content: bytes, reverse_path: bytes, recipients: int = 1, received_at: float | None = None
    ) -> MessageAnalysis:
        """Analyses content as recipients will get it. Accepts any bytes. `recipients` is their number.

        `received_at` is the time of receipt in seconds since the Unix epoch, against which a Date is judged; None if it
        is unknown.
        """
        return MessageAnalysis(self, parse(content), reverse_path, recipients, received_at)

    def takes_long(self, content: bytes) -> bool:
        """Returns whether the analysis of this content could hold up the event loop."""
        size = len(content)
        return size > self._large or (size > _SMALL and content.count(b"\n--") > _MANY_PARTS)


class MessageAnalysis:
    """One message under the rules of a judge, before its recipients are considered."""

    def __init__(
        self, judge: Judge, message: Message, reverse_path: bytes, recipients: int, received_at: float | None
    ) -> None:
        # All slow steps run here, since a large message is analysed in a thread.
        self._judge = judge
        self.message_id = _message_id(message.values("message-id"))
        """The Message-ID for records: printable ASCII, or empty."""
        self.received = message.received
        """The raw values of the `Received` fields, top first."""
        self.was_delivered = bool(message.values("delivered-to"))
        """Whether there is a `Delivered-To` field, which final delivery adds."""
        decoded = decode_message(message, reverse_path, received_at)
        self.view = MessageView(
            message,
            decoded.body.texts,
            reverse_path,
            judge.prefilter,
            results=decoded.body.results,
            recipients=recipients,
        )
        """The values that rules look at; gone after `drop_message`."""
        self.matching_rules = matching_rules(self.view)
        """The rules that can win, in order. The last one matches every recipient, the others depend on it."""
        *self._conditional, self._last = self.matching_rules
        self._rules: dict[Recipient, Rule] = {}
        """By recipient. Asked again for a record, in the event loop: 1.9 s for 300 rules and 1,000 recipients."""
        self._scopes = [scope for scope in judge.scopes if matches_message(scope, self.view)] if judge.scopes else []
        self.sequence_time = judge.sequence_time
        """See `Judge`."""
        self.sender = sender_of(decoded.header, reverse_path) if self.sequence_time else b""
        """The sender by which mails form a sequence; empty if no rule is consecutive."""
        ignores = {rule: judge.ignores[rule] for rule in self.matching_rules}
        key = key_fields(message.fields, decoded.header, judge.key_headers) if judge.key_headers else ()
        distinct = dict.fromkeys(ignores.values())
        self._forms = {each: NormalForm(key) if key else normalise(decoded, each) for each in distinct}
        digests = {each: begin_digest(form) for each, form in self._forms.items()}
        self._digests = {rule: digests[each] for rule, each in ignores.items()}

    def subject(self) -> str:
        """Returns the Subject as a reader shows it, cut to 200 characters. Call it before `drop_message`."""
        found = self.view.header("subject")
        return found[0].decode("utf-8", "replace")[:_SUBJECT_LIMIT] if found else ""

    def drop_message(self) -> None:
        """Drops the parsed message, which takes as much memory as the content. What was concluded from it stays."""
        del self.view

    def takes_long(self, recipients: Collection[Recipient]) -> bool:
        """Returns whether the rules for these recipients could hold up the event loop."""
        rules = (*self._conditional, *self._scopes)
        patterns = sum(rule.recipient_patterns for rule in rules)
        weight = sum(rule.recipient_weight for rule in rules)
        calls = len(recipients) * patterns
        return calls * _STEPS_OF_CALL + sum(map(len, recipients)) * weight > _MOST_STEPS // 8

    def rule(self, recipient: Recipient) -> Rule:
        """Returns the rule that wins for a recipient."""
        if not self._conditional:
            return self._last
        rule = self._rules.get(recipient)
        if rule is None:
            matching = (each for each in self._conditional if each.matches_recipient(recipient))
            rule = self._rules[recipient] = next(matching, self._last)
        return rule

    def ruling(self, recipient: Recipient) -> Ruling:
        """Returns the decision for a recipient."""
        return self._judge.rulings[self.rule(recipient)]

    def taking_part(self, recipients: Collection[Recipient]) -> set[Recipient]:
        """Returns the recipients for which the message takes part in its sequence, whatever this process knows."""
        consecutive = self._judge.consecutive
        if not self._scopes and consecutive.isdisjoint(self.matching_rules):
            return set()
        return {
            recipient
            for recipient in recipients
            if self.rule(recipient) in consecutive or any(scope.matches_recipient(recipient) for scope in self._scopes)
        }

    def normal_form(self, rule: Rule) -> NormalForm:
        """Returns what counts of the message under one of its matching rules."""
        return self._forms[self._judge.ignores[rule]]

    def fingerprint(self, recipient: Recipient) -> Fingerprint:
        """Returns the fingerprint for a recipient."""
        # Most messages have one rule for all recipients. The call of `rule` takes a seventh of the time.
        rule = self.rule(recipient) if self._conditional else self._last
        return fingerprint(self._digests[rule], recipient)

    def default_fingerprint(self, recipient: Recipient) -> Fingerprint:
        """Returns a fingerprint of an exempt message, for its sequence. No rules for recipients are evaluated."""
        return fingerprint(self._digests[self._last], recipient)


def _message_id(found: Sequence[bytes]) -> str:
    return _NOT_PRINTABLE.sub(b"?", unfold(found[0]).strip()[:_MESSAGE_ID_LIMIT]).decode() if found else ""
