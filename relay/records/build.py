"""Makes the record of a message from what the transaction reports and the judge found."""

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
"""Fields of a normalised form that an outline names."""


def record_of(report: Report, judged: MessageAnalysis, names: Pseudonyms, at: float) -> Record | None:
    """Give the record of a message that is over, or None where no repeat was found."""
    found = {to: result for to, result in report.results.items() if result.outcome in REPEATS}
    if not found:
        return None
    rules = {report.rulings[to].rule: judged.rule(to) for to in found}
    return Record(
        id=report.id,
        at=at,
        message_id=report.message_id,
        sender=names(fold(report.envelope.reverse_path)),
        repeats=tuple(
            Repeat(
                names(to),
                result.outcome,
                report.rulings[to].rule,
                judged.fingerprint(to),
                result.age,
                result.original,
            )
            for to, result in found.items()
        ),
        forms={named: outline(judged.normal_form(rule), names) for named, rule in rules.items()},
        ignored={
            named: tuple(dict.fromkeys(piece.name for piece in judged.normal_form(rule).ignored))
            for named, rule in rules.items()
        },
    )


def outline(form: NormalForm, names: Pseudonyms) -> tuple[str, ...]:
    """Name the fields of a normalised form with a digest of each: enough to compare, too little to read."""
    shown = tuple(f"{label} {names.digest(value)}" for label, value in form.fields[:_MOST_FIELDS])
    more = len(form.fields) - len(shown)
    return (*shown, f"and {more} more") if more else shown
