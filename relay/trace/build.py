"""Builds the trace of a transaction from what the transaction noted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.core.envelope import fold
from relay.core.outcome import REPEATS
from relay.core.trace import RecipientTrace, Trace, TraceOutcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.core.envelope import Recipient
    from relay.core.reply import Reply
    from relay.core.report import Report
    from relay.core.trace import Step
    from relay.judge.fingerprint.normal_form import NormalForm
    from relay.judge.judge import MessageAnalysis
    from relay.records.pseudonyms import Pseudonyms

_MOST_FIELDS = 40
"""Fields of a normalised form that an outline lists."""
_LONGEST_REPLY, _LONGEST_NAME = 300, 255
"""Characters of a reply, and of the client's name and login."""
_OUTCOMES = {outcome.value: outcome for outcome in TraceOutcome}


@dataclass(slots=True)
class Passage:
    """What a transaction notes for its trace, besides its report."""

    at: float
    """When MAIL arrived, in seconds since the Unix epoch."""
    host: str
    helo: bytes
    upstream: str
    subject: str
    steps: Mapping[Step, float]
    refused: Mapping[Recipient, Reply]
    """The recipients that were refused at RCPT."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Why a message is a repeat."""

    fingerprints: Mapping[Recipient, str] = field(default_factory=dict)
    forms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ignored: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_NO_REPEAT = Comparison()


def compare(report: Report, analysis: MessageAnalysis, pseudonyms: Pseudonyms) -> Comparison:
    """Returns why a message is a repeat for some of its recipients."""
    repeats = [to for to, result in report.results.items() if result.outcome in REPEATS]
    forms = {report.rulings[to].rule: analysis.normal_form(analysis.rule(to)) for to in repeats}
    return Comparison(
        {to: analysis.fingerprint(to) for to in repeats},
        {name: outline(form, pseudonyms) for name, form in forms.items()},
        {name: tuple(dict.fromkeys(ignored.name for ignored in form.ignored)) for name, form in forms.items()},
    )


def outline(form: NormalForm, pseudonyms: Pseudonyms) -> tuple[str, ...]:
    """Returns each field's label with a keyed digest of its value, such as `Subject 1c9f03a2`."""
    listed = tuple(f"{label} {pseudonyms.digest(value)}" for label, value in form.fields[:_MOST_FIELDS])
    more = len(form.fields) - len(listed)
    return (*listed, f"and {more} more") if more else listed


def trace_of(
    report: Report, passage: Passage, pseudonyms: Pseudonyms, comparison: Comparison = _NO_REPEAT, kept: str = ""
) -> Trace:
    """Returns the trace of a finished message. `kept` is the file name of its copy."""
    reply = _text(report.reply, pseudonyms)
    texts = {id(report.reply): reply}
    recipients = []
    for to, result in report.results.items():
        text = texts.get(id(result.reply)) or texts.setdefault(id(result.reply), _text(result.reply, pseudonyms))
        ruling = report.rulings.get(to)
        recipients.append(
            RecipientTrace(
                pseudonyms(to),
                _OUTCOMES[result.outcome._value_],
                text,
                ruling.rule if ruling else "",
                comparison.fingerprints.get(to, ""),
                result.age,
                result.original,
            )
        )
    if passage.refused:
        recipients += _refused(passage.refused, pseudonyms)
    return Trace(
        report.id,
        passage.at,
        report.seconds,
        passage.host,
        report.peer,
        _name(passage.helo),
        _login(report.login, pseudonyms),
        pseudonyms(fold(report.envelope.reverse_path)),
        report.message_id,
        passage.subject,
        report.size,
        passage.upstream,
        reply,
        tuple(recipients),
        passage.steps,
        comparison.forms,
        comparison.ignored,
        kept,
    )


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A transaction that ended before its final dot."""

    id: str
    peer: str
    login: str
    reverse_path: bytes
    accepted: Mapping[Recipient, Reply]
    """The recipients that the upstream accepted."""


def unfinished_trace(ended: Unfinished, passage: Passage, pseudonyms: Pseudonyms) -> Trace:
    """Returns the trace of a transaction without a message."""
    aborted = [
        RecipientTrace(pseudonyms(to), TraceOutcome.ABORTED, _text(reply, pseudonyms))
        for to, reply in ended.accepted.items()
    ]
    return Trace(
        id=ended.id,
        at=passage.at,
        seconds=0.0,
        host=passage.host,
        peer=ended.peer,
        helo=_name(passage.helo),
        login=_login(ended.login, pseudonyms),
        sender=pseudonyms(fold(ended.reverse_path)),
        message_id="",
        subject="",
        size=0,
        upstream="",
        reply="",
        recipients=(*aborted, *_refused(passage.refused, pseudonyms)),
        steps=passage.steps,
    )


def _refused(refused: Mapping[Recipient, Reply], pseudonyms: Pseudonyms) -> list[RecipientTrace]:
    return [
        RecipientTrace(pseudonyms(to), TraceOutcome.RCPT_REFUSED, _text(reply, pseudonyms))
        for to, reply in refused.items()
    ]


def _text(reply: Reply, pseudonyms: Pseudonyms) -> str:
    return pseudonyms.redact(f"{reply.code} {reply.text}", _LONGEST_REPLY)


def _name(helo: bytes) -> str:
    return helo[:_LONGEST_NAME].decode("utf-8", "backslashreplace")


def _login(login: str, pseudonyms: Pseudonyms) -> str:
    """Returns the name of a login, which often is a mail address."""
    return pseudonyms(fold(login.encode("utf-8", "surrogateescape"))) if "@" in login else login[:_LONGEST_NAME]
