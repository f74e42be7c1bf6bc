"""The judgement: from content to what holds for each recipient, and one fingerprint each."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from relay.judge.fingerprint.decoded import STYLE_SHEET, decode_message
from relay.judge.fingerprint.normal_form import normal_form
from relay.judge.html.style_sheet import REMEMBERED
from relay.judge.mime.headers import field_values, unfold
from relay.judge.mime.message import parse
from relay.judge.rules.ignores import Ignores
from relay.judge.rules.rule import NO_RULE, MessageView, PatternPrefilter, Rule, candidates, ruling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.core.claim import Fingerprint
    from relay.core.envelope import Recipient
    from relay.core.ruling import Ruling
    from relay.judge.fingerprint.normal_form import NormalForm
    from relay.judge.mime.message import Message
    from relay.judge.rules.ignore import Ignore

VERSION = 3
"""Stands in every fingerprint. Whatever changes a digest of the corpus changes this too."""

_PREFIX = f"v{VERSION}:"
_DIGEST_SIZE = 20
"""Bytes."""
_MESSAGE_ID_LIMIT = 250


class Judge:
    """Looks at messages by the operator's rules. `window` in seconds; `observe` turns every suppression into a count.

    `ignore` is what does not count in any message; a rule may add to it.
    """

    def __init__(
        self, rules: Sequence[Rule] = (), ignore: Sequence[Ignore] = (), *, window: float, observe: bool = False
    ) -> None:
        self.rules = tuple(rules)
        own = Ignores(ignore)
        self._noises = {rule: Ignores((*ignore, *rule.ignore)) if rule.ignore else own for rule in (*rules, NO_RULE)}
        self._rulings = {rule: ruling(rule, window, observe=observe) for rule in self._noises}
        self.screen = PatternPrefilter(self.rules)

    def __call__(self, content: bytes, reverse_path: bytes) -> MessageAnalysis:
        """Look at a message as its recipient gets it. Any bytes can be judged."""
        return MessageAnalysis(self, parse(content), reverse_path)

    def noise(self, rule: Rule) -> Ignores:
        """Give what does not count under a rule."""
        return self._noises[rule]

    def ruling(self, rule: Rule) -> Ruling:
        """Give what holds under a rule."""
        return self._rulings[rule]


class MessageAnalysis:
    """A message that was looked at: what counts of it, and what the story needs to know."""

    def __init__(self, judge: Judge, message: Message, reverse_path: bytes) -> None:
        self._judge = judge
        self._reading = decode_message(message, reverse_path)
        self.message_id = _message_id(field_values(message.fields, "message-id"))
        """For records; printable ASCII, or empty."""
        self.received = message.received
        """Raw values of its Received fields, top first."""
        decoded = {"subject": self._reading.shown("Subject"), "from": self._reading.shown("From")}
        sight = MessageView(message, self._reading.body.texts, reverse_path, judge.screen, decoded)
        self.candidates = candidates(judge.rules, sight)
        """The rules that can win, in order; the last takes every recipient."""
        *self._asking, self._last = self.candidates
        self._forms: dict[Ignores, NormalForm] = {}
        self._seeds: dict[Ignores, hashlib.blake2b] = {}
        # What takes time is done here, where a large message has a thread of its own.
        seeds = [self._seed(rule) for rule in self.candidates]
        self._only_seed = None if self._asking else seeds[0]

    def rule(self, recipient: Recipient) -> Rule:
        """Give the rule that wins for a recipient."""
        for rule in self._asking:
            if rule.takes(recipient):
                return rule
        return self._last

    def ruling(self, recipient: Recipient) -> Ruling:
        """Give what holds for a recipient."""
        return self._judge.ruling(self.rule(recipient))

    def normal_form(self, rule: Rule) -> NormalForm:
        """Give what counts of the message under a rule."""
        noise = self._judge.noise(rule)
        if noise not in self._forms:
            self._forms[noise] = normal_form(self._reading, noise)
        return self._forms[noise]

    def fingerprint(self, recipient: Recipient) -> Fingerprint:
        """Give the fingerprint for one recipient."""
        state = (self._only_seed or self._seed(self.rule(recipient))).copy()
        state.update(recipient.encode("utf-8", "surrogatepass"))
        # `Fingerprint(...)` is a call that does nothing, and this is done for each recipient.
        return _PREFIX + state.hexdigest()  # type: ignore[return-value]

    def _seed(self, rule: Rule) -> hashlib.blake2b:
        noise = self._judge.noise(rule)
        if noise not in self._seeds:
            self._seeds[noise] = seed(self.normal_form(rule))
        return self._seeds[noise]


def seed(form: NormalForm) -> hashlib.blake2b:
    """Begin the digest with what is common to all recipients; it goes on with one of them."""
    labels = [label for label, _ in form.fields]
    summed = [_sum(value) if label == STYLE_SHEET else value for label, value in form.fields]
    # With all lengths in front, so that no field can pass for the end of another one.
    encoded = b"%a%a%b" % (labels, list(map(len, summed)), b"".join(summed))
    return hashlib.blake2b(encoded, digest_size=_DIGEST_SIZE, person=b"smtp-dedup-relay")


@lru_cache(REMEMBERED)
def _sum(style: bytes) -> bytes:
    """Hash a style sheet: one site's mails all have the same, and it is most of them."""
    return hashlib.blake2b(style).digest()


def _message_id(found: Sequence[bytes]) -> str:
    text = unfold(found[0]).strip()[:_MESSAGE_ID_LIMIT].decode("ascii", "replace") if found else ""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in text)
