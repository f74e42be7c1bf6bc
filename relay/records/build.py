"""Builds the record of a message from the transaction's report and the analysis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.core.envelope import fold
from relay.core.outcome import REPEATS
from relay.core.record import Record, Repeat

if TYPE_CHECKING:
    from relay.core.report import Report
    from relay.judge.fingerprint.normal_form import NormalForm
    from relay.judge.judge import MessageAnalysis
    from relay.records.pseudonyms import Pseudonyms

_MOST_FIELDS = 40
"""Fields of a normalised form that an outline lists."""


def record_of(report: Report, analysis: MessageAnalysis, pseudonyms: Pseudonyms, at: float) -> Record | None:
    """Returns the record of a finished message, or None if it repeated nothing. `at` in seconds since the epoch."""
    repeats = {to: result for to, result in report.results.items() if result.outcome in REPEATS}
    if not repeats:
        return None
    rules = {report.rulings[to].rule: analysis.rule(to) for to in repeats}
    return Record(
        id=report.id,
        at=at,
        message_id=report.message_id,
        sender=pseudonyms(fold(report.envelope.reverse_path)),
        repeats=tuple(
            Repeat(
                pseudonyms(to),
                result.outcome,
                report.rulings[to].rule,
                analysis.fingerprint(to),
                result.age,
                result.original,
            )
            for to, result in repeats.items()
        ),
        forms={name: outline(analysis.normal_form(rule), pseudonyms) for name, rule in rules.items()},
        ignored={
            name: tuple(dict.fromkeys(ignored.name for ignored in analysis.normal_form(rule).ignored))
            for name, rule in rules.items()
        },
    )


def outline(form: NormalForm, pseudonyms: Pseudonyms) -> tuple[str, ...]:
    """Returns each field's label with a keyed digest of its value, such as `Subject 1c9f03a2`."""
    listed = tuple(f"{label} {pseudonyms.digest(value)}" for label, value in form.fields[:_MOST_FIELDS])
    more = len(form.fields) - len(listed)
    return (*listed, f"and {more} more") if more else listed
